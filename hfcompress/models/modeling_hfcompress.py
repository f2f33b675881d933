"""Pruned rerankers: stock transformers classes with the layer sizes of `config.json`.

This file is copied into every pruned checkpoint and imports only torch and transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` opens it without hfcompress, as
`AutoModel` does where it is the encoder of a modular cross-encoder of sentence-transformers. hfcompress itself prunes
with the same `resize_layers`, so a checkpoint is rebuilt by the code that created it.
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
    """A linear layer without inputs: returns its bias for every token, or zeros if it has no bias.

    The weight has no elements. It makes a stock class, which expects another shape, refuse the checkpoint instead of
    initializing the layer.
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
    """Replaces an attention module without heads; returns the bias of its output projection, or its input."""

    def __init__(self, projection_name: str | None = None, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.projection_name = projection_name
        if projection_name is not None:
            self.add_module(projection_name, projection)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return (context, None), since there are no attention weights."""
        hidden_states = args[0] if args else kwargs["query"]  # as in DistilBERT of transformers 4
        if self.projection_name is None:
            return hidden_states, None
        return getattr(self, self.projection_name)(hidden_states), None


class SelectHeads:
    """Forward pre-hook of an attention module that selects its heads from a bias computed for all heads.

    The encoder computes this bias once for all layers, from a table with a column per head of the original model.

    Args:
        attention: The attention module.
        argument: Name of the bias argument, `(batch, heads, queries, keys)`, which is passed by position.
        heads: Indices of the heads that the module keeps.
    """

    def __init__(self, attention: nn.Module, argument: str, heads: list[int]) -> None:
        self.position = list(inspect.signature(attention.forward).parameters).index(argument)
        self.heads = heads

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with the bias of the kept heads."""
        before, bias, after = inputs[: self.position], inputs[self.position], inputs[self.position + 1 :]
        return (*before, bias[:, self.heads], *after)


def head_size(config: PretrainedConfig) -> int:
    """Width of one attention head.

    A `head_dim` in the config is ignored: the supported classes do not read it, and W_O has `hidden_size` columns.
    """
    return config.hidden_size // config.num_attention_heads


def head_rows(architecture: dict[str, Any]) -> dict[str, int]:
    """Linear layers whose output rows belong to heads, with the number of blocks of heads in each.

    A fused layer has three blocks: query, key and value, in this order.
    """
    names = ("query", "key", "value", "position_key", "position_query")
    return dict(Counter(architecture[name] for name in names if architecture[name]))


def parse_ranges(text: str) -> list[int]:
    """Parse ranges such as `0-3,7`."""
    ends = [part.split("-") for part in text.split(",") if part]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]


def resize_layers(
    model: PreTrainedModel, architecture: dict[str, Any], plan: dict[str, Any], device: Any = None
) -> None:
    """Resize every encoder layer of `model` to a pruning plan; resized weights are not initialized.

    Args:
        model: A sequence-classification model, or its encoder, with as many layers as the plan keeps.
        architecture: Module names of the family (an `Architecture` of hfcompress as a dict).
        plan: A `PruningPlan` of hfcompress as a dict.
        device: Device of the resized weights, by default that of the old ones; `meta` allocates none.
    """
    path, prefix = architecture["layers"], f"{model.base_model_prefix}."
    layers = list(model.get_submodule(path.removeprefix(prefix) if model.base_model is model else path).children())
    if len(layers) != len(plan["layers"]):
        raise ValueError(f"config.json has {len(layers)} layers and its pruning plan {len(plan['layers'])}")
    for layer, kept in zip(layers, plan["layers"], strict=True):
        heads, neurons = parse_ranges(kept["heads"]), parse_ranges(kept["ffn"])
        if architecture["attention_norm"]:
            _resize_norms(layer, architecture, kept["layer"], heads, neurons)
        _resize_attention(layer, architecture, heads, head_size(model.config), device)
        if architecture["head_bias"] and 0 < len(heads) < plan["heads_of"]:
            _select_heads(layer.get_submodule(architecture["attention"]), architecture["head_bias"], heads)
        _resize_ffn(layer, architecture, len(neurons), device)


def _resize_norms(
    layer: nn.Module, architecture: dict[str, Any], number: int, heads: list[int], neurons: list[int]
) -> None:
    """Remove the norms of empty sublayers in a pre-norm family.

    The first layer of the stock class has no attention norm. A later layer that becomes the first keeps its own, so a
    new model gets one there.
    """
    attention_norm, ffn_norm = architecture["attention_norm"], architecture["ffn_norm"]
    if not heads:
        layer.set_submodule(attention_norm, nn.Identity())
    elif number > 0 and isinstance(layer.get_submodule(attention_norm), nn.Identity):
        layer.set_submodule(attention_norm, copy.deepcopy(layer.get_submodule(ffn_norm)))
    if not neurons:
        layer.set_submodule(ffn_norm, nn.Identity())


def _resize_attention(layer: nn.Module, architecture: dict[str, Any], heads: list[int], size: int, device: Any) -> None:
    width = len(heads) * size
    _resize(layer, architecture["attention_output"], device, inputs=width)
    if not heads:
        _remove_attention(layer, architecture)
        return
    for path, blocks in head_rows(architecture).items():
        _resize(layer, path, device, outputs=blocks * width)
    attention = layer.get_submodule(architecture["attention"])
    # Names of the number of heads and of their total width in the classes of transformers 4 and 5.
    numbers = dict.fromkeys(("num_attention_heads", "num_heads", "n_heads"), len(heads))
    for name, value in (numbers | dict.fromkeys(("all_head_size", "dim"), width)).items():
        if hasattr(attention, name):
            setattr(attention, name, value)


def _resize_ffn(layer: nn.Module, architecture: dict[str, Any], neurons: int, device: Any) -> None:
    _resize(layer, architecture["ffn_out"], device, inputs=neurons)
    if neurons:
        _resize(layer, architecture["ffn_in"], device, outputs=architecture["ffn_blocks"] * neurons)
    else:
        layer.set_submodule(architecture["ffn_in"], nn.Identity())


def _resize(layer: nn.Module, path: str, device: Any, inputs: int | None = None, outputs: int | None = None) -> None:
    old = dict(layer.named_modules()).get(path)
    if not isinstance(old, nn.Linear):  # already pruned, or absent in this config
        return
    inputs = old.in_features if inputs is None else inputs
    outputs = old.out_features if outputs is None else outputs
    if (inputs, outputs) == (old.in_features, old.out_features):
        return
    options: dict[str, Any] = {
        "bias": old.bias is not None,
        "device": device or old.weight.device,
        "dtype": old.weight.dtype,
    }
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
    """Copy memory-mapped weights to aligned memory: BLAS kernels round differently on unaligned addresses."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@cache
def pruned_class(name: str, plain: Any = None) -> type[PreTrainedModel]:
    """The pruned version of a class, e.g. `PrunedBertForSequenceClassification` or `PrunedBertModel`.

    Args:
        name: Its name.
        plain: The class itself; by default that of transformers with this name.
    """
    base: Any = plain or getattr(transformers, name[len(PREFIX) :])

    class Pruned(base):
        """The class with the layer sizes of `config.hfcompress`."""

        _auto_class = "AutoModel" if name.endswith("Model") else "AutoModelForSequenceClassification"

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
    if name.startswith(PREFIX) and name.endswith(("ForSequenceClassification", "Model")):
        return pruned_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
