"""prune_vocabulary: cut tokens out of a model and its tokenizer together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import ModelError, PlanError
from hfcompress.quiet import quiet
from hfcompress.vocabulary.content import TokenizerContent, content_of
from hfcompress.vocabulary.plan import VocabularyPlan

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def prune_vocabulary(
    model: ModelT, tokenizer: PreTrainedTokenizerFast, plan: VocabularyPlan
) -> tuple[ModelT, PreTrainedTokenizerFast]:
    """Remove from `model`, in place, and from a new tokenizer every token that `plan` does not keep.

    Tokens keep their order and move together. A text whose tokens all survive gets the same scores as before. Rows of
    the embedding that belong to no token, which some checkpoints have to fill it up, go too. The model may have been
    pruned by `apply_plan` before, or may be after. Wrappers of `torch.compile` and of data parallelism are taken off.

    Args:
        model: A model with an input embedding and no language modelling head.
        tokenizer: Its tokenizer; left as it is.
        plan: What to keep, made from this tokenizer.

    Returns:
        The unwrapped model, with a new embedding weight (make a new optimizer), and the new tokenizer, which is of the
        class that it was and the same as after saving and loading.

    Raises:
        PlanError: The plan was made from another tokenizer.
        ModelError: The tokenizer is of an unknown kind, or does not fit the model.
    """
    content = content_of(tokenizer)
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    new_ids = {old: new for new, old in enumerate(plan.kept)}
    _check_plan(content, plan)
    _check_model(model, content, new_ids)
    pruned = _rebuilt(tokenizer, content.cut(new_ids))
    _cut_embedding(model, new_ids)
    _renumber_config(model.config, new_ids)
    return model, pruned


def _check_plan(content: TokenizerContent, plan: VocabularyPlan) -> None:
    if content.fingerprint != plan.fingerprint:
        raise PlanError(
            "The vocabulary plan was made from another tokenizer",
            value=f"{len(content.ids)} tokens",
            expected=f"the tokenizer of {plan.size} tokens that the plan was made from",
            remedy="make a plan from this tokenizer",
        )


def _check_model(model: PreTrainedModel, content: TokenizerContent, new_ids: Mapping[int, int]) -> None:
    rows, needed = _input_embedding(model).num_embeddings, max(content.ids.values()) + 1
    if rows < needed:
        raise ModelError(
            "The tokenizer has more tokens than the model's embedding has rows",
            value=f"{needed} tokens, {rows} rows",
            expected="a row for each token",
            remedy="load the tokenizer that was saved with this model",
        )
    if model.get_output_embeddings() is not None:
        raise ModelError(
            "The model predicts tokens, so its vocabulary is more than its embedding",
            value=type(model).__name__,
            expected="a model that gives scores, such as a cross-encoder",
            remedy="load it with hfcompress.load_model",
        )
    start = _positions_start(model)
    if start is not None and new_ids.get(start) != start:
        before = sorted((id_, token) for token, id_ in content.ids.items() if id_ <= start)
        raise ModelError(
            "This model numbers positions from its padding token, which would get another id",
            value=f"{start}, then {new_ids.get(start)}",
            expected="the same id as before",
            remedy=f"make a plan with keep={[token for _, token in before]}",
        )


def _positions_start(model: PreTrainedModel) -> int | None:
    """Id of the padding token where positions are numbered from it: their embedding is then the one that has it too."""
    embedding = _input_embedding(model)
    others = (module for module in model.modules() if isinstance(module, nn.Embedding) and module is not embedding)
    return next((module.padding_idx for module in others if module.padding_idx is not None), None)


def _rebuilt(tokenizer: PreTrainedTokenizerFast, state: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer that opens from the files of `tokenizer` with `state` in the place of its `tokenizer.json`.

    Most tokenizer classes take from the file only what they do not set themselves, so this is what every later
    loading will give.

    Raises:
        ModelError: The class does not take over what the file says.
    """
    with TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        rebuilt = type(tokenizer).from_pretrained(folder)
    rebuilt.name_or_path = tokenizer.name_or_path
    loaded = json.loads(rebuilt.backend_tokenizer.to_str())
    differing = [part for part in state if loaded[part] != state[part]]
    if differing:
        raise ModelError(
            f"{type(tokenizer).__name__} does not rebuild the tokenizer from its own files",
            value=differing,
            expected="a tokenizer that is the same after saving and loading",
            remedy="load the tokenizer with transformers.PreTrainedTokenizerFast, which takes tokenizer.json as it is",
        )
    return rebuilt


def _cut_embedding(model: PreTrainedModel, new_ids: Mapping[int, int]) -> None:
    embedding = _input_embedding(model)
    weight = embedding.weight
    rows = weight.detach().index_select(0, torch.tensor(list(new_ids), device=weight.device))
    embedding.weight = nn.Parameter(rows, requires_grad=weight.requires_grad)
    embedding.num_embeddings = len(new_ids)
    if embedding.padding_idx is not None:
        embedding.padding_idx = new_ids.get(embedding.padding_idx)


def _input_embedding(model: PreTrainedModel) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def _renumber_config(config: PretrainedConfig, new_ids: Mapping[int, int]) -> None:
    """Renumber the token ids in a config; one that belongs to no token any more becomes None."""
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new_ids.get(value))
    config.vocab_size = len(new_ids)
