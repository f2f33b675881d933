"""Modules that sentence-transformers puts behind the transformer of a cross-encoder, as its files describe them.

`modules.json` lists the modules of a model: a transformer that gives an embedding of each token, and the pooling, dense
layers, norms and dropout that make a score of them. Each module passes named features to the next. This file has their
settings and checks that they fit each other; `modular.py` has their computation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, field_validator
from torch import nn

from hfcompress.errors import ModelError
from hfcompress.utils.settings import Closed

TOKENS, POOLED, SCORES = "token_embeddings", "sentence_embedding", "scores"
# Looked up by name only: a checkpoint must not be able to name code to run. All act on each number by itself and have
# neither weights nor randomness.
_ELEMENTWISE = (
    nn.Identity, nn.GELU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Hardtanh,
    nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
DENSE_ACTIVATIONS: dict[str, type[nn.Module]] = {f"{kind.__module__}.{kind.__name__}": kind for kind in _ELEMENTWISE}

Sizes: TypeAlias = dict[str, tuple[int, bool]]
"""Width of each feature, and whether there is one for each token rather than one for the pair."""


class _Settings(Closed):
    """Settings in the file of a module, which is refused if it has others: they may change the scores."""

    model_config = ConfigDict(strict=True, frozen=True)
    # Settings that are written only if they differ from their default, so that earlier versions read the file.
    optional: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def outputs(self, sizes: Sizes) -> Sizes:
        """The features that the module writes.

        Args:
            sizes: The features that it can read.

        Raises:
            ValueError: It cannot read them.
        """

    def to_file(self) -> dict[str, Any]:
        """Content of the module's `config.json`, as sentence-transformers writes it."""
        defaults = {name for name in self.optional if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude={"type", *defaults})

    @staticmethod
    def _read(sizes: Sizes, name: str, width: int) -> bool:
        """Check a feature that is read; returns whether there is one for each token."""
        if name not in sizes:
            raise ValueError(f"reads {name}, and the modules before it write {', '.join(sizes)}")
        if sizes[name][0] != width:
            raise ValueError(f"reads {width} numbers, and {name} has {sizes[name][0]}")
        return sizes[name][1]


Mode = Literal["cls", "mean", "max"]


