"""The recipe of a run, and how it is read from YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from hfcompress.errors import RecipeError
from hfcompress.recipe.base import Strict, invalid
from hfcompress.recipe.data import DataStep
from hfcompress.recipe.evaluate import EvaluateStep, PublishStep
from hfcompress.recipe.prune import PruneStep
from hfcompress.recipe.quantize import QuantizeStep
from hfcompress.recipe.recover import RecoverStep
from hfcompress.recipe.teacher import TeacherStep
from hfcompress.utils.settings import DEVICE_PATTERN


class Recipe(Strict):
    """A whole run: data, teacher, pruning, recovery, int8, evaluation and card.

    Attributes:
        name: Short name of the run.
        seed: Seed of everything random.
        device: Device of everything that runs PyTorch: `auto` (an accelerator where there is one), `cpu`, `cuda`,
            `cuda:N` or `mps`. Graphs run, and are timed, on the CPU.
        data: Data for training, model selection and evaluation.
        teacher: The model to compress.
        prune: Pruning; by default the structure is kept.
        recover: Recovery of the pruned model by distillation; requires `prune`.
        quantize: Exports and int8 artifacts.
        calibrate: Bring the scores of the student and of every quantized artifact to the teacher's scale, so that
            thresholds on the teacher's scores hold: a scale and a shift of the logit, fitted on dev pairs, are folded
            into weights and graphs. The ranking stays.
        evaluate: How the teacher and every artifact are evaluated.
        publish: Settings of the model card.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"
    data: DataStep
    teacher: TeacherStep
    prune: PruneStep | None = None
    recover: RecoverStep | None = None
    quantize: QuantizeStep = QuantizeStep()
    calibrate: bool = True
    evaluate: EvaluateStep = EvaluateStep()
    publish: PublishStep = PublishStep()
    _source: tuple[str, dict[str, Any]] | None = PrivateAttr(default=None)  # a text, and its settings

    @model_validator(mode="after")
    def _recovery_needs_pruning(self) -> Recipe:
        if self.recover and not self.prune:
            raise ValueError("recover is set without prune: there is nothing to recover from")
        if self.prune and self.prune.stages > 1 and not self.recover:
            raise ValueError("prune.stages is set without recover, which follows each stage")
        if self.prune and self.prune.weights and self.prune.weights.gradual and not self.recover:
            raise ValueError("prune.weights.gradual is set without recover, over which the sparsity would grow")
        return self

    @model_validator(mode="after")
    def _features_need_one_vocabulary(self) -> Recipe:
        if self.recover and self.recover.features and self.prune and self.prune.vocabulary:
            raise ValueError(
                "recover.features requires the same token ids in student and teacher: leave out recover.features or "
                "prune.vocabulary"
            )
        return self

    @model_validator(mode="after")
    def _scores_stand_before_whole_documents(self) -> Recipe:
        if self.data.score_text and self.evaluate.long_documents.chunks:
            raise ValueError(
                "data.score_text writes a score before the document, which its later chunks would lack: leave out "
                "data.score_text or evaluate.long_documents"
            )
        return self

    @model_validator(mode="after")
    def _also_is_something_else(self) -> Recipe:
        if self.recover and (same := sorted(set(self.recover.also) & set(self.data.sets))):
            raise ValueError(
                f"recover.also names {', '.join(same)}, which data.sets has: leave it out of recover.also, and set "
                "recover.pseudo_queries for more queries of its documents"
            )
        if self.recover and self.recover.also and self.prune and self.prune.calibration_queries < 4:
            raise ValueError("recover.also gives half of prune.calibration_queries, which must then be at least 4")
        return self

    @property
    def text(self) -> str:
        """The YAML text that this recipe was read from, or `to_yaml()` if it was changed or created in code."""
        return self._source[0] if self._source and self._source[1] == self.model_dump() else self.to_yaml()

    def __eq__(self, other: object) -> bool:
        """Whether the settings are equal, whatever text they were read from."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def to_yaml(self) -> str:
        """The recipe as YAML with all defaults; `from_yaml` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from YAML.

        Args:
            text: The YAML text.
            overrides: Settings such as `prune.heads=0.25`, with a value in YAML, that replace those in the text; null
                restores the default.

        Raises:
            RecipeError: Invalid YAML, unknown keys, or invalid values; the message names each of them.
        """
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(
                "The recipe is not valid YAML",
                value=str(error).replace("\n", " "),
                expected="a YAML mapping",
                remedy="correct this line",
            ) from error
        if not isinstance(settings, dict):
            raise RecipeError(
                "The recipe is empty or no mapping",
                value=type(settings).__name__,
                expected="a YAML mapping with at least name, data and teacher",
                remedy="start from a recipe in configs/",
            )
        for override in overrides or []:
            _override(settings, override)
        try:
            recipe = cls.model_validate(settings)
        except ValidationError as error:
            raise invalid("The recipe cannot be run", error) from error
        if not overrides:
            recipe._source = text, recipe.model_dump()
        return recipe

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from a YAML file.

        Raises:
            RecipeError: There is no such file, or it is not a valid recipe.
        """
        if not path.is_file():
            raise RecipeError(
                "There is no such recipe",
                value=str(path),
                expected="a YAML file",
                remedy="check the path; configs/ has recipes to start from",
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"The recipe {path} is not text",
                value=str(error),
                expected="a YAML file in UTF-8",
                remedy="save it as UTF-8",
            ) from error
        return cls.from_yaml(text, overrides)


def _override(settings: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise RecipeError(
            "A --set option is not of the form key=value",
            value=override,
            expected="for example prune.heads=0.25",
            remedy="name the key with dots, then =, then a YAML value",
        )
    try:
        setting = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"The value of --set {key} is not valid YAML",
            value=value,
            expected="a YAML value, for example 0.25 or [0, 2, 4]",
            remedy="correct the value, or quote it",
        ) from error
    *parents, last = key.split(".")
    target = settings
    for parent in parents:
        if setting is None and target.get(parent) is None and _is_key(Recipe, [*parents, last]):
            return  # a default of a section that is not there
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise RecipeError(
                f"--set {key} goes through {parent!r}, which holds no keys",
                value=target,
                expected="keys of nested sections",
                remedy="correct the key",
            )
    target[last] = setting


def _is_key(section: type[BaseModel], names: list[str]) -> bool:
    """Whether a section has a key, given by its name and those of the sections around it, outermost first."""
    first, *others = names
    if first not in section.model_fields:
        return False
    return not others or any(_is_key(inner, others) for inner in _sections(section.model_fields[first].annotation))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
