"""One ranker, many threads: every method of every ranker returns what it returns in a single thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WORDS, make_pico
from ranker_samples import RANKERS, RUNTIMES, pairs_of, ranker_classes, requests
from transformers import BertTokenizerFast

from hfcompress.models.hooks import evaluation_mode
from hfcompress.rankers import base
from hfcompress.rankers.base import BatchedRanker, Ranker, RankerOptions
from hfcompress.rankers.encoding import PairEncoder
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.log import warn_once

CALLERS, ROUNDS = 8, 2
LONG = " ".join(WORDS[:40])


def methods_of(ranker: Ranker) -> dict[str, Callable[[str, list[str]], Any]]:
    """All public methods that compute something, by name, each as a function of a query and its documents."""
    found: dict[str, Callable[[str, list[str]], Any]] = {
        "score": lambda query, documents: ranker.score(pairs_of(query, documents)).tolist(),
        "rank": lambda query, documents: ranker.rank(query, documents, top_k=7),
    }
    if isinstance(ranker, BatchedRanker):
        found["score_in_batches"] = lambda query, documents: ranker.score_in_batches(
            pairs_of(query, documents), 3, padding=2.0
        ).tolist()
        found["encode"] = lambda query, documents: dict(ranker.encode(pairs_of(query, documents)))
        encoder = PairEncoder(ranker.tokenizer, cache_bytes=4000)  # of which all threads share a cache that overflows
        found["score_encoded"] = lambda query, documents: ranker.score_encoded(
            encoder.encode(pairs_of(query, documents), ranker.tokenizer.model_max_length)
        ).tolist()
        found["batches"] = found["forward"] = lambda query, documents: [
            logits.tolist() for logits in ranker.forward(ranker.batches(pairs_of(query, documents)))
        ]
    return found


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """Results of all calls, made in `CALLERS` threads that start together, each with another first call."""
    start = threading.Barrier(CALLERS)
    results: list[Any] = [None] * len(calls)

    def worker(number: int) -> None:
        start.wait()
        for index in range(number, len(calls), CALLERS):
            results[index] = calls[index]()

    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(worker, number) for number in range(CALLERS)]:
            done.result()
    return results


def test_all_rankers_and_runtimes_are_known() -> None:
    assert ranker_classes() == set(RANKERS)
    assert set(RUNTIMES) == {"torch", "onnxruntime", "openvino"}


@pytest.mark.parametrize("name", sorted(ranker_classes()))
def test_threads_get_the_results_of_a_single_thread(name: str, repository: Path) -> None:
    if name == "OpenVinoRanker":
        pytest.importorskip("openvino")
    ranker = RANKERS[name](repository)
    known = {
        "tokenizer",
        "name",
        "activation",
        "threads",
        "batch_tokens",
        "after_fork",
        "check_process",
        "reload",
        "synchronize",
    }
    public = {key for key in dir(BatchedRanker) if not key.startswith("_") and callable(getattr(BatchedRanker, key))}
    methods = methods_of(ranker)
    assert not isinstance(ranker, BatchedRanker) or public - known == set(methods)
    jobs = [(method, request) for request in requests() for method in methods.values()] * ROUNDS
    found = in_threads([lambda method=method, request=request: method(*request) for method, request in jobs])
    expected = [method(*request) for method, request in jobs[: len(jobs) // ROUNDS]] * ROUNDS
    assert found == expected
    assert len({repr(result) for result in expected}) > len(methods)


def test_rankers_share_a_model_in_training_and_a_tokenizer(tokenizer: BertTokenizerFast) -> None:
    model = make_pico(hidden_dropout_prob=0.5).train()
    rankers = [TorchRanker(model, tokenizer, options=RankerOptions(threads, 64)) for threads in (1, 2)]
    asked = requests()
    expected = [[ranker.score(pairs_of(*request)).tolist() for request in asked] for ranker in rankers]
    before = torch.get_num_threads()
    stop = threading.Event()

    def use_the_tokenizer() -> None:
        while not stop.is_set():
            tokenizer([LONG, "ba"], padding=True)
            tokenizer([LONG], truncation=True, max_length=5)

    other = threading.Thread(target=use_the_tokenizer)
    other.start()
    try:
        calls = [
            lambda ranker=ranker, request=request: ranker.score(pairs_of(*request)).tolist()
            for request in asked
            for ranker in rankers
        ]
        found = in_threads(calls)
    finally:
        stop.set()
        other.join()
    assert [found[0::2], found[1::2]] == expected
    assert model.training and torch.get_num_threads() == before
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())


def test_batches_can_be_left_half_way(tokenizer: BertTokenizerFast) -> None:
    model = make_pico().train()
    ranker = TorchRanker(model, tokenizer, options=RankerOptions(2, 32))
    before = torch.get_num_threads()
    half = ranker.forward(ranker.batches(pairs_of(*requests()[2])))
    next(half)
    assert model.training and not torch.is_inference_mode_enabled() and torch.get_num_threads() == before


def test_long_queries_are_warned_of_once(tokenizer: BertTokenizerFast, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    ranker = TorchRanker(make_pico(), tokenizer)
    with caplog.at_level(logging.WARNING, logger=base.__name__):
        in_threads([lambda: ranker.score([(LONG, "ba")])] * 2 * CALLERS)
    (record,) = caplog.records
    assert "A query of 40 tokens is longer than half of the input of 32" in record.getMessage()


def test_the_tokenizer_of_a_ranker_is_its_own(tokenizer: BertTokenizerFast) -> None:
    ranker = TorchRanker(make_pico(), tokenizer)
    assert ranker.tokenizer is tokenizer
    tokenizer("ba")
    ranker.score([(LONG, LONG)])
    assert tokenizer.backend_tokenizer.truncation is None
