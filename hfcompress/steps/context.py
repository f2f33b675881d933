"""What all steps of a run share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from hfcompress.data.also import AlsoTexts
from hfcompress.data.ranking import RankingData
from hfcompress.models.load import load_tokenizer
from hfcompress.quantization.config import QuantizationConfig, config_from_recipe
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import ArtifactStep, HalfPrecision, PruneStep, Recipe
from hfcompress.steps.workspace import Preview, Workspace
from hfcompress.utils.device import torch_device

IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass
class RunContext:
    """What all steps of a run share.

    Attributes:
        recipe: The recipe of the run.
        data: Its data.
        workspace: Runs the steps, or only lists them.
        progress: Show progress bars.
        also: Additional texts of the recovery; None if the recipe names none.
        zero_shot: Data sets that the run neither trains on nor chooses by.
    """

    recipe: Recipe
    data: RankingData
    workspace: Workspace | Preview
    progress: bool
    also: AlsoTexts | None = None
    zero_shot: tuple[RankingData, ...] = ()

    @property
    def device(self) -> torch.device:
        """Device of everything that runs PyTorch, except where a graph for the CPU is timed against it."""
        return torch_device(self.recipe.device)

    @property
    def options(self) -> RankerOptions:
        """How models score, and how every runtime is timed."""
        step = self.recipe.evaluate
        device, long_documents = str(self.device), step.long_documents
        return RankerOptions(step.threads, step.batch_tokens, device=device, long_documents=long_documents)

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.recipe.teacher.max_length

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A new copy of the teacher's tokenizer."""
        return load_tokenizer(self.recipe.teacher.model, self.max_length)


@dataclass(frozen=True)
class Stage:
    """A round of pruning and recovery.

    Attributes:
        step: Pruning settings of the round.
        suffix: Suffix of the names of its steps.
    """

    step: PruneStep
    suffix: str


def stages(recipe: Recipe) -> list[Stage]:
    """The rounds of pruning and recovery that a recipe asks for."""
    steps = recipe.prune.by_stage() if recipe.prune else []
    return [Stage(step, f"-{number}" if len(steps) > 1 else "") for number, step in enumerate(steps, 1)]


def runnable(artifacts: list[ArtifactStep]) -> list[ArtifactStep]:
    """The artifacts whose runtime is installed."""
    return [artifact for artifact in artifacts if artifact.runtime != "openvino" or is_available()]


def written(artifacts: list[ArtifactStep]) -> list[QuantizationConfig]:
    """Settings of the artifacts that have a file of their own, and whose runtime is installed."""
    return [config_from_recipe(each) for each in runnable(artifacts) if not isinstance(each, HalfPrecision)]


def in_words(figures: dict[str, float]) -> str:
    """Metrics of a training run as one line of text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
