"""Remove heads, FFN neurons, layers and embedding rows from a model. Only this module edits the structure of models."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.errors import ModelError, PlanError
from hfcompress.models.architectures import Architecture, architecture_of, encoder_layers, head_size, input_embedding
from hfcompress.models.modeling_hfcompress import CONFIG_KEY, FORMAT, PREFIX, resize_layers
from hfcompress.models.modular import class_for
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.wrappers import untie_, unwrap_, unwrapped

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def current_plan(model: PreTrainedModel) -> PruningPlan:
    """Return the plan of a model; the full plan if the model is not pruned."""
    return plan_of_config(model.config if isinstance(model, PreTrainedModel) else unwrapped(model).config)


def plan_of_config(config: PretrainedConfig) -> PruningPlan:
    """Return the plan in a model's config; the full plan if the model is not pruned.

    Raises:
        PlanError: The pruning record in the config is damaged, has another format, or contradicts the config.
        ModelError: The family is not supported.
    """
    record = getattr(config, CONFIG_KEY, None)
    if record is None:
        ffn = getattr(config, architecture_of(config).ffn_size)
        return PruningPlan.full(config.num_hidden_layers, config.num_attention_heads, ffn)
    if not isinstance(record, dict) or not {"format", "plan"} <= set(record):
        raise PlanError(
            "The pruning record in config.json cannot be read",
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

    Removes the query, key and value rows and the W_O columns of pruned heads, the W_1 rows and W_2 columns of pruned
    FFN neurons, and whole layers. An empty sublayer keeps its output bias (if it has one), its residual connection and,
    in post-norm families, its norm. The plan is stored in `model.config`, and the model gets the class that reloads it,
    so `save_pretrained`, `Trainer` and `from_pretrained` work as usual. Wrappers of `torch.compile` and of data
    parallelism are removed first, inside the model too, and layers that share modules or weights get their own.

    Args:
        model: A sequence-classification model of a supported family. It may be pruned already.
        plan: What to keep, in the numbering of the original model.
        weights: Tensors that replace those sliced from the model, e.g. after a least-squares weight update. Keys are
            names in the state dict of the pruned model (layers renumbered), shapes are those of the pruned model. They
            are copied and take the dtype and device of the tensors that they replace.

    Returns:
        The unwrapped model. Parameters whose shape changed are new, so create a new optimizer.

    Raises:
        PlanError: The plan does not fit the model, or `weights` do not fit the pruned model. The model is unchanged.
        ModelError: The family is not supported.
    """
    return _apply(unwrap_(model), plan, weights or {}, pruned=set())


def _apply(model: ModelT, plan: PruningPlan, weights: Mapping[str, torch.Tensor], pruned: set[int]) -> ModelT:
    """`apply_plan`, where the layers with these indices in the plan are pruned already."""
    architecture = architecture_of(model.config)
    local = plan.local(current_plan(model))
    if names := untie_(encoder_layers(model), model.config):
        logger.info(f"layers that shared {len(names)} weights are pruned separately: {names[0]} and others are copied")
    state = _sliced_state(model, architecture, local, pruned)
    done = tuple(f"{architecture.layers}.{number}." for number in pruned)
    _replace(state, {name: tensor for name, tensor in weights.items() if not name.startswith(done)})
    _drop_layers(model, architecture, [index for index, _, _ in local])
    resize_layers(model, architecture.to_dict(), plan.to_dict(), device="meta")  # to initialize them would take time
    model.load_state_dict(state, strict=True, assign=True)
    model.train(model.training)  # new modules take the mode of the model
    _record(model, architecture, plan)
    return model


