"""Inputs of the steps: the data of a run, the teachers of its recovery, and calibration pairs for int8."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from hfcompress.cluster.connection import RaySettings
from hfcompress.data.also import AlsoPart, AlsoTexts, also_count, load_also
from hfcompress.data.document import text_key
from hfcompress.data.load import load_data
from hfcompress.data.pseudo_queries import add_pseudo_queries, has_pseudo_queries, make_queries
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.teachers import Teacher
from hfcompress.errors import DataError
from hfcompress.evaluation.ray_ranker import ray_ranker
from hfcompress.evaluation.scores import Fp32Scorer
from hfcompress.models.load import model_fingerprint
from hfcompress.pruning.calibration import also_queries
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.load import FILE_RUNTIMES, load_ranker
from hfcompress.recipe import Recipe, RecoverStep, ScoreSource, SplitLimits
from hfcompress.steps.context import RunContext
from hfcompress.steps.workspace import StepModel

logger = logging.getLogger(__name__)

RANKING_QUERIES, RANKING_DOCUMENTS = 32, 8  # mixed precision is chosen by their ranking
KNOWN_SHARE = 0.1  # of the queries of a zero-shot set: a few common questions may recur, but not a part of the data


def load_run_data(recipe: Recipe, progress: bool) -> RankingData:
    """Load the data of a recipe, with pseudo-queries where the recipe wants them and no train query has labels."""
    recovery = recipe.recover
    data = load_data(recipe.data, progress, unlabelled=bool(recovery and recovery.unlabelled))
    train = data.splits.get("train")
    if recovery and recovery.pseudo_queries and not (train and train.labelled):
        data = with_pseudo_queries(recipe, data)
    if recipe.data.dev_from_train and not data.splits.get("dev"):
        data = data.with_dev(recipe.data.dev_from_train)
    return data


def load_zero_shot(recipe: Recipe, data: RankingData, progress: bool) -> tuple[RankingData, ...]:
    """Load the zero-shot sets of a recipe, without queries that have the text (`text_key`) of a query of the run.

    Args:
        recipe: The recipe.
        data: Data of the run.
        progress: Show progress bars.

    Raises:
        DataError: A set cannot be used, or many of its queries are queries of the run.
    """
    # The other splits are unused: one query keeps them valid, and no candidates are retrieved for more.
    limits = SplitLimits(train=1, dev=1, test=recipe.evaluate.zero_shot_queries)
    known = {text_key(text) for text in data.queries.values()} if recipe.evaluate.zero_shot else set()
    sets = []
    for name in recipe.evaluate.zero_shot:
        step = recipe.data.model_copy(update={"sets": [name], "max_queries": limits})
        sets.append(_without_known(load_data(step, progress), known))
    return tuple(sets)


def _without_known(data: RankingData, known: Collection[str]) -> RankingData:
    test = data.split("test")
    found = {query for query in {**test.candidates, **test.qrels} if text_key(data.queries[query]) in known}
    if not found:
        return data
    if len(found) > KNOWN_SHARE * len(test):
        raise DataError(
            f"The zero-shot set {data.name!r} shares queries with the data of the run",
            value=f"{len(found)} of {len(test)} test queries, such as {sorted(found)[:3]}, are queries of the run, too",
            expected="a set that the run neither trains on nor chooses by",
            remedy="leave it out of evaluate.zero_shot, or out of data.sets",
        )
    rest = Split(
        qrels={query: grades for query, grades in test.qrels.items() if query not in found},
        candidates={query: listed for query, listed in test.candidates.items() if query not in found},
    )
    note = f"{len(found)} of {len(test)} test queries of {data.name} are left out: the run has them, too"
    logger.info(f"zero-shot: {note}")
    return replace(data, splits={**data.splits, "test": rest}, notes=(*data.notes, note))


def with_pseudo_queries(
    recipe: Recipe, data: RankingData, count: int | None = None, last: Collection[str] = ()
) -> RankingData:
    """Add pseudo-queries to the train split.

    Args:
        recipe: The recipe.
        data: Its data.
        count: Number of pseudo-queries; by default as many as the recipe asks for.
        last: Documents that are used only after all others.
    """
    assert recipe.recover is not None
    wanted = recipe.recover.pseudo_queries if count is None else count
    return add_pseudo_queries(data, wanted, recipe.seed, recipe.data.candidates, last)


def load_run_also(recipe: Recipe, data: RankingData, progress: bool) -> AlsoTexts | None:
    """Load the additional texts of a recipe, with queries for recovery and calibration; None if it names none.

    Args:
        recipe: The recipe.
        data: Its data, whose queries are left out.
        progress: Show progress bars.
    """
    if recipe.recover is None or not recipe.recover.also:
        return None
    calibration = also_queries(recipe.prune.calibration_queries) if recipe.prune else 0
    wanted = max(also_count(train_lists(recipe, data), recipe.recover.also_share), calibration, 1)
    return load_also(recipe.recover.also, recipe.data, wanted, recipe.seed, data.queries.values(), progress)


def also_parts(context: RunContext) -> list[AlsoPart]:
    """What each additional text gives to the training lists of a run; empty without additional texts."""
    step = context.recipe.recover
    if context.also is None or step is None:
        return []
    return context.also.parts(also_count(train_lists(context.recipe, context.data), step.also_share))


def train_lists(recipe: Recipe, data: RankingData) -> int:
    """Number of training lists of the data's own queries, pseudo-queries included."""
    step, train = recipe.recover, data.splits.get("train", Split({}, {}))
    assert step is not None
    lists = len(train) if step.unlabelled else sum(bool(train.relevant(query)) for query in train.candidates)
    if step.pseudo_queries and not has_pseudo_queries(data):
        lists += len(make_queries(data.corpus, step.pseudo_queries, recipe.seed, known=data.queries.values()))
    return lists if step.queries is None else min(lists, step.queries)


