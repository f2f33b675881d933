"""Pruned rerankers: stock transformers classes whose linear layers take the sizes that `config.json` names.

This file is copied into every pruned checkpoint and needs only torch and transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` opens it without hfcompress.
hfcompress itself prunes with the same `resize_layers`, so a checkpoint is rebuilt by the code that made it.
"""

import copy
import inspect
from collections import Counter
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

FORMAT = 1
CONFIG_KEY = "hfcompress"
PREFIX = "Pruned"


class BiasOnly(nn.Module):
    """What is left of a linear layer with no input columns: its bias for every token, or zeros if it has none.

    The weight has no elements. It is there so that a stock class, which expects another shape, refuses the checkpoint
    instead of starting the layer anew.
    """

    def __init__(self, size: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.empty(size, 0, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(size, device=device, dtype=dtype)) if bias else None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the bias for every token of `hidden_states`."""
        shape = (*hidden_states.shape[:-1], len(self.weight))
        return hidden_states.new_zeros(shape) if self.bias is None else self.bias.expand(shape)


class NoHeads(nn.Module):
    """Stands for an attention module with no heads left; returns its output projection's bias, or its input."""

    def __init__(self, projection_name: str | None = None, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.projection_name = projection_name
        if projection_name is not None:
            self.add_module(projection_name, projection)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return (context, attention weights); there are none of the latter."""
        hidden_states = args[0] if args else kwargs["query"]  # as DistilBERT of transformers 4 passes them
        if self.projection_name is None:
            return hidden_states, None
        return getattr(self, self.projection_name)(hidden_states), None


class SelectHeads:
    """Forward pre-hook of an attention module: leaves it its own heads of a bias that is made for all heads.

    The encoder computes that bias once for all layers, from one table with a column for every head of the teacher.

    Args:
        attention: The module.
        argument: Name of its argument that is the bias, `(batch, heads, queries, keys)`; it comes by position.
        heads: Numbers of the heads that the module has left.
    """

    def __init__(self, attention: nn.Module, argument: str, heads: list[int]) -> None:
        self.position = list(inspect.signature(attention.forward).parameters).index(argument)
        self.heads = heads

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the bias of the heads that are left."""
        before, bias, after = inputs[: self.position], inputs[self.position], inputs[self.position + 1 :]
        return (*before, bias[:, self.heads], *after)


def head_size(config: PretrainedConfig) -> int:
    """Width of one attention head.

    A `head_dim` in the config does not count: the supported classes do not read it, and W_O has `hidden_size` columns.
    """
    return config.hidden_size // config.num_attention_heads


def head_rows(architecture: dict[str, Any]) -> dict[str, int]:
    """Linear layers whose output rows belong to heads, and how many blocks of heads follow each other in each.

    A fused layer stands for query, key and value, in this order: three blocks.
    """
    names = ("query", "key", "value", "position_key", "position_query")
    return dict(Counter(architecture[name] for name in names if architecture[name]))


def parse_ranges(text: str) -> list[int]:
    """Numbers in a text such as `0-3,7`."""
    ends = [part.split("-") for part in text.split(",") if part]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]


def resize_layers(model: PreTrainedModel, architecture: dict[str, Any], plan: dict[str, Any]) -> None:
    """Give every encoder layer of `model` the sizes of a pruning plan; weights that change size are not initialized.

    Args:
        model: A sequence-classification model with as many layers as the plan keeps.
        architecture: Names of the family's modules (a row of hfcompress's table, as a dict).
        plan: A `PruningPlan` of hfcompress, as a dict.
    """
    layers = list(model.get_submodule(architecture["layers"]).children())
    if len(layers) != len(plan["layers"]):
        raise ValueError(f"config.json has {len(layers)} layers and its pruning plan {len(plan['layers'])}")
    for layer, kept in zip(layers, plan["layers"], strict=True):
        heads, neurons = parse_ranges(kept["heads"]), parse_ranges(kept["ffn"])
        if architecture["attention_norm"]:
            _resize_norms(layer, architecture, kept["layer"], heads, neurons)
        _resize_attention(layer, architecture, heads, head_size(model.config))
        if architecture["head_bias"] and 0 < len(heads) < plan["heads_of"]:
            _select_heads(layer.get_submodule(architecture["attention"]), architecture["head_bias"], heads)
        _resize_ffn(layer, architecture, len(neurons))


def _resize_norms(
    layer: nn.Module, architecture: dict[str, Any], number: int, heads: list[int], neurons: list[int]
) -> None:
    """Fit the norms before the sublayers of a pre-norm family: what normalizes for nothing goes.

    The first layer of the stock class has no norm before its attention. A later layer that moves to the front keeps its
    own, so a model that is built anew gets one there.
    """
    attention_norm, ffn_norm = architecture["attention_norm"], architecture["ffn_norm"]
    if not heads:
        layer.set_submodule(attention_norm, nn.Identity())
    elif number > 0 and isinstance(layer.get_submodule(attention_norm), nn.Identity):
        layer.set_submodule(attention_norm, copy.deepcopy(layer.get_submodule(ffn_norm)))
    if not neurons:
        layer.set_submodule(ffn_norm, nn.Identity())


def _resize_attention(layer: nn.Module, architecture: dict[str, Any], heads: list[int], size: int) -> None:
    width = len(heads) * size
    _resize(layer, architecture["attention_output"], inputs=width)
    if not heads:
        _remove_attention(layer, architecture)
        return
    for path, blocks in head_rows(architecture).items():
        _resize(layer, path, outputs=blocks * width)
    attention = layer.get_submodule(architecture["attention"])
    # What the classes of transformers 4 and 5 call the number of heads, and the width of all of them.
    numbers = dict.fromkeys(("num_attention_heads", "num_heads", "n_heads"), len(heads))
    for name, value in (numbers | dict.fromkeys(("all_head_size", "dim"), width)).items():
        if hasattr(attention, name):
            setattr(attention, name, value)


def _resize_ffn(layer: nn.Module, architecture: dict[str, Any], neurons: int) -> None:
    _resize(layer, architecture["ffn_out"], inputs=neurons)
    if neurons:
        _resize(layer, architecture["ffn_in"], outputs=architecture["ffn_blocks"] * neurons)
    else:
        layer.set_submodule(architecture["ffn_in"], nn.Identity())


def _resize(layer: nn.Module, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    old = dict(layer.named_modules()).get(path)
    if not isinstance(old, nn.Linear):  # pruned to nothing before, or a projection that the config leaves out
        return
    inputs = old.in_features if inputs is None else inputs
    outputs = old.out_features if outputs is None else outputs
    if (inputs, outputs) == (old.in_features, old.out_features):
        return
    options: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    new = nn.Linear(inputs, outputs, **options) if inputs else BiasOnly(outputs, **options)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(old.get_parameter(name).requires_grad)
    layer.set_submodule(path, new)


def _remove_attention(layer: nn.Module, architecture: dict[str, Any]) -> None:
    attention, output = architecture["attention"], architecture["attention_output"]
    if output.startswith(f"{attention}."):
        name = output[len(attention) + 1 :]
        layer.set_submodule(attention, NoHeads(name, layer.get_submodule(output)))
    else:
        layer.set_submodule(attention, NoHeads())


def _select_heads(attention: nn.Module, argument: str, heads: list[int]) -> None:
    hooks: Any = attention._forward_pre_hooks
    for hook in hooks.values():
        if type(hook).__name__ == SelectHeads.__name__:  # pruned before, perhaps by a checkpoint's copy of this file
            hook.heads = heads
            return
    attention.register_forward_pre_hook(SelectHeads(attention, argument, heads))


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
            resize_layers(self, record["architecture"], record["plan"])

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
