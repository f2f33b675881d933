"""Latency tables: exact for linear times, complete, and cached until a condition changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, FFN, HEADS, LAYERS, WORDS, make_pico, pico_config, uneven_plan
from transformers import BertTokenizerFast

from hfcompress.errors import DataError, MissingExtraError, RecipeError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.costs import latency
from hfcompress.pruning.costs.latency import Deployment, deploy, measure_costs, sample_requests, time_rankers
from hfcompress.pruning.costs.probes import VOCABULARY, Grid, LayerSizes, SmallVocabulary, probe_model, solve_costs
from hfcompress.pruning.costs.table import CostTable
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    OpenVINOQuantizationConfig,
    QuantizationConfig,
    StaticQuantizationConfig,
)
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.long_documents import CHUNKS, LongDocumentEncoder
from hfcompress.recipe import LongDocuments
from hfcompress.utils.cache import CACHE_VARIABLE

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]
SIZES: list[LayerSizes] = [
    [(12, 1536)] * 6,
    [(3, 900), (0, 64), (12, 0), (1, 1536)],
    [(5, 32), (0, 0), (7, 200)],
    [(1, 0)],
]
CHUNK = LongDocuments(mode="chunk", max_chunks=100)
ONE_THREAD = RankerOptions(threads=1, batch_tokens=256)
needs_openvino = pytest.mark.skipif(not openvino_backend.is_available(), reason="the openvino extra is not installed")


def linear_seconds(sizes: LayerSizes, last_differs: bool) -> float:
    """A machine on which starting a sublayer costs something, and every head and neuron the same."""
    seconds = 3.0
    for number, (heads, neurons) in enumerate(sizes, 1):
        if last_differs and number == len(sizes):
            seconds += (0.3 if heads else 0) + 0.05 * heads + 1e-4 * neurons
        else:
            seconds += 0.2 + (0.5 if heads else 0) + 0.2 * heads + (0.4 if neurons else 0) + 2e-3 * neurons
    return seconds


@pytest.mark.parametrize("last_differs", [False, True])
def test_the_table_is_the_function_behind_the_times(last_differs: bool) -> None:
    grid = Grid.of(12, 1536, 32, last_differs)
    table = solve_costs(grid, lambda models: [linear_seconds(sizes, last_differs) for sizes in models])
    for sizes in SIZES:
        assert table.total(sizes) == pytest.approx(linear_seconds(sizes, last_differs), rel=1e-6)
    assert table.fixed == pytest.approx(3.0)
    assert table.attention_cost(0) == table.ffn_cost(0) == pytest.approx(0.1)
    assert table.attention_cost(12) - table.attention_cost(0) == pytest.approx(2.9)
    assert table.ffn_cost(32) - table.ffn_cost(0) == pytest.approx(0.464)
    assert table.attention_cost(12, last=True) == pytest.approx(0.9 if last_differs else 3.0)


@pytest.mark.parametrize("seed", range(5))
def test_noise_never_makes_a_larger_sublayer_cheaper(seed: int) -> None:
    noise = np.random.default_rng(seed)
    table = solve_costs(
        Grid.of(12, 1536, 32, True), lambda models: [linear_seconds(m, True) * noise.normal(1, 0.2) for m in models]
    )
    for points in (table.attention, table.ffn, table.last_attention, table.last_ffn):
        costs = [points[size] for size in sorted(points)]
        assert costs == sorted(costs) and costs[0] >= 0


@pytest.mark.parametrize(
    ("heads", "ffn", "multiple"), [(1, 64, 32), (2, 32, 32), (12, 1536, 32), (16, 100, 32), (4, 64, 8)]
)
def test_any_shape_has_a_grid_whose_costs_are_determined(heads: int, ffn: int, multiple: int) -> None:
    for last_differs in (False, True):
        grid = Grid.of(heads, ffn, multiple, last_differs)
        assert (grid.heads[0], grid.heads[-1], grid.ffn[0], grid.ffn[-1]) == (0, heads, 0, ffn)
        table = solve_costs(grid, lambda models: [linear_seconds(sizes, last_differs) for sizes in models])  # noqa: B023
        sizes = [(heads, ffn), (0, ffn), (1, 0), (heads, 0)]
        assert table.total(sizes) == pytest.approx(linear_seconds(sizes, last_differs), rel=1e-6)


class FakeRanker:
    """Takes `seconds` per document on the fake clock; more in its first call, and in the calls of `disturbed`."""

    def __init__(self, clock: list[float], seconds: float, disturbed: tuple[int, ...] = ()) -> None:
        self.clock, self.seconds, self.disturbed = clock, seconds, disturbed
        self.requests: list[int] = []

    def score(self, pairs: list) -> np.ndarray:
        drift = 1 + self.clock[0] / 1000
        slower = 50 if not self.requests or len(self.requests) in self.disturbed else 1
        self.clock[0] += self.seconds * drift * slower * len(pairs)
        self.requests.append(len(pairs))
        return np.zeros(len(pairs))

    def synchronize(self) -> None:
        """The CPU never lags behind."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return now


