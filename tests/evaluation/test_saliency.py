"""Saliency: gradient x input by word, however a tokenizer cuts it, in every family."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import FAMILIES, make_pico, uneven_plan
from explanation_samples import ARTIFACTS, DATA, STUDENT, TEACHER
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.evaluation.explain import explain
from hfcompress.evaluation.saliency import add_saliency, saliency_agreement, word_saliency
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.pytorch import TorchRanker

PAIR = ("ba de", "fi go, lu ba")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_its_pruned_form_tell_what_they_look_at(
    family: str, pico: Callable[..., PreTrainedModel], tokenizer: BertTokenizerFast
) -> None:
    segments = family in ("bert", "electra")
    tokenizer = copy.deepcopy(tokenizer)  # the session's own is shared with every other test
    tokenizer.model_input_names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    for model in (pico(family), apply_plan(pico(family), uneven_plan())):
        weights = word_saliency(TorchRanker(model, tokenizer), PAIR)
        assert sorted(weights) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
        assert len(set(weights.values())) > 1


def test_weights_are_the_gradient_times_the_input(tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    weights = word_saliency(TorchRanker(model, tokenizer), PAIR)
    encoded = tokenizer(*PAIR, return_tensors="pt")
    embedded = model.get_input_embeddings()(encoded["input_ids"]).detach()

    def score(scale: float, index: int) -> float:
        changed = embedded.clone()
        changed[0, index] *= scale
        inputs = {name: encoded[name] for name in ("attention_mask", "token_type_ids") if name in encoded}
        with torch.inference_mode():
            return model(inputs_embeds=changed, **inputs).logits.item()

    # [CLS] ba de [SEP] fi go , lu ba [SEP]: the second word of the query, and the third of the document.
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    for word, index in (((0, 1), tokens.index("de")), ((1, 2), tokens.index("lu"))):
        slope = (score(1.01, index) - score(0.99, index)) / 0.02
        assert weights[word] == pytest.approx(slope, rel=0.02, abs=1e-3)
    assert model.get_input_embeddings()._forward_hooks == {}


def test_a_word_that_one_tokenizer_cuts_in_two_is_still_one_word(tokenizer: BertTokenizerFast) -> None:
    text = "ba deba"  # not in the vocabulary as one: [UNK]
    assert sorted(word_saliency(TorchRanker(make_pico(), tokenizer), (text, "fi"))) == [(0, 0), (0, 1), (1, 0)]


def test_saliency_agreement_by_hand() -> None:
    ours = {(1, place): float(place) for place in range(8)}
    assert saliency_agreement(ours, ours) == (1.0, 1.0)
    correlation, overlap = saliency_agreement(ours, {word: -weight for word, weight in ours.items()}) or (0, 0)
    assert correlation == pytest.approx(-1.0) and overlap == 1.0  # the same words, against the score
    reverse = {word: 7 - weight for word, weight in ours.items()}
    assert saliency_agreement(ours, reverse) == (pytest.approx(-1.0), pytest.approx(2 / 5))
    assert saliency_agreement(ours, {(1, 0): 1.0, (1, 1): 2.0, (0, 9): 3.0}) is None  # two words in common


def test_saliency_is_added_to_moved_queries_and_to_some_that_stayed(tokenizer: BertTokenizerFast) -> None:
    runs = {"teacher": TEACHER, "student": STUDENT}
    found = explain(DATA, "test", runs, ARTIFACTS, tokenizer=tokenizer, max_length=32, queries=1)
    assert found is not None
    model = make_pico()
    same = add_saliency(
        found, DATA, "test", TorchRanker(model, tokenizer), TorchRanker(make_pico(), tokenizer), ARTIFACTS
    )
    lost, gained = same.moved
    assert lost.saliency is not None and lost.saliency.document == "d5" and lost.saliency.words == 8
    assert lost.saliency.correlation == pytest.approx(1.0) and lost.saliency.overlap == 1.0
    assert gained.saliency is not None and gained.saliency.words == 3
    assert same.steady_saliency is not None and same.steady_saliency.queries == 1  # d has no relevant candidate
    other = add_saliency(
        found, DATA, "test", TorchRanker(model, tokenizer), TorchRanker(make_pico(seed=5), tokenizer), ARTIFACTS
    )
    assert other.moved[0].saliency is not None and other.moved[0].saliency.correlation < 0.99
