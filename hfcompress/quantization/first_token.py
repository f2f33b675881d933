"""Compute the last encoder layer for the first token only, if the model's head reads nothing else.

Nearly every cross-encoder computes its score from the last hidden state of [CLS]. The last layer then requires keys and
values of all tokens, but queries, attention output, norms and FFN of one token only. For the other tokens 2 h^2 of its
4 h^2 + 2 h f MACs remain (hidden size h, FFN width f), and each head computes one row of attention scores. Scores are
the same up to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.models.architectures import Architecture, architecture_of, encoder_layers, projection
from hfcompress.models.hooks import replaced_forward
from hfcompress.models.modular import class_for, modules_of, reads_first_token

# Other kernels (flash, flex) have masks of other forms.
ATTENTION_KERNELS = ("eager", "sdpa")


def reads_first_token_only(config: PretrainedConfig) -> bool:
    """Whether the head of a cross-encoder with this config reads the last hidden state of the first token only."""
    if config.model_type not in _ATTENTION:
        return False
    return reads_first_token(config) if modules_of(config) else getattr(config, "classifier_pooling", "cls") == "cls"


@contextmanager
def first_token_only(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Within the block, the last encoder layer of a model is computed for the first token only.

    Logits are the same up to rounding. The last hidden state has length 1, and the last layer returns no attention
    weights. No module is replaced: within the block the last layer and its attention have another `forward`. Attention
    dropout is not applied, so this is for evaluation only. A model whose head reads more than the first token is not
    changed, nor are unsupported families and attention kernels.

    Args:
        model: A sequence-classification model, pruned or not.

    Yields:
        The same model.
    """
    if not _is_possible(model):
        yield model
        return
    row, attend = architecture_of(model.config), _ATTENTION[model.config.model_type]
    layer = encoder_layers(model)[-1]
    attention = layer.get_submodule(row.attention)
    norm = layer.get_submodule(row.attention_norm) if row.attention_norm else nn.Identity()
    has_heads = projection(layer, row.attention_output) is not None
    # The layer's own code runs on the first token, and its attention reads all tokens here. Threads may share a model.
    incoming = threading.local()

    def layer_forward(tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        incoming.tokens = tokens
        try:
            return type(layer).forward(layer, tokens[:, :1], *args, **kwargs)
        finally:
            del incoming.tokens

    def attention_forward(_: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        context = attend(layer, row, norm(incoming.tokens), *args, **kwargs)
        if row.attention_output.startswith(f"{row.attention}."):
            context = layer.get_submodule(row.attention_output)(context)
        return context, None

    replaced = replaced_forward(attention, attention_forward) if has_heads else nullcontext()
    with replaced_forward(layer, layer_forward), replaced:
        yield model


def _is_possible(model: PreTrainedModel) -> bool:
    if not reads_first_token_only(model.config) or model.config._attn_implementation not in ATTENTION_KERNELS:
        return False
    row = architecture_of(model.config)
    *earlier, last = encoder_layers(model)
    used_before = {module for layer in earlier for module in layer.modules()}
    own_modules = used_before.isdisjoint((last, last.get_submodule(row.attention)))
    return own_modules and isinstance(model, class_for(model.config, pruned=False))


# The functions below compute the attention of a family with the first token as the only query. They take the hidden
# states of all tokens, (batch, length, hidden), and the arguments that the layer passes to its attention. They return
# the context, (batch, 1, heads * head size).


def _plain_attention(
    layer: nn.Module,
    row: Architecture,
    tokens: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Softmax over the keys, with MPNet's relative position bias if there is one."""
    mask = _first_query(attention_mask)
    if position_bias is not None:
        bias = _first_query(position_bias)
        mask = bias if mask is None else bias + mask
    return _attend(*_project(layer, row, tokens), mask)


def _disentangled_attention(
    layer: nn.Module,
    row: Architecture,
    tokens: Tensor,
    attention_mask: Tensor,
    *_: Any,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
    **__: Any,
) -> Tensor:
    """DeBERTa's attention, in which the distance d of two tokens also has a key and a query.

    Scores are scale * (q k + q key(d) + k query(d)). The last two terms are called c2p and p2c.
    """
    attention: Any = layer.get_submodule(row.attention)
    size = attention.attention_head_size
    query, key, value = _project(layer, row, tokens)
    terms = {"c2p", "p2c"}.intersection(attention.pos_att_type)
    scale = ((1 + len(terms)) * size) ** -0.5
    mask = _first_query(attention_mask).bool()
    bias = torch.zeros_like(mask, dtype=query.dtype)
    if relative_pos is not None and rel_embeddings is not None:
        span = attention.pos_ebd_size
        distances = rel_embeddings[(relative_pos[0, 0] + span).clamp(0, 2 * span - 1)]
        if "p2c" in terms:
            project = attention.query_proj if attention.share_att_key else attention.pos_query_proj
            bias = bias + scale * (key * _split_heads(project(distances), size)).sum(-1).unsqueeze(-2)
        if "c2p" in terms:
            project = attention.key_proj if attention.share_att_key else attention.pos_key_proj
            key = key + _split_heads(project(distances), size)
    return _attend(query, key, value, bias.masked_fill(~mask, torch.finfo(bias.dtype).min), scale)


def _rotary_attention(
    layer: nn.Module,
    row: Architecture,
    tokens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """ModernBERT's attention. One matrix computes queries, keys and values, so queries are computed for all tokens."""
    from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

    attention: Any = layer.get_submodule(row.attention)
    projected = attention.Wqkv(tokens).unflatten(-1, (3, -1, attention.head_dim))
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    return _attend(query[:, :, :1], key, value, _first_query(attention_mask))


def _first_query(mask: Tensor | None) -> Any:
    """The row of the first query in a mask or bias (batch, 1 or heads, 1 or length, length)."""
    return None if mask is None else mask[:, :, :1]


def _project(layer: nn.Module, row: Architecture, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query of the first token, keys and values of all: (batch, heads, 1 or length, head size)."""
    size: Any = layer.get_submodule(row.attention).attention_head_size
    query, key, value = (
        _split_heads(layer.get_submodule(path)(states), size)
        for path, states in ((row.query, tokens[:, :1]), (row.key, tokens), (row.value, tokens))
    )
    return query, key, value


def _split_heads(states: Tensor, size: int) -> Tensor:
    """(..., length, heads * size) to (..., heads, length, size)."""
    return states.unflatten(-1, (-1, size)).transpose(-3, -2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    # Looked up at every call, since exporters replace it for their runtimes.
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return context.transpose(1, 2).flatten(2)


_ATTENTION: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(
        ("bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"), _plain_attention
    ),
    "deberta-v2": _disentangled_attention,
    "modernbert": _rotary_attention,
}