def test_rankers_are_timed_in_turns(clock: list[float]) -> None:
    rankers = [FakeRanker(clock, 0.001), FakeRanker(clock, 0.002, disturbed=(3,)), FakeRanker(clock, 0.004)]
    first, second, third = time_rankers(rankers, PAIRS, rounds=7)
    assert [ranker.requests for ranker in rankers] == [[25] * 8] * 3
    assert first == pytest.approx(0.001, rel=0.05)  # neither the first call nor the drift counts
    assert second / first == pytest.approx(2, rel=0.01)
    assert third / first == pytest.approx(4, rel=0.01)


def test_requests_are_scored_one_at_a_time(clock: list[float]) -> None:
    ranker = FakeRanker(clock, 0.001)
    (seconds,) = time_rankers([ranker], PAIRS, rounds=1, documents_per_request=10)
    assert seconds == pytest.approx(0.001, rel=0.01)  # the first round, with its slow call, does not count
    assert ranker.requests == [10, 10, 5] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_probes_are_pruned_models_of_the_family(family: str, tokenizer: BertTokenizerFast) -> None:
    config = apply_plan(make_pico(family), uneven_plan()).config  # pruned before: probes are as large as the teacher
    sizes = [(HEADS, FFN), (0, 5), (1, 0)]
    model = probe_model(config, sizes)
    assert model.config.model_type == family
    assert [(len(layer.heads), len(layer.ffn)) for layer in current_plan(model).layers] == sizes
    assert model.get_input_embeddings().weight.shape[0] == VOCABULARY
    assert model.config.hidden_size == config.hidden_size
    ids = torch.tensor([SmallVocabulary(tokenizer)(["ba be"], ["bi"])["input_ids"][0]])
    with torch.inference_mode():
        assert torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()
    assert config.vocab_size != VOCABULARY and len(config.hfcompress["plan"]["layers"]) == 3  # as it was


def test_special_tokens_of_a_large_vocabulary_are_folded() -> None:
    config = pico_config("modernbert", vocab_size=50368, pad_token_id=50283, cls_token_id=50281)
    model = probe_model(config, [(1, 0)])
    assert model.get_input_embeddings().padding_idx == model.config.pad_token_id == 50283 % VOCABULARY


def test_tokens_of_a_large_vocabulary_are_folded(tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.pruning.costs.probes.VOCABULARY", 10)
    queries, documents = map(list, zip(*PAIRS, strict=True))
    real, small = tokenizer(queries, documents), SmallVocabulary(tokenizer)(queries, documents)
    assert small["token_type_ids"] == real["token_type_ids"]
    assert small["input_ids"] == [[token % 10 for token in row] for row in real["input_ids"]]
    assert max(map(max, real["input_ids"])) >= 10


def test_chunks_have_tokens_of_the_small_vocabulary(
    tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.pruning.costs.probes.VOCABULARY", 10)
    pairs = [(PAIRS[0][0], " ".join(WORDS * 3)), PAIRS[1]]
    real, small = (
        LongDocumentEncoder(each, CHUNK).encode(pairs, 32) for each in (tokenizer, SmallVocabulary(tokenizer))
    )
    assert small[CHUNKS] == real[CHUNKS] and small[CHUNKS][0] > 1
    for row, expected in zip(small["input_ids"], real["input_ids"], strict=True):
        assert row.tolist() == (expected % 10).tolist()
    assert max(map(max, real["input_ids"])) >= 10


def test_a_document_costs_the_time_of_all_its_chunks(
    measured: list[int], tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "model_max_length", 16)
    sampled: list[list] = []
    monkeypatch.setattr(latency, "sample_requests", lambda pairs, lengths, deployment: sampled.append(lengths))
    pairs = [("ba", " ".join(WORDS * 4)), ("ba", "de")]
    for setting in (LongDocuments(), CHUNK):
        deployment = Deployment(options=RankerOptions(1, long_documents=setting))
        for _ in range(2):
            measure_costs(pico_config("bert"), tokenizer, pairs, deployment)
    assert len(measured) == 2  # each setting has a table of its own
    assert sampled[0].tolist() == [16, 5]
    assert sampled[1][0] > 4 * len(WORDS) and sampled[1][1] == 5


@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=[needs_openvino, pytest.mark.soak])])
def test_probes_read_chunks(
    runtime: str, tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "model_max_length", 32)
    monkeypatch.setattr(latency, "SAMPLE_TOKENS", 50)
    monkeypatch.setattr(latency, "FULL_BATCHES", 0)
    monkeypatch.setattr(latency, "ROUNDS", 1)
    read: list[list[int]] = []
    encode = LongDocumentEncoder.encode

    def encode_and_count(self: LongDocumentEncoder, *given: Any) -> dict[str, Any]:
        encoded = encode(self, *given)
        read.append(encoded[CHUNKS])
        return encoded

    monkeypatch.setattr(LongDocumentEncoder, "encode", encode_and_count)
    deployment = Deployment(runtime, None, RankerOptions(1, 256, long_documents=CHUNK), 1)
    pairs = [("ba", " ".join(WORDS * 4))]
    table = measure_costs(pico_config("bert"), tokenizer, pairs, deployment, tmp_path, ffn_multiple=64, progress=False)
    assert 0 < table.fixed < table.of_plan(current_plan(make_pico())) and max(map(max, read)) > 1


