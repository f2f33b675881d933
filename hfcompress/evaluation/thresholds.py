"""Score fidelity of a model against a baseline outside a run, at thresholds of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.fidelity import ScoreScale, best_threshold, score_fidelity
from hfcompress.evaluation.metrics import Run, run_from_scores
from hfcompress.evaluation.scores import split_scores
from hfcompress.evaluation.systems import System
from hfcompress.models.load import load_config
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import activation_name
from hfcompress.report.fidelity import ScoreFidelity

BEST = "best"


@dataclass(frozen=True)
class Thresholds:
    """Thresholds on the baseline's scores.

    Attributes:
        scale: The scale of the scores of both models.
        logits: The thresholds as logits.
        best: Whether the baseline's best threshold on dev is one, too.
    """

    scale: ScoreScale
    logits: tuple[float, ...]
    best: bool


def read_thresholds(given: Sequence[str], systems: Sequence[System]) -> Thresholds | None:
    """Read thresholds, before anything is scored.

    Args:
        given: Numbers on the scale of the score that `rank` returns, or `best`.
        systems: The baseline and the model.

    Returns:
        The thresholds; None if none is given.

    Raises:
        DataError: A threshold is neither, or no score of the models; there is no baseline, one of the two is a run
            file, or they have different activations.
    """
    if not given:
        return None
    models = [each for each in systems if isinstance(each, Candidate)]
    if len(systems) < 2 or len(models) < len(systems):
        raise DataError(
            "Thresholds are compared between two models",
            value=f"--threshold {', '.join(given)}, {'no baseline' if len(systems) < 2 else 'a run file'}",
            expected="a model and --baseline with the model that the threshold was tuned on, its teacher",
            remedy="add --baseline, for a finished run DIR/.hfcompress/teacher or the model that was compressed",
        )
    names = [activation_name(load_config(each.folder)) for each in models]
    if names[0] != names[1]:
        raise DataError(
            "The scores of the two models are on different scales",
            value=f"{names[0]} and {names[1]}",
            expected="the same activation function in both",
            remedy="leave --threshold out, or set activation_fn in config_sentence_transformers.json of one of them",
        )
    scale = ScoreScale(names[0])
    return Thresholds(scale, tuple(scale.logit(_number(each)) for each in given if each != BEST), BEST in given)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(
            "A threshold is not a number",
            value=text,
            expected="a number on the scale of the scores, such as 0.5, or best",
            remedy="correct --threshold",
        ) from error


def fidelity_at(
    thresholds: Thresholds,
    systems: Sequence[System],
    runs: Sequence[Run],
    data: RankingData,
    split: str,
    *,
    max_length: int | None,
    options: RankerOptions,
    progress: bool = True,
) -> ScoreFidelity:
    """Compare the scores of a model with those of a baseline.

    Args:
        thresholds: The thresholds.
        systems: The baseline and the model.
        runs: Their logits.
        data: The data.
        split: The split of the runs.
        max_length: Longest input in tokens; None for the tokenizer's.
        options: How to score dev pairs with the baseline, for its best threshold.
        progress: Show a progress bar.

    Raises:
        DataError: The best threshold is asked for, and the data have no dev split with labels.
    """
    baseline, model = systems
    assert isinstance(baseline, Candidate)
    best = None
    if thresholds.best:
        dev = data.split("dev")
        texts = data.with_score_text(baseline.score_text) if baseline.score_text else data
        scores = split_scores(baseline, texts, "dev", max_length=max_length, options=options, progress=progress)
        best = best_threshold(dev.qrels, run_from_scores(dev.candidates, scores), data.relevant_from)
    return score_fidelity(
        runs[0],
        {model.name: runs[1]},
        data.split(split).qrels,
        thresholds.scale,
        best=best,
        others=thresholds.logits,
        relevant_from=data.relevant_from,
    )
