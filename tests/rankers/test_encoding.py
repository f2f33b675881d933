"""Pairs encoded from single texts have the ids of the tokenizer, and a cache changes no score."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS
from ranker_samples import requests
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from vocabulary_samples import KINDS, LEXICON, STRANGE, tokenizer_of

from hfcompress.models.prompts import Prompts, set_prompts
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.encoding import ENTRY_BYTES, DocumentCache, PairEncoder
from hfcompress.rankers.load import load_ranker

LENGTH = 24
BERT = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
ROBERTA = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
TEMPLATE = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] [SEP] $B:1 [CLS]:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
)
PROCESSORS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "template": TEMPLATE,
    "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), TEMPLATE]),
    "none": None,
}


def tokenizer_with(processor: object, side: str = "right", types: bool = True) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", *WORDS]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if processor is not None:
        backend.post_processor = processor
    names = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=LENGTH, truncation_side=side, model_input_names=names,
    )  # fmt: skip


def random_pairs(words: list[str], count: int = 300) -> list[tuple[str, str]]:
    rng = random.Random(0)

    def text() -> str:
        most = rng.choice([0, 3, 10, 12, 24, 60])
        return " ".join(rng.choices(words, k=rng.randint(0, most)))

    return [(text(), text()) for _ in range(count)]


def assert_as_tokenizer(
    tokenizer: PreTrainedTokenizerBase, encoder: PairEncoder, length: int, words: list[str] | None = None
) -> None:
    pairs = random_pairs(words or [*WORDS, "[SEP]", "xyz"])
    expected = tokenizer(
        [query for query, _ in pairs], [document for _, document in pairs], truncation=True, max_length=length
    )
    found = encoder.encode(pairs, length)
    assert set(found) == set(expected) - {"attention_mask"}
    for name, rows in found.items():
        assert [row.tolist() for row in rows] == expected[name]


@pytest.mark.parametrize("length", [8, 9, LENGTH])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_ids_are_those_of_the_tokenizer(kind: str, side: str, length: int) -> None:
    tokenizer = tokenizer_with(PROCESSORS[kind], side, types=kind != "roberta")
    assert_as_tokenizer(tokenizer, PairEncoder(tokenizer), length)
    cached = PairEncoder(tokenizer, 1 << 20)
    for _ in range(2):
        assert_as_tokenizer(tokenizer, cached, length)
    assert cached.cache.counts().hit_rate == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_tokenizers_of_every_family(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    words = [*LEXICON, *STRANGE, *tokenizer.all_special_tokens, "  "]
    assert_as_tokenizer(tokenizer, PairEncoder(tokenizer), 40, words)


def test_a_prompt_stands_before_the_query(tokenizer: BertTokenizerFast) -> None:
    prompted = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32)
    set_prompts(prompted, Prompts({"query": "ba de "}, "query"))
    plain, found = PairEncoder(tokenizer), PairEncoder(prompted)
    assert found.query("fi").tolist() == plain.query("ba de fi").tolist()
    assert found.documents(["fi"])[0].tolist() == plain.documents(["fi"])[0].tolist()


def test_special_tokens_in_texts_are_split_where_the_tokenizer_splits_them() -> None:
    tokenizer = tokenizer_with(BERT)
    tokenizer.split_special_tokens = True
    assert_as_tokenizer(tokenizer, PairEncoder(tokenizer), LENGTH)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_the_cache_changes_no_bit_of_a_score(repository: Path, runtime: str) -> None:
    options = RankerOptions(1, batch_tokens=256)
    plain = load_ranker(repository, runtime, options=options)
    cached = load_ranker(repository, runtime, options=options, cache_bytes=1 << 20)
    for _ in range(2):
        for query, documents in requests():
            pairs = [(query, document) for document in documents]
            assert np.array_equal(plain.score(pairs), cached.score(pairs))
            assert plain.rank(query, documents) == cached.rank(query, documents)
    assert cached.pair_encoder is not None and cached.pair_encoder.cache.counts().hit_rate > 0.5


def test_another_maximum_length_or_tokenizer_is_respected(repository: Path, tokenizer: BertTokenizerFast) -> None:
    plain, cached = (load_ranker(repository, "torch", cache_bytes=size) for size in (0, 1 << 20))
    pairs = [(query, document) for query, documents in requests() for document in documents]
    cached.score(pairs)
    for ranker in (plain, cached):
        ranker.tokenizer.model_max_length = 12
    assert np.array_equal(plain.score(pairs), cached.score(pairs))
    left = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=16, truncation_side="left")
    for ranker in (plain, cached):
        ranker.tokenizer = left
    assert np.array_equal(plain.score(pairs), cached.score(pairs))


def test_copies_have_a_cache_of_the_same_size(repository: Path) -> None:
    copy = pickle.loads(pickle.dumps(load_ranker(repository, "torch", cache_bytes=12345)))
    assert copy.cache_bytes == 12345 and copy.pair_encoder.cache.counts().entries == 0


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    entry = np.zeros(20, dtype=np.int32)
    cache = DocumentCache(3 * (entry.nbytes + ENTRY_BYTES))
    for key in (b"1", b"2", b"3"):
        cache.put({key: entry})
    cache.get([b"1"])
    cache.put({b"4": entry})
    assert [ids is not None for ids in cache.get([b"1", b"2", b"3", b"4"])] == [True, False, True, True]
    cache.put({b"huge": np.zeros(1000, dtype=np.int32)})
    counts = cache.counts()
    assert (counts.entries, counts.hits, counts.misses) == (3, 4, 1)
    assert counts.bytes <= cache.max_bytes
