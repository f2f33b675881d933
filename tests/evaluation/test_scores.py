"""Scores of fp32 models: computed once, by what agrees with PyTorch, and known to whoever asks next."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import IDENTITY, WORDS, families, make_pico, stock_plan
from transformers import BertTokenizerFast

from hfcompress.data.lists import score_lists, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation import score_store, scores
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import scores_of_split
from hfcompress.evaluation.score_store import ScoreStore, pair_keys, scores_folder
from hfcompress.evaluation.scores import Fp32Scorer, split_scores
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_INT8
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization import exact
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker


def some_pairs(count: int = 40) -> list[tuple[str, str]]:
    """Different pairs, from one word to more than fits."""
    rng = random.Random(0)
    return [(" ".join(rng.sample(WORDS, 3)), " ".join(rng.choices(WORDS, k=1 + number))) for number in range(count)]


PAIRS = some_pairs()


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of pairs of each call in which PyTorch computes."""
    counted: list[int] = []
    score = TorchRanker.score

    def counting(self: TorchRanker, pairs: list[tuple[str, str]]) -> np.ndarray:
        counted.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(TorchRanker, "score", counting)
    return counted


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level("INFO", logger="hfcompress")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture
def graphs_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a graph even for a few pairs of a pico model, and take it whatever its speed."""
    for name in ("FEWEST_PAIRS", "EXPORT_PAYS_SECONDS", "OPENING_PAYS_SECONDS"):
        monkeypatch.setattr(scores, name, 0)
    faster = exact.ExactSample.faster
    monkeypatch.setattr(
        exact.ExactSample, "faster", lambda self, ranker, seconds, repeats=1: faster(self, ranker, 1e9, repeats)
    )


@pytest.mark.parametrize("family", families("bert", "modernbert"))
def test_every_family_agrees_with_pytorch(
    family: str, tokenizer: BertTokenizerFast, tmp_path: Path, graphs_pay: None, lines: Callable[[], str]
) -> None:
    own = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32)
    save_checkpoint(tmp_path, apply_plan(make_pico(family), stock_plan()), own, IDENTITY, 32)
    expected = load_ranker(tmp_path, "torch").score(PAIRS)
    np.testing.assert_allclose(Fp32Scorer(str(tmp_path)).score(PAIRS), expected, atol=1e-4)
    assert f"{'OpenVINO' if is_available() else 'ONNX Runtime'} fp32 computes" in lines()


def test_a_second_scorer_computes_nothing(cross_encoder: Path, forwards: list[int]) -> None:
    first = Fp32Scorer(str(cross_encoder)).score([*PAIRS, PAIRS[0]])
    assert forwards == [len(PAIRS)] and first[0] == first[-1]  # the pair that is there twice is computed once
    again = Fp32Scorer(str(cross_encoder))
    np.testing.assert_array_equal(again.score(PAIRS[::-1]), first[:-1][::-1])
    assert (forwards, again.computed) == ([len(PAIRS)], 0) and not len(again.score([]))
    more = again.score([("ba", "fi"), *PAIRS])
    assert forwards == [len(PAIRS), 1] and again.computed == 1
    np.testing.assert_array_equal(more[1:], first[:-1])


def test_other_lengths_weights_and_texts_are_other_scores(
    cross_encoder: Path, tokenizer: BertTokenizerFast, forwards: list[int]
) -> None:
    Fp32Scorer(str(cross_encoder)).score(PAIRS)
    for scorer in (Fp32Scorer(str(cross_encoder), 8), Fp32Scorer(str(cross_encoder), 16)):
        scorer.score(PAIRS)
    save_checkpoint(cross_encoder, make_pico(seed=1), tokenizer, IDENTITY, 32)
    found = Fp32Scorer(str(cross_encoder)).score(PAIRS)
    assert forwards == [len(PAIRS)] * 4
    np.testing.assert_allclose(found, load_ranker(cross_encoder, "torch").score(PAIRS), atol=1e-6)
    keys = pair_keys([("a", "bc"), ("ab", "c"), ("a", "bc "), ("", "abc"), ("abc", "")])
    assert len(set(keys)) == 5


def test_a_prompt_is_part_of_the_model(cross_encoder: Path, forwards: list[int]) -> None:
    before = Fp32Scorer(str(cross_encoder)).score(PAIRS)
    (cross_encoder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "ba de "}, "default_prompt_name": "query", "model_type": "CrossEncoder"}'
    )
    assert not np.allclose(Fp32Scorer(str(cross_encoder)).score(PAIRS), before)
    assert len(forwards) == 2


def score_in_process(folder: str) -> list[float]:
    return Fp32Scorer(folder).score(PAIRS).tolist()


@pytest.mark.slow
def test_several_processes_share_a_store(cross_encoder: Path, forwards: list[int]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(score_in_process, (str(cross_encoder),))
    assert Fp32Scorer(str(cross_encoder)).score(PAIRS).tolist() == theirs and not forwards


@pytest.mark.parametrize("content", [b"no database" * 1000, b"", None])
def test_a_damaged_store_is_made_anew(
    content: bytes | None, cross_encoder: Path, forwards: list[int], lines: Callable[[], str]
) -> None:
    expected = Fp32Scorer(str(cross_encoder)).score(PAIRS)
    (file,) = scores_folder().glob("*.sqlite")
    if content is None:  # damaged behind the header
        content = file.read_bytes()[:200] + b"\xff" * (file.stat().st_size - 200)
    file.write_bytes(content)
    np.testing.assert_array_equal(Fp32Scorer(str(cross_encoder)).score(PAIRS), expected)
    assert len(forwards) == 2 and ("made anew" in lines()) is bool(content)
    np.testing.assert_array_equal(Fp32Scorer(str(cross_encoder)).score(PAIRS), expected)
    assert len(forwards) == 2


def test_a_store_that_cannot_be_used_is_left_out(
    cross_encoder: Path, forwards: list[int], lines: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(score_store, "LOCK_SECONDS", 0.05)
    expected = Fp32Scorer(str(cross_encoder)).score(PAIRS)
    (file,) = scores_folder().glob("*.sqlite")
    lock = sqlite3.connect(file, isolation_level="EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    np.testing.assert_array_equal(Fp32Scorer(str(cross_encoder)).score(PAIRS), expected)
    lock.close()
    assert len(forwards) == 2 and "is left out: database is locked" in lines()
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HFCOMPRESS_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(Fp32Scorer(str(cross_encoder)).score(PAIRS), expected)
    assert len(forwards) == 3


def test_values_that_are_no_scores_are_not_known(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path / "some.sqlite")
    store.put({b"good": 1.5, b"nan": float("nan"), b"inf": float("inf")})
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT INTO scores VALUES (?, ?)", (b"text", "high"))
    assert store.get([b"good", b"nan", b"inf", b"text", b"none"]) == {b"good": 1.5}


def test_the_least_recently_used_models_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [ScoreStore(tmp_path / f"{name}.sqlite") for name in "abc"]
    keys = [number.to_bytes(16, "big") for number in range(2000)]
    for store in stores[:2]:
        store.put(dict.fromkeys(keys, 1.0))
    monkeypatch.setattr(score_store, "MOST_BYTES", 2 * stores[0].path.stat().st_size)
    assert len(stores[0].get(keys)) == len(keys)  # used after the second
    stores[2].put(dict.fromkeys(keys, 1.0))
    assert [store.path.is_file() for store in stores] == [True, False, True]


def test_no_text_is_stored(cross_encoder: Path) -> None:
    Fp32Scorer(str(cross_encoder)).score([("very secret query", "very secret document")])
    assert not any(b"secret" in path.read_bytes() for path in scores_folder().iterdir())


def test_a_graph_that_disagrees_is_not_used(
    repository: Path, graphs_pay: None, lines: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "fp32_graph", lambda folder: folder / ONNX_INT8)
    found = Fp32Scorer(str(repository)).score(PAIRS)
    np.testing.assert_allclose(found, load_ranker(repository, "torch").score(PAIRS), atol=1e-4)
    assert "PyTorch goes on, as ONNX Runtime fp32 differs" in lines()


def test_the_graph_of_the_folder_is_taken(
    repository: Path, graphs_pay: None, lines: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_exported", lambda *_: pytest.fail("there is a graph already"))
    before = sorted(repository.rglob("*"))
    Fp32Scorer(str(repository)).score(PAIRS)
    assert "fp32 computes" in lines() and sorted(repository.rglob("*")) == before


def test_a_model_that_cannot_be_exported_is_scored_in_pytorch(
    cross_encoder: Path, graphs_pay: None, lines: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no operator for this")

    monkeypatch.setattr(exact, "_exported", fails)
    found = Fp32Scorer(str(cross_encoder)).score(PAIRS)
    np.testing.assert_allclose(found, load_ranker(cross_encoder, "torch").score(PAIRS), atol=1e-6)
    assert "PyTorch goes on" in lines() and "no operator for this" in lines()


@pytest.mark.slow
def test_an_exported_graph_is_deleted_with_its_scorer(
    cross_encoder: Path, graphs_pay: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = sorted(cross_encoder.rglob("*"))
    scorer = Fp32Scorer(str(cross_encoder))
    scorer.score(PAIRS)
    assert list((tmp_path / "temporary").rglob("model.*")) and sorted(cross_encoder.rglob("*")) == before
    del scorer
    assert not list((tmp_path / "temporary").rglob("model.*"))


def test_scores_that_were_computed_elsewhere_are_taken_over(cross_encoder: Path, forwards: list[int]) -> None:
    first = Fp32Scorer(str(cross_encoder)).score(PAIRS[:10])
    scorer = Fp32Scorer(str(cross_encoder))
    scorer.add(PAIRS[:20], [7.0] * 20)
    found = scorer.score(PAIRS)
    assert forwards == [10, 20] and found[10:20].tolist() == [7.0] * 10
    np.testing.assert_array_equal(found[:10], first)


def test_few_pairs_are_scored_in_pytorch(cross_encoder: Path, forwards: list[int], lines: Callable[[], str]) -> None:
    Fp32Scorer(str(cross_encoder)).score(PAIRS)
    assert forwards == [len(PAIRS)] and "PyTorch" not in lines()


def test_many_small_calls_count_together(cross_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "FEWEST_PAIRS", 30)
    scorer = Fp32Scorer(str(cross_encoder))
    for start in range(0, 40, 10):
        assert (scorer._sample is None) is (start < 30)
        scorer.score(PAIRS[start : start + 10])
    assert scorer._sample is not None


def test_a_split_is_scored_as_before(cross_encoder: Path, repository: Path, word_data: RankingData) -> None:
    teacher = Candidate.teacher(str(cross_encoder), "teacher")
    found = split_scores(teacher, word_data, "test", max_length=32, progress=False)
    expected = scores_of_split(load_ranker(cross_encoder, "torch"), word_data, "test")
    assert list(found) == list(expected)
    for query, values in expected.items():
        assert found[query] == pytest.approx(values, abs=1e-4)
    int8 = Candidate("int8", str(repository), ONNX_INT8, "onnxruntime", "int8")
    assert (
        split_scores(int8, word_data, "dev", max_length=32, progress=False).keys()
        == word_data.splits["dev"].qrels.keys()
    )
    assert len(list(scores_folder().glob("*.sqlite"))) == 1  # of the teacher: int8 depends on the batch


def test_training_lists_are_scored_once(cross_encoder: Path, word_data: RankingData, forwards: list[int]) -> None:
    lists = training_lists(word_data, 4, 1, seed=0)
    first = score_lists(lists, Fp32Scorer(str(cross_encoder)), progress=False)
    computed = sum(forwards)
    assert score_lists(lists, Fp32Scorer(str(cross_encoder)), progress=False) == first and sum(forwards) == computed
