"""Recipe: what the user asks for, as strict YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from hfcompress.errors import RecipeError
from hfcompress.recipe.base import Strict, invalid
from hfcompress.recipe.data import DataStep
from hfcompress.recipe.evaluate import EvaluateStep, PublishStep
from hfcompress.recipe.prune import PruneStep
from hfcompress.recipe.quantize import QuantizeStep
from hfcompress.recipe.recover import RecoverStep
from hfcompress.recipe.teacher import TeacherStep


class Recipe(Strict):
    """A whole run: data, teacher, pruning, recovery, int8, evaluation and card.

    Attributes:
        name: Short name of the run.
        seed: Seed of everything random.
        data: Data to train, choose and measure on.
        teacher: The model to compress.
        prune: What to cut; leave it out to keep the structure.
        recover: How the pruned model is trained again; needs `prune`.
        quantize: Exports and int8 artefacts.
        evaluate: How everything is measured.
        publish: What the card says.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataStep
    teacher: TeacherStep
    prune: PruneStep | None = None
    recover: RecoverStep | None = None
    quantize: QuantizeStep = QuantizeStep()
    evaluate: EvaluateStep = EvaluateStep()
    publish: PublishStep = PublishStep()
    _source: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _recovery_needs_pruning(self) -> Recipe:
        if self.recover and not self.prune:
            raise ValueError("recover is set without prune: there is nothing to recover from")
        if self.prune and self.prune.stages > 1 and not self.recover:
            raise ValueError("prune.stages is set without recover, which has to come after each stage")
        if self.prune and self.prune.weights and self.prune.weights.gradual and not self.recover:
            raise ValueError("prune.weights.gradual is set without recover, in which the zeros would grow")
        return self

    @model_validator(mode="after")
    def _features_need_one_vocabulary(self) -> Recipe:
        if self.recover and self.recover.features and self.prune and self.prune.vocabulary:
            raise ValueError(
                "recover.features needs student and teacher to read the same ids: leave out one of it and "
                "prune.vocabulary"
            )
        return self

    @property
    def text(self) -> str:
        """The YAML text that this recipe was read from, verbatim; `to_yaml()` where it was changed or made in code."""
        if self._source and type(self).model_validate(yaml.safe_load(self._source)) == self:
            return self._source
        return self.to_yaml()

    def __eq__(self, other: object) -> bool:
        """Recipes are equal if their settings are, whatever text they were read from."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def to_yaml(self) -> str:
        """The recipe as YAML with every default written out; `from_yaml` reads the same recipe back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from YAML.

        Args:
            text: The YAML text.
            overrides: Settings such as `prune.heads=0.25`, which take the place of those in the text; the value is
                YAML.

        Raises:
            RecipeError: No valid YAML, an unknown key, or a value that does not fit; names each of them.
        """
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(
                "The recipe is not valid YAML",
                value=str(error).replace("\n", " "),
                expected="a YAML mapping",
                remedy="correct the line named",
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
            recipe._source = text
        return recipe

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from a YAML file.

        Raises:
            RecipeError: There is no such file, or it holds no valid recipe.
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
    *parents, last = key.split(".")
    target = settings
    for parent in parents:
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
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"The value of --set {key} is not valid YAML",
            value=value,
            expected="a YAML value, for example 0.25 or [0, 2, 4]",
            remedy="correct the value, or quote it",
        ) from error
