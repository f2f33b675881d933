"""The content of a tokenizer: kept text is split as before in every kind of tokenizer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vocabulary_samples import (
    CORPUS,
    KINDS,
    LEXICON,
    STRANGE,
    numbered,
    pruned_backend,
    small_plan,
    tokenizer_of,
)

from hfcompress.errors import ModelError
from hfcompress.vocabulary.plan import plan_vocabulary

words = st.sampled_from(LEXICON) | st.text(STRANGE, min_size=1, max_size=5)


sentences = st.lists(words, min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_text_of_kept_tokens_is_split_as_before(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    corpus = data.draw(st.lists(sentences, min_size=1, max_size=4))
    plan = plan_vocabulary(
        tokenizer,
        ["walk", *corpus],
        keep=data.draw(st.lists(st.sampled_from(sorted(tokenizer.get_vocab())), max_size=10)),
        characters=data.draw(st.sampled_from(["all", "corpus"])),
        progress=False,
    )
    # Words of the corpus in new combinations, with and without spaces, among characters that may be unknown.
    seen = st.sampled_from([word for text in corpus for word in text.split()] or ["walk"])
    parts = st.lists(seen | words, min_size=1, max_size=6)
    others = data.draw(st.lists(st.builds(str.join, st.sampled_from(["", " "]), parts), min_size=10, max_size=20))
    before, after = tokenizer.backend_tokenizer, pruned_backend(tokenizer, plan)
    for text in corpus + others:
        ids = before.encode(text).ids
        if text in corpus or set(ids) <= set(plan.kept):
            assert [plan.kept[new] for new in after.encode(text).ids] == ids, text


def test_bpe_keeps_every_merge_that_may_build_a_token() -> None:
    tokens = ["<unk>", *"abcd", "ab", "bc", "abc", "cd", "bcd", "dd"]
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("c", "d"), ("b", "cd"), ("d", "d")]
    backend = Tokenizer(models.BPE(numbered(tokens), merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    plan = plan_vocabulary(tokenizer, ["abc"], characters="corpus", progress=False)
    assert [tokens[token] for token in plan.kept] == ["<unk>", "a", "b", "c", "ab", "bc", "abc"]
    assert plan.kept_for == {"pinned": 1, "corpus": 1, "keep": 0, "characters": 3, "closure": 2}
    remaining = json.loads(pruned_backend(tokenizer, plan).to_str())["model"]["merges"]
    assert remaining == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]  # in the old order


def test_unigram_keeps_the_score_that_unknown_characters_depend_on() -> None:
    # "q" alone is unknown and scores 10 below the lowest token: -110 with "ww", else -30.
    pieces = [("<unk>", 0.0), ("z", -20.0), ("aq", -20.0), ("zzza", -1.0), ("ww", -100.0), ("b", -5.0)]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram(pieces, 0)), unk_token="<unk>")
    plan = plan_vocabulary(tokenizer, ["zzzaq", "zzza"], characters="corpus", progress=False)
    assert [pieces[token][0] for token in plan.kept] == ["<unk>", "z", "aq", "zzza", "ww"]
    assert pruned_backend(tokenizer, plan).encode("zzzaq").tokens == ["z", "z", "z", "aq"]
    without = Tokenizer(models.Unigram([piece for piece in pieces if piece[0] != "ww"], 0))
    assert without.encode("zzzaq").tokens == ["zzza", "q"]


@pytest.mark.parametrize("kind", ["modernbert", "byte_fallback_bpe", "byte_unigram"])
def test_bytes_are_always_kept(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    plan = small_plan(tokenizer, characters="corpus")
    ids = tokenizer.backend_tokenizer.encode("龘é🦊", add_special_tokens=False).ids
    assert len(ids) >= 7 and set(ids) <= set(plan.kept)


def test_other_tokenizers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="fast tokenizer"):
        plan_vocabulary(tokenizer_of("bert").backend_tokenizer, CORPUS)
    monkeypatch.setattr("hfcompress.vocabulary.content.KINDS", ("BPE", "Unigram"))
    with pytest.raises(ModelError, match=r"WordPiece.*BPE, Unigram"):
        plan_vocabulary(tokenizer_of("bert"), CORPUS)