def pruned_copy(
    model: ModelT,
    plan: PruningPlan,
    weights: Mapping[str, torch.Tensor] | None = None,
    layers: Mapping[LayerPlan, nn.Module] | None = None,
) -> ModelT:
    """Return a pruned copy and leave `model` unchanged.

    Tensors that pruning does not change share memory with `model`, so the copy costs little more than its remaining
    encoder. Call `copy.deepcopy` before you train either of the two. Errors are those of `apply_plan`.

    Args:
        model: The model.
        plan: What to keep, in the numbering of the original model.
        weights: Tensors that replace those sliced from the model.
        layers: Layers of earlier copies of this model. Those that the plan keeps are used as they are, not copied.
    """
    model = unwrapped(model)
    shared: dict[int, Any] = {id(buffer): buffer.detach() for buffer in model.buffers()}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    pruned = set()
    if layers:
        for number, (index, _, _) in enumerate(plan.local(current_plan(model))):
            if plan.layers[number] in layers:
                shared[id(encoder_layers(model)[index])] = layers[plan.layers[number]]
                pruned.add(number)
    return _apply(unwrap_(copy.deepcopy(model, memo=shared)), plan, weights or {}, pruned)


def prune_embedding(model: ModelT, kept: Sequence[int]) -> ModelT:
    """Remove from `model`, in place, the rows of the input embedding that `kept` does not list.

    The padding index and the token ids in `model.config` are renumbered; the id of a removed token becomes None.
    Wrappers of `torch.compile` and of data parallelism are removed first.

    Args:
        model: A model with an input embedding and no language modelling head.
        kept: Token ids to keep; the new id of a token is its index here.

    Returns:
        The unwrapped model. Its embedding weight is new, so create a new optimizer.

    Raises:
        ModelError: The model has a language modelling head. The model is unchanged.
    """
    model = unwrap_(model)
    if model.get_output_embeddings() is not None:
        raise ModelError(
            "The model predicts tokens, so its vocabulary is more than its embedding",
            value=type(model).__name__,
            expected="a model that gives scores, such as a cross-encoder",
            remedy="load it with hfcompress.load_model",
        )
    new_ids = {old: new for new, old in enumerate(kept)}
    embedding = input_embedding(model)
    weight = embedding.weight
    embedding.weight = nn.Parameter(_take(weight, list(kept), dim=0), requires_grad=weight.requires_grad)
    embedding.num_embeddings = len(kept)
    if embedding.padding_idx is not None:
        embedding.padding_idx = new_ids.get(embedding.padding_idx)
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(model.config, name, new_ids.get(value))
    model.config.vocab_size = len(kept)
    return model