def recovery_teachers(context: RunContext, teacher: StepModel) -> Iterator[Teacher]:
    """Yield the teachers of the recovery; each is loaded when it is needed.

    Args:
        context: A run whose recipe recovers; BM25 as a teacher scores with the corpus of its data.
        teacher: The run's own teacher.
    """
    recipe, data = context.recipe, context.data
    assert recipe.recover is not None
    for source in recipe.recover.teachers or [ScoreSource()]:
        if source.bm25:
            settings = data.score_text.settings if data.score_text else None
            ranker = Bm25Ranker(data.corpus, settings, data.language)
            yield Teacher(ranker, f"{ranker.name} {data.fingerprint()}", source.weight)
            continue
        name, length, known = teacher.name, context.max_length, teacher.fingerprint
        if source.model is not None:
            name, length = source.model, source.max_length or recipe.teacher.max_length
            known = f"{source_fingerprint(source)} at {length} tokens"
            if source.score:
                known += f" {source.score.model_dump_json()}"
        with _scorer(context, recipe.recover, name, source, length) as scorer:
            yield Teacher(scorer, known, source.weight)


def _scorer(
    context: RunContext, step: RecoverStep, model: str, source: ScoreSource, length: int
) -> AbstractContextManager[Any]:
    """Load a teacher: a graph, one score of a classifier, or a cross-encoder in fp32; on a cluster if there is one."""
    if step.engine == "ray":
        runtime = FILE_RUNTIMES[Path(source.file).suffix] if source.file else "torch"
        device = "cpu" if source.file else context.recipe.device
        return ray_ranker(ray_settings_of(step), model, runtime, source.file, length, device, source.score)
    options = RankerOptions(device=str(context.device))
    if source.file:
        return nullcontext(load_ranker(model, None, source.file, length))
    if source.score:
        return nullcontext(load_ranker(model, "torch", None, length, options, score=source.score))
    return nullcontext(Fp32Scorer(model, length, options=options))


def ray_settings_of(step: RecoverStep) -> RaySettings:
    """The cluster on which the teachers of a recovery score."""
    return RaySettings(step.ray.address, step.ray.workers, step.ray.cpus)


def source_fingerprint(source: ScoreSource) -> str:
    """Fingerprint of an additional teacher; empty for BM25 and for the run's own teacher."""
    return model_fingerprint(source.model, source.file) if source.model else ""


def calibration_pairs(data: RankingData, count: int) -> list[tuple[str, str]]:
    """One pair a train query (test queries if there is no train split), with candidates of varying rank."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = (
        data.pairs(query, [documents[number % len(documents)]])[0]
        for number, (query, documents) in enumerate(split.candidates.items())
        if documents
    )
    return list(islice(pairs, count))


def ranking_pairs(data: RankingData) -> list[tuple[str, str]]:
    """Pairs of a few train queries with several candidates each, of evenly spaced ranks."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = []
    for query, documents in islice(split.candidates.items(), RANKING_QUERIES):
        if documents:
            pairs += data.pairs(query, documents[:: math.ceil(len(documents) / RANKING_DOCUMENTS)])
    return pairs
