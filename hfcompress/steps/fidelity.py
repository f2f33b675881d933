"""Scores on dev that calibration and score fidelity need: maps to the teacher's logits, and its best threshold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.fidelity import ScoreScale, best_threshold, score_fidelity
from hfcompress.evaluation.metrics import run_from_scores
from hfcompress.evaluation.results import EvaluatedCandidate
from hfcompress.evaluation.score_map import fit_score_map
from hfcompress.evaluation.scores import query_scores
from hfcompress.models.load import load_config
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.rankers.load import activation_name
from hfcompress.report.fidelity import ScoreFidelity, ScoreMap
from hfcompress.steps.context import RunContext
from hfcompress.utils.files import write_text
from hfcompress.utils.text import count

logger = logging.getLogger(__name__)

FIT_QUERIES = 400  # of several documents each: the standard error of the shift is then some hundredths of a logit
OFF = "calibrate: false"


def fit_split(data: RankingData) -> str | None:
    """The split on which scores are compared with the teacher's: dev, else train; None if there is neither."""
    return next((name for name in ("dev", "train") if any(_listed(data, name).values())), None)


def fit_maps(context: RunContext, candidates: Sequence[Candidate]) -> dict[str, ScoreMap]:
    """Fit the scale and shift of each artifact to the teacher's logits.

    Args:
        context: The run.
        candidates: The teacher, and its artifacts after it. A model in 16 bits has the weights of the checkpoint, and
            so its map.

    Returns:
        Maps by the path of the artifact in the output folder; none where a fit is not possible, which is logged.
    """
    split = fit_split(context.data)
    if split is None:
        return {}
    teacher, *artifacts = candidates
    scores = _scores(context, teacher, split, FIT_QUERIES)
    maps: dict[str, ScoreMap] = {}
    for artifact in artifacts:
        if artifact.runtime == "torch" and not artifact.is_exact:
            continue
        own = _scores(context, artifact, split, FIT_QUERIES)
        found = fit_score_map(list(own.values()), list(scores.values()), split)
        if found is None:
            pairs = count(sum(map(len, own.values())), "pair")
            logger.warning(
                f"calibrate: the scores of {artifact.name} stay as they are: {pairs} of {split} are too few for a "
                "fit, or do not rise with the teacher's"
            )
            continue
        maps[artifact.path] = found
        logger.info(f"calibrate: {artifact.name}: {in_words(found)}")
    return maps


def in_words(found: ScoreMap) -> str:
    """A map as one line of text."""
    if (found.scale, found.shift) == (1.0, 0.0):
        return f"has the teacher's scale already, drift {found.before:.3g} on {found.split}"
    return (
        f"{found.scale:.4g} * logit {found.shift:+.4g}, drift {found.before:.3g} -> {found.after:.3g} "
        f"on {count(found.pairs, 'pair')} of {found.split}"
    )


def record_maps(folder: Path, maps: Mapping[str, ScoreMap]) -> None:
    """Record maps in the `hfcompress_config.json` of a checkpoint."""
    config = RankerCompressionConfig.from_pretrained(folder)
    config.calibration = {path: found.model_dump(mode="json") for path, found in maps.items()}
    write_text(folder / RankerCompressionConfig.CONFIG_NAME, config.to_json_string())


def recorded_maps(folder: Path) -> dict[str, ScoreMap]:
    """Maps that `record_maps` has recorded; none in checkpoints of earlier versions."""
    recorded = RankerCompressionConfig.from_pretrained(folder).calibration
    return {path: ScoreMap.model_validate(found) for path, found in recorded.items()}


def measure_fidelity(
    context: RunContext, candidates: Sequence[Candidate], evaluated: Sequence[EvaluatedCandidate], checkpoint: Path
) -> ScoreFidelity | None:
    """Score fidelity of all artifacts of a run, on the test pairs that were scored; None without an artifact.

    Args:
        context: The run.
        candidates: The teacher and its artifacts.
        evaluated: Their results.
        checkpoint: Folder of the artifacts.
    """
    teacher, *artifacts = candidates
    if not artifacts:
        return None
    recipe, data = context.recipe, context.data
    scale = ScoreScale(activation_name(load_config(teacher.folder)))
    best, dev = None, data.splits.get("dev")
    if dev and dev.labelled:
        scores = _scores(context, teacher, "dev")
        best = best_threshold(dev.qrels, run_from_scores(_listed(data, "dev"), scores), data.relevant_from)
    maps = recorded_maps(checkpoint)
    if not recipe.calibrate:
        maps = {path: each.model_copy(update={"reason": OFF}) for path, each in fit_maps(context, candidates).items()}
    runs = {found.artifact.name: found.run for found in evaluated}
    return score_fidelity(
        runs[teacher.name],
        {each.name: runs[each.name] for each in artifacts},
        data.split("test").qrels,
        scale,
        best=best,
        others=scale.fixed_thresholds(),
        maps={each.name: maps[each.path] for each in artifacts if each.path in maps},
        relevant_from=data.relevant_from,
        confidence=recipe.evaluate.confidence,
        seed=recipe.seed,
    )


def _listed(data: RankingData, split: str, most: int | None = None) -> dict[str, list[str]]:
    """Candidates of the queries of a split that have any."""
    found = data.splits[split].candidates.items() if split in data.splits else ()
    return dict(islice(((query, documents) for query, documents in found if documents), most))


def _scores(context: RunContext, candidate: Candidate, split: str, most: int | None = None) -> dict[str, list[float]]:
    pairs: dict[str, Any] = {
        query: context.data.pairs(query, documents) for query, documents in _listed(context.data, split, most).items()
    }
    return query_scores(
        candidate, pairs, max_length=context.max_length, options=context.options, progress=context.progress
    )
