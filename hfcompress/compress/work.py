"""What all decisions of `compress` share: the goal, the data, the time that is left, and what was tried."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfcompress.checks import check, check_data
from hfcompress.compress.goal import Goal
from hfcompress.compress.measured import pairs_per_second, remembered
from hfcompress.compress.tried import Stage, Tried
from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import score_text_of
from hfcompress.errors import ModelError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import first_stage_run, means, per_query
from hfcompress.evaluation.report import Artifact
from hfcompress.evaluation.results import PRIMARY_METRIC, measure_candidates
from hfcompress.models import load_config, load_tokenizer, model_fingerprint, position_limit, resolve
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import (
    DataStep,
    EvaluateStep,
    PublishStep,
    QuantizeStep,
    Recipe,
    RecoverStep,
    SplitLimits,
    TeacherStep,
)
from hfcompress.run_data import load_run_data
from hfcompress.workspace import Workspace

DEV_QUERIES = 100  # to choose by
FEWEST_DEV = 2  # give an interval
DEV_SHARE = 5  # where there is no dev split, at most one train query of so many is for choosing
TEST_QUERIES = (50, 2000)  # at least and at most: a margin of 0.01 takes some 1,000 to 2,000 for a power of 80%
TEST_SHARE = 0.1  # of the time, for scoring test queries with the teacher
PSEUDO_QUERIES = 1000  # where there are no train queries with labels
CALIBRATION_PAIRS = 128


@dataclass
class Work:
    """What is to be done, with what, and what has been found so far.

    Attributes:
        goal: What is to be reached.
        recipe: Data, teacher and evaluation of every recipe that is tried.
        supervision: What recovery learns from where there are no labels.
        data: The data.
        workspace: Where results are kept.
        rate: Pairs a second of the teacher in fp32 PyTorch.
        progress: Show progress bars.
        began: When the call began, by `time.perf_counter`.
        loading: Seconds that loading the data took; the last run needs no longer for it.
        tried: Everything tried.
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
    tried: list[Tried] = field(default_factory=list)

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
    def left(self) -> float:
        """Seconds left; what an earlier call has spent on steps that are kept counts too."""
        kept = sum(step.seconds for step in self.workspace.steps if step.reused)
        return self.goal.seconds - kept - (time.perf_counter() - self.began)

    def identity(self) -> list[Any]:
        """What every measurement depends on."""
        return [
            model_fingerprint(self.teacher),
            self.data.fingerprint(),
            self.max_length,
            self.recipe.seed,
            self.recipe.evaluate.model_dump(mode="json"),
        ]

    def measure(self, candidates: list[Candidate], split: str = "dev") -> list[Artifact]:
        """Measure candidates side by side; the first is the teacher."""
        quick = self.recipe.evaluate.model_copy(update={"cold_start": False, "single_thread_queries": 0})
        measured = measure_candidates(
            candidates, self.data, quick, self.max_length, self.recipe.seed, self.progress, split
        )
        return [found.artifact for found in measured]

    def note(
        self,
        name: str,
        stage: Stage,
        ratio: float,
        ndcg: float,
        teacher: float,
        seconds: float,
        artifact: Artifact | None = None,
    ) -> None:
        """Write down what was tried."""
        self.tried.append(
            Tried(
                name=name,
                stage=stage,
                ratio=ratio,
                ndcg=ndcg,
                loss=teacher - ndcg,
                speedup=artifact.speedup if artifact else None,
                p50_ms=artifact.latency.p50_ms if artifact else None,
                megabytes=artifact.size_bytes / 1e6 if artifact else None,
                seconds=seconds,
            )
        )

    def decide(self, name: str, decision: str) -> None:
        """Write down what followed from what was last tried under this name."""
        place = max(number for number, each in enumerate(self.tried) if each.name == name)
        self.tried[place] = self.tried[place].model_copy(update={"decision": decision})
        self.workspace.say(f"{name}: {decision}")


def quality(artifact: Artifact) -> float:
    """Mean nDCG@10."""
    return artifact.quality[PRIMARY_METRIC]


def first_stage_quality(data: RankingData, split: str) -> float:
    """Mean nDCG@10 of the order in which the candidates came."""
    chosen = data.split(split)
    return means(per_query(chosen.qrels, first_stage_run(chosen.candidates), data.relevant_from))[PRIMARY_METRIC]


def prepare(
    model: str,
    sets: Sequence[str],
    workspace: Workspace,
    goal: Goal,
    max_length: int | None,
    candidates: int,
    threads: int,
    license: str,
    seed: int,
    progress: bool,
) -> Work:
    """Check everything, load the data, and take as many queries as the time allows.

    Raises:
        HfCompressError: Something that the user can mend.
    """
    began = time.perf_counter()
    recipe = Recipe(
        name=f"{_name(model)}-compressed",
        seed=seed,
        data=DataStep(sets=list(sets), candidates=candidates, score_text=score_text_of(load_config(model))),
        teacher=TeacherStep(model=model, max_length=_length(model, max_length)),
        quantize=QuantizeStep(artifacts=goal.artifacts(), calibration_pairs=CALIBRATION_PAIRS),
        evaluate=EvaluateStep(margin=goal.max_loss, threads=threads),
        publish=PublishStep(license=license),
    )
    check(recipe)
    recipe, supervision, data = _with_queries(recipe, progress)
    for checked in (recipe, _loading(recipe, supervision)):
        check_data(checked, data)
    workspace.begin()
    known = [model_fingerprint(model), data.fingerprint(), recipe.teacher.max_length, threads]
    rate = remembered(
        workspace,
        "probe",
        known,
        lambda: pairs_per_second(model, data, "dev", recipe.teacher.max_length, RankerOptions(threads)),
    )
    fewest, most = TEST_QUERIES
    affordable = int(TEST_SHARE * goal.seconds * rate / candidates)
    # Not by the budget of a resumed call: with other test queries, nothing that was measured would count any more.
    test = remembered(workspace, "test", known, lambda: min(most, max(fewest, affordable)))
    each = max(1, test // len(sets))
    start = time.perf_counter()
    if len(data.splits["test"]) > each:
        limits = recipe.data.max_queries.model_copy(update={"test": each})
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_queries": limits})})
        data = load_run_data(_loading(recipe, supervision), progress)
    loading = max(start - began, time.perf_counter() - start)
    return Work(goal, recipe, supervision, data, workspace, rate, progress, began, loading)


def _name(model: str) -> str:
    """A name for the recipe, made of the model's."""
    place = Path(resolve(model))
    name = (place.resolve() if place.is_dir() else place).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def _length(model: str, asked: int | None) -> int:
    limit = position_limit(load_config(model))
    if asked and asked > limit:
        raise ModelError(
            "--max-length is longer than the model's positions",
            value=asked,
            expected=f"at most {limit} tokens",
            remedy="lower it",
        )
    return asked or min(load_tokenizer(model).model_max_length, limit)


def _with_queries(recipe: Recipe, progress: bool) -> tuple[Recipe, RecoverStep, RankingData]:
    """The data with queries to train on and to choose by, made of what there is."""
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
    """A recipe to load data by, with what recovery will learn from; it is never run."""
    return recipe.model_copy(update={"recover": supervision})