def restore_embedding(model: ModelT, original: torch.Tensor, kept: Sequence[int]) -> ModelT:
    """Put back into `model`, in place, the rows of the input embedding that `prune_embedding` has removed.

    The token ids in `model.config` get their former values; those of removed tokens stay None.

    Args:
        model: A model of `prune_embedding`, perhaps trained since.
        original: Embedding weight of the model before, rows x hidden size; the removed rows are taken from it.
        kept: The token ids that were kept, as given to `prune_embedding`.

    Returns:
        The unwrapped model. Its embedding weight is new, so create a new optimizer.
    """
    model = unwrap_(model)
    embedding = input_embedding(model)
    weight = original.detach().to(embedding.weight).clone()
    weight[list(kept)] = embedding.weight.detach()
    embedding.weight = nn.Parameter(weight, requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings = len(weight)
    if embedding.padding_idx is not None:
        embedding.padding_idx = kept[embedding.padding_idx]
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(model.config, name, kept[value])
    model.config.vocab_size = len(weight)
    return model


def needs_custom_code(config: PretrainedConfig, plan: PruningPlan) -> bool:
    """Whether a model pruned by `plan` cannot be described by a stock config and needs `modeling_hfcompress.py`.

    In pre-norm families, no stock config gives an attention norm to a later layer that becomes the first.
    """
    norm_at_front = bool(architecture_of(config).attention_norm) and plan.layers[0].layer > 0
    return not plan.is_stock or norm_at_front


def _sliced_state(
    model: PreTrainedModel, architecture: Architecture, local: list[tuple[int, list[int], list[int]]], pruned: set[int]
) -> dict[str, torch.Tensor]:
    """State dict of the pruned model: kept rows and columns, layers renumbered; all other tensors are not copied.

    Of `local`, those with the numbers in `pruned` are pruned already.
    """
    size = head_size(model.config)
    prefix = f"{architecture.layers}."
    full = model.state_dict(keep_vars=True)
    state = {name: tensor for name, tensor in full.items() if not name.startswith(prefix)}
    for new, (old, heads, ffn) in enumerate(local):
        start = f"{prefix}{old}."
        layer = {name.removeprefix(start): tensor for name, tensor in full.items() if name.startswith(start)}
        if new in pruned:
            state |= {f"{prefix}{new}.{name}": tensor for name, tensor in layer.items()}
            continue
        columns = [head * size + offset for head in heads for offset in range(size)]
        for name, tensor in _sliced_layer(layer, architecture, columns, ffn):
            state[f"{prefix}{new}.{name}"] = tensor
    return state


def _sliced_layer(
    layer: dict[str, torch.Tensor], architecture: Architecture, columns: list[int], ffn: list[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a pruned layer; `columns` are the kept columns of W_O, `ffn` those of W_2."""
    rows_of = {path: (columns, blocks) for path, blocks in architecture.head_rows.items()}
    rows_of[architecture.ffn_in] = (ffn, architecture.ffn_blocks)
    columns_of = {architecture.attention_output: columns, architecture.ffn_out: ffn}
    unused = {path for path, kept in ((architecture.attention_norm, columns), (architecture.ffn_norm, ffn)) if not kept}
    for name, tensor in layer.items():
        module, _, parameter = name.rpartition(".")
        if module in rows_of:
            indices, blocks = rows_of[module]
            if indices:
                size = len(tensor) // blocks
                rows = [block * size + index for block in range(blocks) for index in indices]
                yield name, _take(tensor, rows, dim=0)
        elif module in columns_of and parameter == "weight":
            yield name, _take(tensor, columns_of[module], dim=1)
        elif module not in unused:
            yield name, tensor


def _replace(state: dict[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        if name not in state:
            raise PlanError(
                "A replacement weight names a tensor that the pruned model does not have",
                value=name,
                expected="names of the pruned model's state dict, where layers are renumbered",
                remedy="correct the name, or leave it out",
            )
        if tensor.shape != state[name].shape:
            raise PlanError(
                f"The replacement weight for {name} has a wrong shape",
                value=tuple(tensor.shape),
                expected=f"shape {tuple(state[name].shape)}",
                remedy="compute it for the rows and columns that the plan keeps",
            )
        state[name] = tensor.detach().to(state[name], copy=True).contiguous()


def _take(tensor: torch.Tensor, indices: list[int], dim: int) -> torch.Tensor:
    """Rows or columns of a tensor; all of them, in their order, are no copy."""
    taken = tensor.detach()
    if indices != list(range(tensor.shape[dim])):
        taken = taken.index_select(dim, torch.tensor(indices, dtype=torch.long, device=tensor.device))
    return taken.contiguous()


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
    """`global_attn_every_n_layers`, which transformers 4 reads instead of `layer_types`.

    None, with which transformers 4 stops, if full attention does not recur regularly.
    """
    full = "full_attention"
    period = next((index for index, kind in enumerate(layer_types[1:], 1) if kind == full), len(layer_types))
    regular = all((kind == full) == (index % period == 0) for index, kind in enumerate(layer_types))
    return period if regular else None


def _record(model: PreTrainedModel, architecture: Architecture, plan: PruningPlan) -> None:
    """Write the plan into the config and set the class that rebuilds the model."""
    record = {"format": FORMAT, "architecture": architecture.to_dict(), "plan": plan.to_dict()}
    setattr(model.config, CONFIG_KEY, record)
    pruned_name, custom = f"{PREFIX}{architecture.model_class}", needs_custom_code(model.config, plan)
    if custom:
        model.__class__ = class_for(model.config, pruned=True)
    elif type(model).__name__ == pruned_name:  # was uneven, is stock now
        model.__class__ = class_for(model.config, pruned=False)
        model.config.__dict__.pop("auto_map", None)
    if plan.is_stock:
        # If all shapes fit the stock class but its first layer lacks a norm, a wrong width makes it refuse the
        # checkpoint.
        setattr(model.config, architecture.ffn_size, len(plan.layers[0].ffn) + custom)
