"""What all parts of `compress` share: the goal, the data, the remaining time, and the trials."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hfcompress.compress.goal import Goal
from hfcompress.compress.trials import Stage, Trial
from hfcompress.data.also import AlsoTexts
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import PRIMARY_METRIC, first_stage_run, judged_queries, means, per_query
from hfcompress.evaluation.power import pass_probability
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.models.load import model_fingerprint
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import Recipe, RecoverStep
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact
from hfcompress.steps.inputs import train_lists
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.device import torch_device

logger = logging.getLogger(__name__)

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
        also: General text, where there is time for more lists than train queries can give.
        score_cost: Cost of a pair of the lists for the teacher, relative to a pair of the data: general text is longer.
        candidates: The models of trials that were measured in the form of deployment, by the name of the trial.
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
    score_cost: float = 1.0
    candidates: dict[str, Candidate] = field(default_factory=dict)

    @cached_property
    def train_queries(self) -> int:
        """Number of train queries that give training lists."""
        return train_lists(loading_recipe(self.recipe, self.supervision), self.data)

    @cached_property
    def real_queries(self) -> int:
        """Number of train queries that give training lists and were not made from documents."""
        supervision = self.supervision.model_copy(update={"pseudo_queries": 0})
        return train_lists(loading_recipe(self.recipe, supervision), self.data)

    @cached_property
    def own_lists(self) -> int:
        """Number of training lists that the data can give: of train queries, and of queries made from its documents."""
        most = max(self.supervision.pseudo_queries, MOST_PSEUDO_QUERIES)
        supervision = self.supervision.model_copy(update={"pseudo_queries": most})
        return train_lists(loading_recipe(self.recipe, supervision), self.data)

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
        step = self.recipe.evaluate
        device = str(torch_device(self.recipe.device))
        return RankerOptions(step.threads, step.batch_tokens, device=device, long_documents=step.long_documents)

    @property
    def remaining(self) -> float:
        """Seconds that remain; the time that an earlier call spent on kept steps counts as used."""
        kept = sum(step.seconds for step in self.workspace.steps if step.reused)
        return self.goal.seconds - kept - (time.perf_counter() - self.began)

    @property
    def test_queries(self) -> int:
        """Number of test queries that the verdict is on."""
        return judged_queries(self.data, "test")

    def identity(self) -> list[Any]:
        """Inputs that every measurement depends on."""
        return [
            model_fingerprint(self.teacher),
            self.data.fingerprint(),
            self.max_length,
            self.recipe.seed,
            self.recipe.evaluate.model_dump(mode="json"),
        ]

    def evaluate(self, candidates: list[Candidate]) -> list[Artifact]:
        """Evaluate candidates on dev, side by side; the first is the teacher."""
        quick = self.recipe.evaluate.model_copy(update={"cold_start": False, "single_thread_queries": 0})
        evaluated = evaluate_candidates(
            candidates,
            self.data,
            quick,
            max_length=self.max_length,
            seed=self.recipe.seed,
            progress=self.progress,
            split="dev",
            stability=False,
            device=self.options.device,
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
        delta: Delta | None = None,
        on_test: bool = False,
    ) -> None:
        """Record a trial; `delta` is by default that of the artifact."""
        delta = delta or (artifact.delta if artifact else None)
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
                delta=delta,
                probability=None if delta is None or on_test else pass_probability(delta, self.test_queries),
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


def loading_recipe(recipe: Recipe, supervision: RecoverStep) -> Recipe:
    """A recipe for loading the data, with the supervision of the recovery; it is never run."""
    return recipe.model_copy(update={"recover": supervision})
