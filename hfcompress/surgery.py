"""apply_plan: cut heads, FFN neurons and layers out of a model. The only module that edits a model."""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress import modeling_hfcompress
from hfcompress.architectures import Architecture, architecture_of, encoder_layers
from hfcompress.modeling_hfcompress import CONFIG_KEY, layer_sizes, pruned_class, resize_layers
from hfcompress.plan import PruningPlan

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def current_plan(model: PreTrainedModel) -> PruningPlan:
    """The plan that a model already carries; the full plan for one that was never pruned."""
    return plan_of_config(model.config)


def plan_of_config(config: PretrainedConfig) -> PruningPlan:
    """The plan that a model's config carries; the full plan for one that was never pruned."""
    record = getattr(config, CONFIG_KEY, None)
    if record:
        return PruningPlan.from_dict(record["plan"])
    ffn = getattr(config, architecture_of(config).ffn_size)
    return PruningPlan.full(config.num_hidden_layers, config.num_attention_heads, ffn)


def apply_plan(model: ModelT, plan: PruningPlan) -> ModelT:
    """Remove from `model`, in place, everything that `plan` does not keep.

    Query, key and value rows and W_O columns of removed heads go, W_1 rows and W_2 columns of removed FFN neurons, and
    whole layers. A sublayer with nothing left keeps its output bias, its residual connection and its norm. The plan is
    written into `model.config`, and the model takes the class that reloads it, so `save_pretrained`, `Trainer` and
    `from_pretrained` need nothing else. Wrappers of `torch.compile` and of data parallelism are taken off first.

    Args:
        model: A sequence-classification model of a supported family, pruned before or not.
        plan: What to keep, in the numbering of the first teacher.

    Returns:
        The unwrapped model, with all of its parameters new where their shape changed: make a new optimizer.

    Raises:
        PlanError: The plan does not fit the model.
        ModelError: The family is not supported.
    """
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    architecture = architecture_of(model.config)
    local = plan.local(current_plan(model))
    state = _sliced_state(model, architecture, local)
    _drop_layers(model, architecture, [position for position, _, _ in local])
    sizes = layer_sizes(plan.to_dict())
    resize_layers(model, architecture.to_dict(), sizes)
    model.load_state_dict(state, strict=True, assign=True)
    model.train(model.training)  # new modules take the mode of the model
    _record(model, architecture, plan)
    return model


def encoder_flops(config: PretrainedConfig, plan: PruningPlan) -> int:
    """Multiply-adds a token in the linear layers of the encoder that `plan` leaves (attention products left out)."""
    hidden = config.hidden_size
    head_size = hidden // config.num_attention_heads
    return sum(4 * hidden * head_size * len(layer.heads) + 2 * hidden * len(layer.ffn) for layer in plan.layers)


def _sliced_state(
    model: PreTrainedModel, architecture: Architecture, local: list[tuple[int, list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """State dict of the pruned model: surviving rows and columns, layers renumbered."""
    head_size = model.config.hidden_size // model.config.num_attention_heads
    prefix = f"{architecture.layers}."
    full = model.state_dict()
    state = {name: tensor for name, tensor in full.items() if not name.startswith(prefix)}
    for new, (old, heads, ffn) in enumerate(local):
        columns = [head * head_size + offset for head in heads for offset in range(head_size)]
        rows_of = {architecture.query: columns, architecture.key: columns, architecture.value: columns}
        rows_of[architecture.ffn_in] = ffn
        columns_of = {architecture.attention_output: columns, architecture.ffn_out: ffn}
        start = f"{prefix}{old}."
        for name in (name for name in full if name.startswith(start)):
            inner = name.removeprefix(start)
            module, _, parameter = inner.rpartition(".")
            tensor = full[name]
            if module in rows_of:
                if not rows_of[module]:
                    continue
                tensor = _take(tensor, rows_of[module], dim=0)
            elif module in columns_of and parameter == "weight":
                if not columns_of[module]:
                    continue
                tensor = _take(tensor, columns_of[module], dim=1)
            state[f"{prefix}{new}.{inner}"] = tensor
    return state


def _take(tensor: torch.Tensor, indices: list[int], dim: int) -> torch.Tensor:
    return tensor.index_select(dim, torch.tensor(indices, device=tensor.device)).contiguous()


def _drop_layers(model: PreTrainedModel, architecture: Architecture, kept: list[int]) -> None:
    layers = encoder_layers(model)
    model.set_submodule(architecture.layers, nn.ModuleList(layers[index] for index in kept))
    for number, layer in enumerate(encoder_layers(model)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", number)  # noqa: B010
    model.config.num_hidden_layers = len(kept)


def _record(model: PreTrainedModel, architecture: Architecture, plan: PruningPlan) -> None:
    """Write the plan into the config and give the model the class that rebuilds it."""
    record = {"format": modeling_hfcompress.FORMAT, "architecture": architecture.to_dict(), "plan": plan.to_dict()}
    setattr(model.config, CONFIG_KEY, record)
    if plan.is_stock:
        setattr(model.config, architecture.ffn_size, len(plan.layers[0].ffn))
    else:
        model.__class__ = pruned_class(f"{modeling_hfcompress.PREFIX}{architecture.model_class}")
