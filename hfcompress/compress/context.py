"""What all parts of `compress` share: the goal, the data, the remaining time, and the trials."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hfcompress.compress.goal import Goal
from hfcompress.compress.step_results import cached_value, pairs_per_second
from hfcompress.compress.trials import Stage, Trial
from hfcompress.data.also import AlsoTexts
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import PRIMARY_METRIC, first_stage_run, means, per_query
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.models.load import load_tokenizer, model_fingerprint
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import (
    Recipe,
    RecoverStep,
    SplitLimits,
)
from hfcompress.report.report import Artifact
from hfcompress.steps.checks import check, check_data, check_zero_shot, check_zero_shot_names
from hfcompress.steps.inputs import load_run_data, load_zero_shot, train_lists
from hfcompress.steps.workspace import Workspace
from hfcompress.vocabulary.content import content_of

logger = logging.getLogger(__name__)

DEV_QUERIES = 100  # for choices
FEWEST_DEV = 2  # for an interval
DEV_SHARE = 5  # without a dev split, at most one of so many train queries becomes dev
TEST_QUERIES = (50, 2000)  # minimum and maximum: a margin of 0.01 takes some 1,000 to 2,000 for a power of 80%
TEST_SHARE = 0.1  # of the time, for the teacher's scores of test queries
PSEUDO_QUERIES = 1000  # if no train query has labels
MOST_PSEUDO_QUERIES = 10_000  # beside labelled train queries; time allows fewer
CALIBRATION_PAIRS = 128


@dataclass
class CompressContext:
    """State of a call of `compress`.

    Attributes:
        goal: The goal.
        recipe: Data, teacher and evaluation settings that all trials share.
        supervision: Recovery settings that say where its training lists come from.
        data: The data.
        workspace: Keeps the results of steps.
        rate: Pairs a second of the teacher in fp32 PyTorch.
        progress: Show progress bars.
        began: Start of the call, by `time.perf_counter`.
        loading: Seconds that loading the data took, an upper bound for the final run.
        zero_shot: Data sets on which the final run evaluates besides its own.
        zero_shot_pairs: Number of pairs that it ranks there.
        trials: All trials so far.
        also: General text, where there is time for more lists than the data can give.
    """

    goal: Goal
    recipe: Recipe
    supervision: RecoverStep
    data: RankingData
    workspace: Workspace
    rate: float
    progress: bool
    began: float
    loading: float
    zero_shot: tuple[str, ...] = ()
    zero_shot_pairs: int = 0
    trials: list[Trial] = field(default_factory=list)
    also: AlsoTexts | None = None

    @cached_property
    def train_queries(self) -> int:
        """Number of train queries that give training lists."""
        return train_lists(_loading(self.recipe, self.supervision), self.data)

    @cached_property
    def own_lists(self) -> int:
        """Number of training lists that the data can give: of train queries, and of queries made from its documents."""
        most = max(self.supervision.pseudo_queries, MOST_PSEUDO_QUERIES)
        return train_lists(
            _loading(self.recipe, self.supervision.model_copy(update={"pseudo_queries": most})), self.data
        )

    @property
    def teacher(self) -> str:
        """Name of the model to compress."""
        return self.recipe.teacher.model

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.recipe.teacher.max_length

    @property
    def options(self) -> RankerOptions:
        """Threads and token budget of every runtime."""
        return RankerOptions(self.recipe.evaluate.threads, self.recipe.evaluate.batch_tokens)

    @property
    def remaining(self) -> float:
        """Seconds that remain; the time that an earlier call spent on kept steps counts as used."""
        kept = sum(step.seconds for step in self.workspace.steps if step.reused)
        return self.goal.seconds - kept - (time.perf_counter() - self.began)

    def identity(self) -> list[Any]:
        """Inputs that every measurement depends on."""
        return [
            model_fingerprint(self.teacher),
            self.data.fingerprint(),
            self.max_length,
            self.recipe.seed,
            self.recipe.evaluate.model_dump(mode="json"),
        ]

    def evaluate(self, candidates: list[Candidate], split: str = "dev") -> list[Artifact]:
        """Evaluate candidates side by side; the first is the teacher."""
        quick = self.recipe.evaluate.model_copy(update={"cold_start": False, "single_thread_queries": 0})
        evaluated = evaluate_candidates(
            candidates,
            self.data,
            quick,
            max_length=self.max_length,
            seed=self.recipe.seed,
            progress=self.progress,
            split=split,
        )
        return [each.artifact for each in evaluated]

    def record(
        self,
        name: str,
        stage: Stage,
        pruning_speedup: float,
        ndcg: float,
        teacher: float,
        seconds: float,
        artifact: Artifact | None = None,
    ) -> None:
        """Record a trial."""
        self.trials.append(
            Trial(
                name=name,
                stage=stage,
                pruning_speedup=pruning_speedup,
                ndcg=ndcg,
                difference=ndcg - teacher,
                speedup=artifact.speedup if artifact else None,
                p50_ms=artifact.latency.p50_ms if artifact else None,
                megabytes=artifact.size_bytes / 1e6 if artifact else None,
                seconds=seconds,
            )
        )

    def record_decision(self, name: str, decision: str) -> None:
        """Record the decision that followed from the last trial of this name."""
        index = max(number for number, each in enumerate(self.trials) if each.name == name)
        self.trials[index] = self.trials[index].model_copy(update={"decision": decision})
        logger.info(f"{name}: {decision}")


def quality(artifact: Artifact) -> float:
    """Mean nDCG@10."""
    return artifact.quality[PRIMARY_METRIC]


def first_stage_quality(data: RankingData, split: str) -> float:
    """Mean nDCG@10 of the first stage's order of the candidates."""
    chosen = data.split(split)
    return means(per_query(chosen.qrels, first_stage_run(chosen.candidates), data.relevant_from))[PRIMARY_METRIC]


