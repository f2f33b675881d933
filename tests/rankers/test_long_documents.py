"""Rankers read documents in chunks: every token, in one batch with other pairs, with the scores of its parts."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import MARK, SIGMOID, WORDS, make_pico
from ranker_samples import RUNTIMES, pairs_of, requests
from transformers import BertTokenizerFast
from vocabulary_samples import KINDS, LEXICON, tokenizer_of

from hfcompress.evaluation.scores import Fp32Scorer
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.encoding import PairEncoder
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.long_documents import CHUNKS, LongDocumentEncoder
from hfcompress.recipe import LongDocuments
from hfcompress.utils.log import warn_once

CHUNK = LongDocuments(mode="chunk", max_chunks=100, overlap=3, title_tokens=0)
QUERY = " ".join(WORDS[:5])
LONG = " ".join(WORDS[number % len(WORDS)] + "." * (number % 9 == 8) for number in range(150))


@pytest.fixture(autouse=True)
def _not_warned() -> None:
    warn_once.cache_clear()


def words_of(tokenizer: BertTokenizerFast, rows: list[np.ndarray]) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(row.tolist()) for row in rows]


def test_every_chunk_has_the_whole_query_and_all_chunks_the_whole_document(tokenizer: BertTokenizerFast) -> None:
    encoder = LongDocumentEncoder(tokenizer, CHUNK)
    encoded = encoder.encode([(QUERY, LONG), (QUERY, "ba de")], 32)
    assert encoded[CHUNKS][1] == 1 and len(encoded["input_ids"]) == sum(encoded[CHUNKS])
    *chunks, short = words_of(tokenizer, encoded["input_ids"])
    query = tokenizer.tokenize(QUERY)
    assert all(len(chunk) <= 32 and chunk[1 : 1 + len(query)] == query for chunk in chunks)
    texts = [chunk[2 + len(query) : -1] for chunk in chunks]
    document = tokenizer.tokenize(LONG)
    assert texts[0] == document[: len(texts[0])] and texts[-1] == document[-len(texts[-1]) :]
    assert sum(map(len, texts)) >= len(document)
    assert short == ["[CLS]", *query, "[SEP]", "ba", "de", "[SEP]"]


@pytest.mark.parametrize(
    ("title", "most", "repeated"),
    [
        ("ba de fi.", 32, "ba de fi ."),  # a sentence
        ("ba de fi\n", 32, "ba de fi"),  # a line
        ("ba de fi go", 3, "ba de fi"),  # of a longer one as much as is asked for
        ("ba de fi.", 0, ""),
        (" ".join(["ba"] * 30), 32, " ".join(["ba"] * 12)),  # at most half of what the query leaves
    ],
)
def test_every_chunk_begins_with_the_title(title: str, most: int, repeated: str, tokenizer: BertTokenizerFast) -> None:
    setting = LongDocuments(mode="chunk", max_chunks=100, overlap=0, title_tokens=most)
    document = f"{title} {LONG}"
    encoded = LongDocumentEncoder(tokenizer, setting).encode([(QUERY, document)], 32)
    start = 2 + len(tokenizer.tokenize(QUERY))
    chunks = [row[start:-1] for row in words_of(tokenizer, encoded["input_ids"])]
    expected, whole = tokenizer.tokenize(repeated), tokenizer.tokenize(document)
    assert len(chunks) > 3 and all(chunk[: len(expected)] == expected for chunk in chunks)
    first, *texts, last = chunks[0], *(chunk[len(expected) :] for chunk in chunks[1:])
    read = [*first, *(token for text in texts for token in text)]
    assert read == whole[: len(read)] and last == whole[-len(last) :] and len(read) + len(last) >= len(whole)
    assert max(map(len, encoded["input_ids"])) <= 32


def test_inputs_that_fit_are_those_of_a_pair_encoder(tokenizer: BertTokenizerFast) -> None:
    pairs = [pair for query, documents in requests() for pair in pairs_of(query, documents)]
    fitting = [(query, document) for query, document in pairs if len(query.split()) + len(document.split()) < 20]
    plain = PairEncoder(tokenizer).encode(fitting, 32)
    found = LongDocumentEncoder(tokenizer, CHUNK).encode(fitting, 32)
    assert found.pop(CHUNKS) == [1] * len(fitting) and found.keys() == plain.keys()
    for name, rows in plain.items():
        assert all(np.array_equal(*each) for each in zip(rows, found[name], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_every_family_cut_between_words(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    encoder = LongDocumentEncoder(tokenizer, LongDocuments(mode="chunk", max_chunks=1000, overlap=0))
    text = ". ".join(LEXICON * 4)
    ids, levels = encoder.documents([text])[0]
    assert ids.tolist() == PairEncoder(tokenizer).documents([text])[0].tolist()
    assert (levels == 2).sum() >= len(LEXICON)
    read = encoder.read(encoder.query(LEXICON[0]), np.stack((ids, levels)), 40)
    spans = np.concatenate([chunk for _, chunk in read.inputs])
    assert read.complete and len(spans) >= len(ids)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("combine", ["max", "mean", "first"])
def test_scores_are_those_of_the_parts(repository: Path, runtime: str, combine: str) -> None:
    setting = LongDocuments(mode="chunk", max_chunks=100, combine=combine)
    ranker = load_ranker(repository, runtime, options=RankerOptions(1), long_documents=setting)
    plain = load_ranker(repository, runtime, options=RankerOptions(1))
    pairs = [(QUERY, LONG), (QUERY, "ba de"), ("fi", LONG)]
    encoded = ranker.encode(pairs)
    single = ranker.score_encoded({name: rows for name, rows in encoded.items() if name != CHUNKS})
    parts = np.split(single, np.cumsum(encoded[CHUNKS])[:-1])
    expected = [part[0] if combine == "first" else getattr(np, combine)(part) for part in parts]
    np.testing.assert_allclose(ranker.score(pairs), expected, atol=1e-5)
    np.testing.assert_allclose(ranker.score_in_batches(pairs, 1), expected, atol=0.2)  # dynamic int8 sees its batch
    assert (encoded[CHUNKS] == [1, 1, 1]) == (combine == "first")
    assert np.isclose(ranker.score(pairs[1:2]), plain.score(pairs[1:2])).all()
    assert len(ranker.rank(QUERY, [LONG, "ba de", LONG])) == 3


def test_a_relevant_end_is_read(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    """The score of a truncated document does not depend on its end; that of chunks does."""
    save_checkpoint(tmp_path, make_pico(), tokenizer, SIGMOID, 32)
    documents = [LONG, f"{LONG} {MARK} {MARK}"]
    truncated, chunked = (load_ranker(tmp_path, "torch", long_documents=each) for each in ("truncate", CHUNK))
    first, second = truncated.score(pairs_of(QUERY, documents))
    assert first == second
    mean = load_ranker(tmp_path, "torch", long_documents=CHUNK.model_copy(update={"combine": "mean"}))
    assert mean.score(pairs_of(QUERY, documents))[0] != mean.score(pairs_of(QUERY, documents))[1]
    assert chunked.score(pairs_of(QUERY, documents)).shape == (2,)


def test_a_query_of_400_tokens_with_a_document_of_5000(
    tmp_path: Path, tokenizer: BertTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = copy.deepcopy(tokenizer)  # whose longest input becomes that of the checkpoint
    save_checkpoint(tmp_path, make_pico(), tokenizer, SIGMOID, 512)
    query = " ".join(["ba", *["de"] * 398, "fi"])
    document = " ".join([MARK, *["ga"] * 4998, "ko"])
    setting = LongDocuments(mode="chunk", max_chunks=4)
    ranker = load_ranker(tmp_path, "torch", long_documents=setting)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (only,) = ranker.rank(query, [document])
    assert np.isfinite(only.score)
    assert [record.getMessage() for record in caplog.records if "400 tokens" in record.getMessage()] == [
        record.getMessage() for record in caplog.records
    ]
    assert len(caplog.records) == 1
    encoded = ranker.encode([(query, document)])
    assert encoded[CHUNKS] == [4]
    inputs = words_of(tokenizer, encoded["input_ids"])
    query_length = inputs[0].index("[SEP]") - 1
    assert query_length == int(0.75 * 509)
    assert all(row[1] == "ba" and row[query_length] == "fi" and len(row) <= 512 for row in inputs)
    assert inputs[0][query_length + 2] == MARK and inputs[-1][-2] == "ko"


def test_a_query_within_its_share_is_read_whole(tokenizer: BertTokenizerFast, caplog: pytest.LogCaptureFixture) -> None:
    query = " ".join(WORDS[:21])
    encoded = LongDocumentEncoder(tokenizer, CHUNK).encode([(query, LONG)], 32)
    assert all(row[1:22] == tokenizer.tokenize(query) for row in words_of(tokenizer, encoded["input_ids"]))
    assert not caplog.records


@pytest.mark.parametrize("setting", [LongDocuments(), LongDocuments(max_tokens_per_doc=30)])
def test_truncation_that_shortens_queries_is_warned_of_once(
    repository: Path, setting: LongDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    """Up to half of an input of 32 tokens, 3 of them special, a query is whole beside any document."""
    ranker = load_ranker(repository, "torch", long_documents=setting)
    half, longer = (" ".join(WORDS[:size]) for size in (14, 15))
    with caplog.at_level(logging.WARNING):
        ranker.score([(half, LONG), (longer, "ba"), (longer, " ".join(WORDS[:14]))])  # the last fits to the token
        assert not caplog.records
        for _ in range(2):
            ranker.score([(half, LONG), (longer, LONG), (longer, "ba")])
    (record,) = caplog.records
    assert "A query of 15 tokens is longer than half of the input of 32 tokens" in record.getMessage()
    (row,) = ranker.encode([(longer, LONG)])["input_ids"]
    assert words_of(ranker.tokenizer, [np.array(row)])[0].index("[SEP]") == 1 + 14


def test_documents_are_read_up_to_a_number_of_tokens(repository: Path) -> None:
    short = " ".join(LONG.split()[:40])
    for mode in ("truncate", "chunk"):
        setting = LongDocuments(mode=mode, max_tokens_per_doc=12)
        ranker = load_ranker(repository, "torch", long_documents=setting)
        inputs = ranker.encode([("fi", LONG)])["input_ids"]
        assert [len(row) for row in inputs] == [1 + 3 + 12]
        assert ranker.score([("fi", LONG)]) == ranker.score([("fi", short)])


def test_the_cache_changes_no_bit_and_copies_read_alike(repository: Path) -> None:
    plain = load_ranker(repository, "torch", long_documents=CHUNK)
    cached = load_ranker(repository, "torch", cache_bytes=1 << 20, long_documents=CHUNK)
    pairs = [pair for query, documents in requests() for pair in pairs_of(query, documents)]
    for _ in range(2):
        assert np.array_equal(plain.score(pairs), cached.score(pairs))
    assert cached.pair_encoder is not None and cached.pair_encoder.cache.counts().hit_rate >= 0.5
    other = pickle.loads(pickle.dumps(cached))
    assert other.long_documents == CHUNK and np.array_equal(other.score(pairs), plain.score(pairs))


def test_known_scores_are_kept_apart(repository: Path) -> None:
    pairs = [(QUERY, LONG)]
    scores = {}
    for setting in (LongDocuments(), CHUNK):
        scorer = Fp32Scorer(str(repository), options=RankerOptions(1, long_documents=setting))
        scores[setting.mode] = scorer.score(pairs)[0]
        assert scorer.computed == 1
        again = Fp32Scorer(str(repository), options=RankerOptions(1, long_documents=setting))
        assert again.score(pairs)[0] == scores[setting.mode] and again.computed == 0
    assert scores["chunk"] != scores["truncate"]
