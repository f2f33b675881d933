"""A vocabulary that was pruned and put back."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FAMILIES
from vocabulary_samples import model_for, scores, small_plan, tokenizer_for

from hfcompress.vocabulary.prune import prune_vocabulary, restore_vocabulary


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_the_vocabulary_can_be_undone(family: str) -> None:
    tokenizer = tokenizer_for(family)
    original = model_for(family, tokenizer, spare_rows=3)
    plan = small_plan(tokenizer, characters="corpus", keep=["<s>", "<pad>"] if family == "camembert" else ())
    model, cut = prune_vocabulary(copy.deepcopy(original), tokenizer, plan)
    kept = model.get_input_embeddings().weight
    with torch.no_grad():
        kept[5] += 1.0  # as training changes it
    restored = restore_vocabulary(model, cut, original, tokenizer)
    weight = restored.get_input_embeddings().weight
    expected = original.get_input_embeddings().weight.detach().clone()
    expected[list(plan.kept)] = kept.detach()
    assert torch.equal(weight, expected) and weight.requires_grad and len(cut) < len(tokenizer)
    embedding = restored.get_input_embeddings()
    assert restored.config.vocab_size == embedding.num_embeddings == len(weight)
    assert embedding.padding_idx == original.get_input_embeddings().padding_idx
    with torch.no_grad():
        weight[plan.kept[5]] -= 1.0
    torch.testing.assert_close(scores(restored, tokenizer), scores(original, tokenizer))