def prepare(
    recipe: Recipe, workspace: Workspace, goal: Goal, progress: bool, zero_shot: Sequence[str] = ()
) -> CompressContext:
    """Check the shared settings, load the data, and take as many queries as the time allows.

    Args:
        recipe: The shared settings.
        workspace: Keeps the results of steps.
        goal: The goal.
        progress: Show progress bars.
        zero_shot: Data sets on which the final run evaluates besides its own; they are checked here.

    Raises:
        HfCompressError: A fault that the user can mend.
    """
    began = time.perf_counter()
    check(recipe)
    check_zero_shot_names(with_zero_shot(recipe, zero_shot))
    if goal.vocabulary == "corpus" or goal.max_size_mb is not None:
        content_of(load_tokenizer(recipe.teacher.model))
    recipe, supervision, data = _with_queries(recipe, progress)
    for checked in (recipe, _loading(recipe, supervision)):
        check_data(checked, data)
    outside = load_zero_shot(with_zero_shot(recipe, zero_shot), data, progress)
    check_zero_shot(data, outside)
    zero_shot_pairs = sum(len(listed) for each in outside for listed in each.split("test").candidates.values())
    workspace.begin()
    teacher, threads = recipe.teacher, recipe.evaluate.threads
    known = [model_fingerprint(teacher.model), data.fingerprint(), teacher.max_length, threads]

    def measure() -> float:
        return pairs_per_second(teacher.model, data, "dev", teacher.max_length, RankerOptions(threads))

    rate = cached_value(workspace, "probe", known, measure)
    fewest, most = TEST_QUERIES
    affordable = int(TEST_SHARE * goal.seconds * rate / recipe.data.candidates)
    # Not by the budget of a resumed call: with other test queries, all measurements would be void.
    test = cached_value(workspace, "test", known, lambda: min(most, max(fewest, affordable)))
    each = max(1, test // len(recipe.data.sets))
    start = time.perf_counter()
    if len(data.splits["test"]) > each:
        limits = recipe.data.max_queries.model_copy(update={"test": each})
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_queries": limits})})
        data = load_run_data(_loading(recipe, supervision), progress)
    loading = max(start - began, time.perf_counter() - start)
    return CompressContext(
        goal=goal,
        recipe=recipe,
        supervision=supervision,
        data=data,
        workspace=workspace,
        rate=rate,
        progress=progress,
        began=began,
        loading=loading,
        zero_shot=tuple(zero_shot),
        zero_shot_pairs=zero_shot_pairs,
    )


def with_zero_shot(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """A recipe that also evaluates on these data sets; the measurements of `compress` do not depend on them."""
    evaluate = recipe.evaluate.model_copy(update={"zero_shot": list(sets)})
    return recipe.model_copy(update={"evaluate": evaluate})


def _with_queries(recipe: Recipe, progress: bool) -> tuple[Recipe, RecoverStep, RankingData]:
    """The data with train and dev queries, derived from what the sets offer."""
    supervision = RecoverStep()
    step = recipe.data.model_copy(update={"max_queries": SplitLimits(dev=-(-DEV_QUERIES // len(recipe.data.sets)))})
    recipe = recipe.model_copy(update={"data": step})
    data = load_run_data(recipe, progress)
    train = data.splits.get("train")
    if not (train and train.labelled):
        supervision = RecoverStep(unlabelled=True, pseudo_queries=PSEUDO_QUERIES)
        data = load_run_data(_loading(recipe, supervision), progress)
    if not data.splits.get("dev"):
        grades = data.split("train").qrels.values()
        labelled = sum(any(grade > 0 for grade in each.values()) for each in grades)
        step = step.model_copy(update={"dev_from_train": max(FEWEST_DEV, min(DEV_QUERIES, labelled // DEV_SHARE))})
        recipe = recipe.model_copy(update={"data": step})
        data = load_run_data(_loading(recipe, supervision), progress)
    return recipe, supervision, data


def _loading(recipe: Recipe, supervision: RecoverStep) -> Recipe:
    """A recipe for loading the data, with the supervision of the recovery; it is never run."""
    return recipe.model_copy(update={"recover": supervision})
