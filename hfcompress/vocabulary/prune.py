"""prune_vocabulary: remove tokens from a model and its tokenizer together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.errors import ModelError, PlanError
from hfcompress.models.architectures import architecture_of, input_embedding
from hfcompress.models.prompts import prompts_of, set_prompts
from hfcompress.models.surgery import prune_embedding, restore_embedding
from hfcompress.models.wrappers import unwrap_
from hfcompress.utils.quiet import quiet
from hfcompress.vocabulary.content import TokenizerContent, content_of
from hfcompress.vocabulary.plan import VocabularyPlan

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def prune_vocabulary(
    model: ModelT, tokenizer: PreTrainedTokenizerFast, plan: VocabularyPlan
) -> tuple[ModelT, PreTrainedTokenizerFast]:
    """Remove every token that `plan` does not keep from `model`, in place, and from a new tokenizer.

    Tokens keep their order. A text whose tokens are all kept gets the same scores as before. Embedding rows without a
    token, which pad the embedding of some checkpoints, are removed too. `apply_plan` may be called before or after.
    Wrappers of `torch.compile` and of data parallelism are removed.

    Args:
        model: A model of a supported family without a language modelling head.
        tokenizer: Its tokenizer; it is not changed.
        plan: The tokens to keep, chosen with this tokenizer.

    Returns:
        The unwrapped model, with a new embedding weight (create a new optimizer), and the new tokenizer. The tokenizer
        keeps its class and stays the same after saving and loading.

    Raises:
        PlanError: The plan was made with another tokenizer.
        ModelError: The tokenizer is of an unknown kind, or does not fit the model; or the model predicts tokens, or its
            family is not supported. The model is unchanged.
    """
    content = content_of(tokenizer)
    model = unwrap_(model)
    new_ids = {old: new for new, old in enumerate(plan.kept)}
    _check(model, content, plan, new_ids)
    pruned = _rebuilt(tokenizer, content.pruned(new_ids))
    return prune_embedding(model, plan.kept), pruned


def restore_vocabulary(
    model: ModelT,
    tokenizer: PreTrainedTokenizerFast,
    original: PreTrainedModel,
    original_tokenizer: PreTrainedTokenizerFast,
) -> ModelT:
    """Undo `prune_vocabulary` in `model`, in place: removed tokens get the embeddings of the original model back.

    With the original tokenizer, a text whose tokens are all kept gets the same scores as before. If the model was
    trained since, it is the model that the same training with the whole vocabulary gives, but for weight decay, where
    the removed tokens do not occur in the training texts: their embeddings would have got no gradient.

    Args:
        model: A model whose vocabulary was pruned.
        tokenizer: Its tokenizer.
        original: A model with the whole vocabulary and the same size of embeddings, such as the teacher.
        original_tokenizer: Its tokenizer, from which `tokenizer` was made.

    Returns:
        The unwrapped model, which reads the original tokenizer's ids. Its embedding weight is new, so create a new
        optimizer.
    """
    before = content_of(original_tokenizer).ids
    tokens = sorted(content_of(tokenizer).ids.items(), key=lambda each: each[1])
    kept = [before[token] for token, _ in tokens]
    return restore_embedding(model, input_embedding(original).weight, kept)


def _check(model: PreTrainedModel, content: TokenizerContent, plan: VocabularyPlan, new_ids: Mapping[int, int]) -> None:
    if content.fingerprint != plan.fingerprint:
        raise PlanError(
            "The vocabulary plan was made with another tokenizer",
            value=f"{len(content.ids)} tokens",
            expected=f"the tokenizer of {plan.size} tokens that the plan was made with",
            remedy="make a plan with this tokenizer",
        )
    embedding, needed = input_embedding(model), max(content.ids.values()) + 1
    if embedding.num_embeddings < needed:
        raise ModelError(
            "The tokenizer has more tokens than the model's embedding has rows",
            value=f"{needed} tokens, {embedding.num_embeddings} rows",
            expected="a row for each token",
            remedy="load the tokenizer that was saved with this model",
        )
    padding = embedding.padding_idx if architecture_of(model.config).positions_after_padding else None
    if padding is not None and new_ids.get(padding) != padding:
        before = sorted((id_, token) for token, id_ in content.ids.items() if id_ <= padding)
        raise ModelError(
            "This model numbers positions from its padding token, which would get another id",
            value=f"{padding}, then {new_ids.get(padding)}",
            expected="the same id as before",
            remedy=f"make a plan with keep={[token for _, token in before]}",
        )


def _rebuilt(tokenizer: PreTrainedTokenizerFast, state: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Load a tokenizer from the files of `tokenizer`, with `state` as its `tokenizer.json`.

    Most tokenizer classes override parts of that file, so only loading shows what a reload will give.

    Raises:
        ModelError: The class overrides something in `state`.
    """
    with TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        rebuilt = type(tokenizer).from_pretrained(folder)
    rebuilt.name_or_path = tokenizer.name_or_path
    set_prompts(rebuilt, prompts_of(tokenizer))
    loaded = json.loads(rebuilt.backend_tokenizer.to_str())
    differing = [part for part in state if loaded[part] != state[part]]
    if differing:
        raise ModelError(
            f"{type(tokenizer).__name__} does not rebuild the tokenizer from its own files",
            value=differing,
            expected="a tokenizer that is the same after saving and loading",
            remedy="load the tokenizer with transformers.PreTrainedTokenizerFast, which uses tokenizer.json unchanged",
        )
    return rebuilt
