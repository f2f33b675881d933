"""What all steps of a run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from hfcompress.data.ranking import RankingData
from hfcompress.models import load_tokenizer
from hfcompress.quantization.openvino import is_available
from hfcompress.recipe import ArtifactStep, PruneStep, Recipe
from hfcompress.workspace import Preview, Workspace

IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass
class Run:
    """What all steps of a run share.

    Attributes:
        recipe: What to do.
        data: What it is done with.
        workspace: Does the steps, or only notes that they are ahead.
        progress: Show progress bars.
    """

    recipe: Recipe
    data: RankingData
    workspace: Workspace | Preview
    progress: bool

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
        step: How to prune.
        suffix: What the names of its steps end in.
    """

    step: PruneStep
    suffix: str


def stages(recipe: Recipe) -> list[Stage]:
    """The rounds of pruning and recovery that a recipe asks for."""
    steps = recipe.prune.by_stage() if recipe.prune else []
    return [Stage(step, f"-{number}" if len(steps) > 1 else "") for number, step in enumerate(steps, 1)]


def installed(artifact: ArtifactStep, say: Callable[[str], None] | None = None) -> bool:
    """Whether the runtime of an artefact is there; `say` is told where it is not."""
    available = artifact.runtime != "openvino" or is_available()
    if say and not available:
        say("int8: leaves out OpenVINO, which is not installed (pip install 'hfcompress[openvino]')")
    return available


def in_words(figures: dict[str, float]) -> str:
    """Figures of a training for the user."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
