"""apply_plan: cut heads, FFN neurons and layers out of a model. The only module that edits a model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
import transformers
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.architectures import Architecture, architecture_of, encoder_layers, head_size
from hfcompress.errors import PlanError
from hfcompress.modeling_hfcompress import CONFIG_KEY, FORMAT, PREFIX, pruned_class, resize_layers
from hfcompress.plan import PruningPlan

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def current_plan(model: PreTrainedModel) -> PruningPlan:
    """The plan that a model already carries; the full plan for one that was never pruned."""
    return plan_of_config(model.config)


def plan_of_config(config: PretrainedConfig) -> PruningPlan:
    """The plan that a model's config carries; the full plan for one that was never pruned.

    Raises:
        PlanError: The config's record of pruning is damaged, of another format, or contradicts the config.
        ModelError: The family is not supported.
    """
    record = getattr(config, CONFIG_KEY, None)
    if record is None:
        ffn = getattr(config, architecture_of(config).ffn_size)
        return PruningPlan.full(config.num_hidden_layers, config.num_attention_heads, ffn)
    if not isinstance(record, dict) or not {"format", "plan"} <= set(record):
        raise PlanError(
            "The record of pruning in config.json cannot be read",
            value=record,
            expected="the keys format, architecture and plan",
            remedy="restore the config.json that was saved with the weights",
        )
    if record["format"] != FORMAT:
        raise PlanError(
            "The pruned checkpoint has another format",
            value=record["format"],
            expected=f"format {FORMAT}",
            remedy="use the version of hfcompress that wrote it",
        )
    plan = PruningPlan.from_dict(record["plan"])
    found, wanted = (config.num_hidden_layers, config.num_attention_heads), (len(plan.layers), plan.heads_of)
    if found != wanted:
        raise PlanError(
            "The pruning plan in config.json does not fit the rest of it",
            value=f"{found[0]} layers, {found[1]} heads before pruning",
            expected=f"{wanted[0]} layers, {wanted[1]} heads before pruning",
            remedy="restore the config.json that was saved with the weights",
        )
    return plan


def apply_plan(model: ModelT, plan: PruningPlan, weights: Mapping[str, torch.Tensor] | None = None) -> ModelT:
    """Remove from `model`, in place, everything that `plan` does not keep.

    Query, key and value rows and W_O columns of removed heads go, W_1 rows and W_2 columns of removed FFN neurons, and
    whole layers. A sublayer with nothing left keeps its output bias (if it has one), its residual connection and, where
    it is the sum that is normalized, its norm. The plan is written into `model.config`, and the model takes the class
    that reloads it, so `save_pretrained`, `Trainer` and `from_pretrained` need nothing else. Wrappers of
    `torch.compile` and of data parallelism are taken off first.

    Args:
        model: A sequence-classification model of a supported family, pruned before or not.
        plan: What to keep, in the numbering of the first teacher.
        weights: Tensors to put in place of what is sliced out of the model, e.g. survivors that were solved again by
            least squares; by their names in the pruned model's state dict (layers renumbered), in its shapes. They
            are copied, and take the dtype and device of what they replace.

    Returns:
        The unwrapped model, with all of its parameters new where their shape changed: make a new optimizer.

    Raises:
        PlanError: The plan does not fit the model, or `weights` do not fit the pruned model; the model is unchanged.
        ModelError: The family is not supported.
    """
    model = unwrapped(model)
    architecture = architecture_of(model.config)
    local = plan.local(current_plan(model))
    _untie_layers(model, architecture)
    state = _sliced_state(model, architecture, local)
    _replace(state, weights or {})
    _drop_layers(model, architecture, [position for position, _, _ in local])
    resize_layers(model, architecture.to_dict(), plan.to_dict())
    model.load_state_dict(state, strict=True, assign=True)
    model.train(model.training)  # new modules take the mode of the model
    _record(model, architecture, plan)
    return model


def pruned_copy(model: ModelT, plan: PruningPlan, weights: Mapping[str, torch.Tensor] | None = None) -> ModelT:
    """Return a pruned copy, and leave `model` as it is.

    Tensors that pruning does not change share their memory with those of `model`, so a copy costs little more than
    the encoder that is left of it. Train one of the two only after a `copy.deepcopy`.

    Args:
        model: As for `apply_plan`.
        plan: As for `apply_plan`.
        weights: As for `apply_plan`.

    Raises:
        PlanError: As for `apply_plan`.
        ModelError: As for `apply_plan`.
    """
    model = unwrapped(model)
    shared: dict[int, torch.Tensor] = {id(buffer): buffer.detach() for buffer in model.buffers()}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    return apply_plan(copy.deepcopy(model, memo=shared), plan, weights)


def encoder_flops(config: PretrainedConfig, plan: PruningPlan) -> int:
    """Multiply-adds a token in the linear layers of the encoder that `plan` leaves (attention products left out)."""
    hidden = config.hidden_size
    head = 4 * hidden * head_size(config)
    neuron = (1 + architecture_of(config).ffn_blocks) * hidden
    return sum(head * len(layer.heads) + neuron * len(layer.ffn) for layer in plan.layers)


def needs_custom_code(config: PretrainedConfig, plan: PruningPlan) -> bool:
    """Whether a model of the family of `config`, once it is pruned by `plan`, is more than a stock config can describe.

    In a family that normalizes before its sublayers, no stock config gives a norm to a later layer that moves to the
    front.
    """
    norm_at_front = bool(architecture_of(config).attention_norm) and plan.layers[0].layer > 0
    return not plan.is_stock or norm_at_front


def unwrapped(model: ModelT) -> ModelT:
    """Take off wrappers of compilation and of data parallelism, in whatever order they lie."""
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner if inner is model else unwrapped(inner)


def _untie_layers(model: PreTrainedModel, architecture: Architecture) -> None:
    """Give every layer modules and parameters of its own, since a plan may cut each layer differently."""
    layers = encoder_layers(model)
    owners = Counter(id(part) for layer in layers for part in (*layer.modules(), *layer.parameters()))
    if max(owners.values()) > 1:
        own = (copy.deepcopy(layer, memo={id(model.config): model.config}) for layer in layers)
        model.set_submodule(architecture.layers, nn.ModuleList(own))


def _sliced_state(
    model: PreTrainedModel, architecture: Architecture, local: list[tuple[int, list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """State dict of the pruned model: surviving rows and columns, layers renumbered; the rest as it is, not copied."""
    size = head_size(model.config)
    prefix = f"{architecture.layers}."
    full = model.state_dict(keep_vars=True)
    state = {name: tensor for name, tensor in full.items() if not name.startswith(prefix)}
    for new, (old, heads, ffn) in enumerate(local):
        start = f"{prefix}{old}."
        layer = {name.removeprefix(start): tensor for name, tensor in full.items() if name.startswith(start)}
        columns = [head * size + offset for head in heads for offset in range(size)]
        for name, tensor in _sliced_layer(layer, architecture, columns, ffn):
            state[f"{prefix}{new}.{name}"] = tensor
    return state


def _sliced_layer(
    layer: dict[str, torch.Tensor], architecture: Architecture, columns: list[int], ffn: list[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of all that a layer has left; `columns` are those of W_O, `ffn` those of W_2."""
    rows_of = {path: (columns, blocks) for path, blocks in architecture.head_rows.items()}
    rows_of[architecture.ffn_in] = (ffn, architecture.ffn_blocks)
    columns_of = {architecture.attention_output: columns, architecture.ffn_out: ffn}
    gone = {path for path, left in ((architecture.attention_norm, columns), (architecture.ffn_norm, ffn)) if not left}
    for name, tensor in layer.items():
        module, _, parameter = name.rpartition(".")
        if module in rows_of:
            indices, blocks = rows_of[module]
            if indices:
                yield name, _take(tensor, _in_every_block(indices, blocks, len(tensor) // blocks), dim=0)
        elif module in columns_of and parameter == "weight":
            yield name, _take(tensor, columns_of[module], dim=1)
        elif module not in gone:
            yield name, tensor


def _in_every_block(indices: list[int], blocks: int, size: int) -> list[int]:
    return [block * size + index for block in range(blocks) for index in indices]


def _replace(state: dict[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        if name not in state:
            raise PlanError(
                "A new weight is for a tensor that the pruned model does not have",
                value=name,
                expected="names of the pruned model's state dict, where layers are renumbered",
                remedy="correct the name, or leave it out",
            )
        if tensor.shape != state[name].shape:
            raise PlanError(
                f"The new weight for {name} has another shape than the pruned model's",
                value=tuple(tensor.shape),
                expected=f"shape {tuple(state[name].shape)}",
                remedy="solve it for the rows and columns that the plan keeps",
            )
        state[name] = tensor.detach().to(state[name], copy=True).contiguous()


def _take(tensor: torch.Tensor, indices: list[int], dim: int) -> torch.Tensor:
    return tensor.detach().index_select(dim, torch.tensor(indices, dtype=torch.long, device=tensor.device)).contiguous()


def _drop_layers(model: PreTrainedModel, architecture: Architecture, kept: list[int]) -> None:
    layers = encoder_layers(model)
    model.set_submodule(architecture.layers, nn.ModuleList(layers[index] for index in kept))
    for number, layer in enumerate(encoder_layers(model)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", number)  # noqa: B010
    config = model.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[index] for index in kept]
        config.global_attn_every_n_layers = _global_every(config.layer_types)


def _global_every(layer_types: list[str]) -> int | None:
    """What readers without `layer_types` (transformers 4) go by; None, at which they stop, where no number says it."""
    full = "full_attention"
    period = next((index for index, kind in enumerate(layer_types[1:], 1) if kind == full), len(layer_types))
    regular = all((kind == full) == (index % period == 0) for index, kind in enumerate(layer_types))
    return period if regular else None


def _record(model: PreTrainedModel, architecture: Architecture, plan: PruningPlan) -> None:
    """Write the plan into the config and give the model the class that rebuilds it."""
    record = {"format": FORMAT, "architecture": architecture.to_dict(), "plan": plan.to_dict()}
    setattr(model.config, CONFIG_KEY, record)
    pruned_name, custom = f"{PREFIX}{architecture.model_class}", needs_custom_code(model.config, plan)
    if custom:
        model.__class__ = pruned_class(pruned_name)
    elif type(model).__name__ == pruned_name:  # uneven before, and even now
        model.__class__ = getattr(transformers, architecture.model_class)
        model.config.__dict__.pop("auto_map", None)
    if plan.is_stock:
        # Where all shapes fit the stock class, which would leave out the norm at the front, a width that fits none
        # makes it refuse the checkpoint.
        setattr(model.config, architecture.ffn_size, len(plan.layers[0].ffn) + custom)