class Pooling(_Settings):
    """One embedding of the pair: that of the first token, or the mean or maximum over all tokens."""

    type: Literal["Pooling"] = "Pooling"
    embedding_dimension: PositiveInt
    pooling_mode: Mode | Annotated[tuple[Mode, ...], Field(min_length=1, strict=False)] = "mean"
    include_prompt: bool = True

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes, whose results are concatenated."""
        return (self.pooling_mode,) if isinstance(self.pooling_mode, str) else self.pooling_mode

    def outputs(self, sizes: Sizes) -> Sizes:
        """The pooled embedding, of the concatenated modes."""
        if not self._read(sizes, TOKENS, self.embedding_dimension):
            raise ValueError(f"reads an embedding of each token, and {TOKENS} has one of the pair")
        return {POOLED: (len(self.modes) * self.embedding_dimension, False)}


class Dense(_Settings):
    """A linear layer and an activation, perhaps with a residual connection around both."""

    optional = frozenset({"use_residual"})

    type: Literal["Dense"] = "Dense"
    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = POOLED
    module_output_name: str | None = None
    use_residual: bool = False

    @field_validator("activation_function")
    @classmethod
    def _known(cls, name: str) -> str:
        short = {f"torch.nn.{kind.__name__}": full for full, kind in DENSE_ACTIVATIONS.items()}
        full = short.get(name, name)
        if full not in DENSE_ACTIVATIONS:
            raise ValueError(f"{name!r} is none of {', '.join(short)}")
        return full

    @property
    def output_name(self) -> str:
        """The feature that the layer writes: by default the one that it reads."""
        return self.module_output_name or self.module_input_name

    def outputs(self, sizes: Sizes) -> Sizes:
        """The output of the layer."""
        per_token = self._read(sizes, self.module_input_name, self.in_features)
        return {self.output_name: (self.out_features, per_token)}


class LayerNorm(_Settings):
    """Layer normalization of the pooled embedding."""

    type: Literal["LayerNorm"] = "LayerNorm"
    dimension: PositiveInt

    def outputs(self, sizes: Sizes) -> Sizes:
        """The pooled embedding, as wide as before."""
        return {POOLED: (self.dimension, self._read(sizes, POOLED, self.dimension))}


class Dropout(_Settings):
    """Dropout of the pooled embedding in training."""

    type: Literal["Dropout"] = "Dropout"
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.2

    def outputs(self, sizes: Sizes) -> Sizes:
        """No other features: the pooled embedding is as wide as before."""
        if POOLED not in sizes:
            raise ValueError(f"reads {POOLED}, and the modules before it write {', '.join(sizes)}")
        return {}


HeadModule = Pooling | Dense | LayerNorm | Dropout
KINDS: dict[str, type[HeadModule]] = {kind.__name__: kind for kind in (Pooling, Dense, LayerNorm, Dropout)}
# The class of each kind in sentence-transformers, as version 6 names it in modules.json.
CLASSES = {
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
}
WITH_WEIGHTS = ("Dense", "LayerNorm")
_MODULES: TypeAdapter[tuple[HeadModule, ...]] = TypeAdapter(
    tuple[Annotated[HeadModule, Field(discriminator="type")], ...]
)


def head_module(kind: str, settings: dict[str, Any], where: str) -> HeadModule:
    """Read the settings of one module.

    Args:
        kind: Its kind, a key of `KINDS`.
        settings: Content of its `config.json`.
        where: Its folder, for the message.

    Raises:
        ModelError: A setting is unknown, invalid or not supported.
    """
    try:
        return KINDS[kind].model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        raise ModelError(
            f"The {kind} of the cross-encoder in {where} has a setting that hfcompress does not support",
            value=f"{name}={settings.get(name)!r}: {first['msg']}",
            expected=f"the settings {', '.join(sorted(KINDS[kind].model_fields.keys() - {'type'}))}, and the "
            "values that sentence-transformers 6 writes; pooling by cls, mean or max; an activation of torch.nn",
            remedy="use another model, or train this one with such a head",
        ) from error


def read_record(record: Any) -> tuple[HeadModule, ...]:
    """Read modules from the record in a model's config, as `to_record` returns it.

    Raises:
        ModelError: The record is damaged.
    """
    try:
        return _MODULES.validate_python(record)
    except ValidationError as error:
        raise ModelError(
            "The record of the modules behind the transformer, in config.json, cannot be read",
            value=error.errors()[0]["msg"],
            expected="the modules that hfcompress wrote there during a training",
            remedy="restore the config.json that was saved with the weights",
        ) from error


def to_record(modules: Sequence[HeadModule]) -> list[dict[str, Any]]:
    """Modules as plain data, for the config of a model in memory."""
    return [module.model_dump(mode="json") for module in modules]


def score_count(modules: Sequence[HeadModule], hidden_size: int) -> int:
    """Number of scores that the modules compute from token embeddings.

    Args:
        modules: The modules behind the transformer, in their order.
        hidden_size: Width of the transformer's token embeddings.

    Raises:
        ModelError: A module cannot read what those before it write, or there are no scores in the end.
    """
    sizes: Sizes = {TOKENS: (hidden_size, True)}
    for number, module in enumerate(modules, 1):
        try:
            sizes |= module.outputs(sizes)
        except ValueError as error:
            raise _unfit(f"module {number}, {module.type}, {error}") from error
    if SCORES not in sizes or sizes[SCORES][1]:
        found = f"{SCORES} for each token" if SCORES in sizes else ", ".join(sizes)
        raise _unfit(f"the last module leaves {found}")
    return sizes[SCORES][0]


def _unfit(fault: str) -> ModelError:
    return ModelError(
        "The modules of the cross-encoder do not fit each other",
        value=fault,
        expected=f"modules that lead from {TOKENS} through a Pooling to a Dense that writes {SCORES}",
        remedy="restore modules.json and the config.json of every module from the same save of the model",
    )


def pools_first_token(modules: Sequence[HeadModule]) -> bool:
    """Whether the modules read the embedding of the first token only."""
    return all(module.modes == ("cls",) for module in modules if isinstance(module, Pooling))
