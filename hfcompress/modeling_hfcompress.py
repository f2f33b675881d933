"""Pruned rerankers: stock transformers classes whose linear layers take the sizes that `config.json` names.

This file is copied into every pruned checkpoint and needs only torch and transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` opens it without hfcompress.
hfcompress itself prunes with the same `resize_layers`, so a checkpoint is rebuilt by the code that made it.
"""

from functools import cache
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

FORMAT = 1
CONFIG_KEY = "hfcompress"
PREFIX = "Pruned"


class BiasOnly(nn.Module):
    """What is left of a linear layer with no input columns: its bias, for every token."""

    def __init__(self, size: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(nn.Linear(1, size, device=device, dtype=dtype).bias.detach())

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the bias for every token of `hidden_states`."""
        return self.bias.expand(*hidden_states.shape[:-1], -1)


class NoHeads(nn.Module):
    """Stands for an attention module with no heads left; returns its output projection's bias, or its input."""

    def __init__(self, projection_name: str | None = None, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.projection_name = projection_name
        if projection_name is not None:
            self.add_module(projection_name, projection)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return (context, attention weights); there are none of the latter."""
        if self.projection_name is None:
            return hidden_states, None
        return getattr(self, self.projection_name)(hidden_states), None


def count_ranges(text: str) -> int:
    """Number of indices in a text such as `0-3,7`."""
    ends = [part.split("-") for part in text.split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def layer_sizes(plan: dict[str, Any]) -> list[tuple[int, int]]:
    """(heads, FFN neurons) of every layer that a plan keeps."""
    return [(count_ranges(layer["heads"]), count_ranges(layer["ffn"])) for layer in plan["layers"]]


def resize_layers(model: PreTrainedModel, architecture: dict[str, str], sizes: list[tuple[int, int]]) -> None:
    """Give every encoder layer of `model` the sizes asked for; its weights there are left uninitialized.

    Args:
        model: A sequence-classification model with as many layers as `sizes`.
        architecture: Names of the family's modules (a row of hfcompress's table, as a dict).
        sizes: (heads, FFN neurons) of each layer.
    """
    layers = list(model.get_submodule(architecture["layers"]).children())
    if len(layers) != len(sizes):
        raise ValueError(f"config.json has {len(layers)} layers and its pruning plan {len(sizes)}")
    head_size = model.config.hidden_size // model.config.num_attention_heads
    for layer, (heads, neurons) in zip(layers, sizes, strict=True):
        attention_width = heads * head_size
        _resize(layer, architecture["attention_output"], inputs=attention_width)
        if heads:
            for name in ("query", "key", "value"):
                _resize(layer, architecture[name], outputs=attention_width)
        else:
            _remove_attention(layer, architecture)
        _resize(layer, architecture["ffn_out"], inputs=neurons)
        if neurons:
            _resize(layer, architecture["ffn_in"], outputs=neurons)
        else:
            layer.set_submodule(architecture["ffn_in"], nn.Identity())


def _resize(layer: nn.Module, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    old = layer.get_submodule(path)
    if not isinstance(old, nn.Linear):  # pruned to nothing before
        return
    inputs = old.in_features if inputs is None else inputs
    outputs = old.out_features if outputs is None else outputs
    if (inputs, outputs) == (old.in_features, old.out_features):
        return
    options = {"device": old.weight.device, "dtype": old.weight.dtype}
    bias = old.bias is not None
    new = nn.Linear(inputs, outputs, bias=bias, **options) if inputs else BiasOnly(outputs, **options)
    layer.set_submodule(path, new)


def _remove_attention(layer: nn.Module, architecture: dict[str, str]) -> None:
    attention, output = architecture["attention"], architecture["attention_output"]
    if output.startswith(f"{attention}."):
        name = output[len(attention) + 1 :]
        layer.set_submodule(attention, NoHeads(name, layer.get_submodule(output)))
    else:
        layer.set_submodule(attention, NoHeads())


def align_weights(model: nn.Module) -> None:
    """Copy weights out of the memory-mapped file: BLAS kernels round differently on addresses that are not aligned."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@cache
def pruned_class(name: str) -> type[PreTrainedModel]:
    """The pruned form of a transformers class, e.g. `PrunedBertForSequenceClassification`."""
    base: Any = getattr(transformers, name[len(PREFIX) :])

    class Pruned(base):
        """Stock class with the layer sizes of `config.hfcompress`."""

        _auto_class = "AutoModelForSequenceClassification"

        def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            record = getattr(config, CONFIG_KEY)
            if record["format"] != FORMAT:
                raise ValueError(f"This checkpoint has pruning format {record['format']}; this code reads {FORMAT}.")
            resize_layers(self, record["architecture"], layer_sizes(record["plan"]))

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            loaded = super().from_pretrained(*args, **kwargs)
            align_weights(loaded[0] if isinstance(loaded, tuple) else loaded)
            return loaded

    Pruned.__name__ = Pruned.__qualname__ = name
    Pruned.__module__ = __name__
    return Pruned


def __getattr__(name: str) -> Any:
    if name.startswith(PREFIX) and name.endswith("ForSequenceClassification"):
        return pruned_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