def test_a_sample_is_whole_requests_from_everywhere() -> None:
    lengths = np.full(len(PAIRS), latency.SAMPLE_TOKENS / 10)
    assert sample_requests(PAIRS, lengths, Deployment()) == [PAIRS[int(2.5 * n)] for n in range(10)]
    assert sample_requests(PAIRS, lengths, Deployment(documents_per_request=5)) == PAIRS[:5] + PAIRS[10:15]
    few = sample_requests(PAIRS[:2], lengths[:2], Deployment())
    assert len(few) == 10 and set(few) == set(PAIRS[:2])


@pytest.mark.parametrize(
    ("runtime", "int8"),
    [
        ("torch", None),
        ("onnxruntime", None),
        ("onnxruntime", DynamicQuantizationConfig()),
        ("onnxruntime", StaticQuantizationConfig()),
        pytest.param("openvino", None, marks=needs_openvino),
        pytest.param("openvino", OpenVINOQuantizationConfig(), marks=needs_openvino),
    ],
)
def test_models_are_deployed_as_asked(
    runtime: str, int8: QuantizationConfig | None, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    plan = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(2, (1, 3), tuple(range(0, FFN, 2))),))  # small, for fast exports
    model = apply_plan(make_pico(), plan)
    expected = deploy(model, tokenizer, Deployment(), [], tmp_path).score(PAIRS)
    calibration = calibration_batches(tokenizer, PAIRS)
    ranker = deploy(model, tokenizer, Deployment(runtime, int8, ONE_THREAD), calibration, tmp_path)
    assert (ranker.name, ranker.threads, ranker.batch_tokens) == (runtime, 1, 256)
    differences = np.abs(ranker.score(PAIRS) - expected)
    assert differences.max() < (1e-4 if int8 is None else 3)
    assert int8 is None or differences.max() > 1e-4


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Number of probes of every measurement; no clock is read."""
    calls: list[int] = []

    def time_probes(config: object, tokenizer: object, pairs: object, deployment: Deployment, *rest: object) -> list:
        probes = rest[-1]
        calls.append(len(probes))
        return [linear_seconds(sizes, False) for sizes in probes]

    monkeypatch.setattr(latency, "time_probes", time_probes)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return calls


def test_measurements_are_cached(measured: list[int], tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    first = measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment())
    assert measure_costs(pico_config("bert", num_hidden_layers=2), tokenizer, PAIRS[::-1], Deployment()) == first
    assert len(measured) == 1
    (file,) = (tmp_path / "cache" / "latency").iterdir()
    assert "texts" not in file.read_text() and PAIRS[3][0] not in file.read_text()
    measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment(), cache_folder=tmp_path / "other")
    assert len(measured) == 2


CHANGES: dict[str, dict] = {
    "threads": {"deployment": Deployment(options=RankerOptions(threads=7))},
    "batch": {"deployment": Deployment(options=RankerOptions(batch_tokens=77))},
    "requests": {"deployment": Deployment(documents_per_request=5)},
    "runtime": {"deployment": Deployment("onnxruntime")},
    "multiple": {"ffn_multiple": 8},
    "model": {"config": pico_config("bert", hidden_size=64)},
    "family": {"config": pico_config("roberta")},
    "activation": {"config": pico_config("bert", hidden_act="relu")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_conditions_are_measured_anew(change: str, measured: list[int], tokenizer: BertTokenizerFast) -> None:
    usual = {"config": pico_config("bert"), "tokenizer": tokenizer, "pairs": PAIRS, "deployment": Deployment()}
    measure_costs(**usual)
    measure_costs(**usual | CHANGES[change])
    measure_costs(**usual)
    assert len(measured) == 2


def test_texts_are_conditions(measured: list[int], tokenizer: BertTokenizerFast) -> None:
    def pair(words: int) -> tuple[str, str]:
        return " ".join(["ba"] * words), " ".join(["be"] * words)

    mixes = [[pair(8), pair(8)], [pair(1), pair(15)], [pair(40), pair(40)], [pair(80), pair(80)]]
    for pairs in mixes * 2:
        measure_costs(pico_config("bert"), tokenizer, pairs, Deployment())
    # The first two mixes have as many characters, the last two as many tokens: tokenizing what is cut off takes time.
    assert len(measured) == len(mixes)


def test_graphs_and_versions_are_conditions(
    measured: list[int], tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = [
        Deployment("onnxruntime"),
        Deployment("onnxruntime", first_token=False),
        Deployment("torch"),
        Deployment("onnxruntime", DynamicQuantizationConfig()),
        Deployment("onnxruntime", DynamicQuantizationConfig(per_channel=False)),
        Deployment("onnxruntime", StaticQuantizationConfig()),
    ]
    for deployment in graphs * 2:
        measure_costs(pico_config("bert"), tokenizer, PAIRS, deployment)
    assert len(measured) == len(graphs)
    assert measured[0] > measured[1]  # a cheaper last layer is measured apart
    monkeypatch.setattr(latency, "versions", lambda: {"onnxruntime": "0.0"})
    measure_costs(pico_config("bert"), tokenizer, PAIRS, graphs[0])
    assert len(measured) == len(graphs) + 1


def without_part(record: dict) -> str:
    del record["table"]["ffn"]
    return json.dumps(record)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda record: "{",
        lambda record: "[]",
        lambda record: json.dumps({**record, "format": 0}),
        lambda record: json.dumps({**record, "table": {**record["table"], "ffn": {"many": 1.0}}}),
        without_part,
    ],
)
def test_a_damaged_record_is_measured_again(
    spoiled: Callable[[dict], str],
    measured: list[int],
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment())
    (file,) = (tmp_path / "cache" / "latency").iterdir()
    file.write_text(spoiled(json.loads(file.read_text())))
    with caplog.at_level(logging.WARNING):
        assert measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment()) == first
    assert "measuring again" in caplog.text
    assert len(measured) == 2
    measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment())
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HFCOMPRESS_CACHE": "/a"}, "/a/latency"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/hfcompress/latency"),
        ({}, "/home/me/.cache/hfcompress/latency"),
    ],
)
def test_cache_folder(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HFCOMPRESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert latency.default_cache_folder() == Path(folder)


def test_real_probes_give_a_complete_table(
    tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SAMPLE_TOKENS", 200)
    table = measure_costs(
        pico_config("bert"), tokenizer, PAIRS, Deployment(options=ONE_THREAD), tmp_path, ffn_multiple=8, progress=False
    )
    assert list(table.attention) == [0, 1, 2, 4] and list(table.ffn) == [0, 8, 16, 64]
    full = table.of_plan(current_plan(make_pico()))
    assert 0 < table.fixed < table.of_plan(uneven_plan()) < full < 1
    (record,) = (json.loads(file.read_text()) for file in tmp_path.iterdir())
    assert CostTable(**record["table"]).fixed == table.fixed


def test_measurements_that_are_refused(tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no texts to time"):
        measure_costs(pico_config("bert"), tokenizer, [], Deployment())
    with pytest.raises(DataError, match="no texts to time"):
        time_rankers([], [], 1)
    with pytest.raises(RecipeError, match="torch does not run"):
        Deployment("torch", DynamicQuantizationConfig())
    with pytest.raises(RecipeError, match="int8-static for openvino"):
        Deployment("onnxruntime", OpenVINOQuantizationConfig())
    with pytest.raises(RecipeError, match="documents_per_request"):
        Deployment(documents_per_request=0)
    monkeypatch.setattr(openvino_backend, "is_available", lambda: False)
    with pytest.raises(MissingExtraError, match=r"hfcompress\[openvino\]"):
        measure_costs(pico_config("bert"), tokenizer, PAIRS, Deployment("openvino"))
