"""Rankers in other processes: forked after use, spawned, pickled, copied, and in the workers of a Dataset's map."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WORDS, make_pico
from ranker_samples import RANKERS, RUNTIMES, pairs_of, ranker_classes, requests
from transformers import BertTokenizerFast

from hfcompress.errors import HfCompressError, HubUnavailableError, MissingExtraError, ModelError
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]
WORKS_AFTER_FORK = {"TorchRanker", "OnnxRuntimeRanker", "Bm25Ranker"}
HAS_FORK = hasattr(os, "fork")
# Starting processes takes seconds, and what is pickled and what forks find is tried on every runtime without them.
ONE_RUNTIME = [each if each == "onnxruntime" else pytest.param(each, marks=pytest.mark.soak) for each in RUNTIMES]

# Uses all rankers, forks for each, and prints what the child found: with the inherited ranker, then with a new one.
FORKING = """
import json, os, signal, sys
sys.path[:0] = {path!r}
import ranker_samples
from hfcompress.errors import ModelError

folder, asked = ranker_samples.Path({folder!r}), ranker_samples.requests()
rankers = {{name: ranker_samples.RANKERS[name](folder) for name in {names!r}}}
scores_of = lambda ranker: [ranker.score(ranker_samples.pairs_of(*request)) for request in asked]
scores = {{name: scores_of(ranker) for name, ranker in rankers.items()}}
for name, ranker in rankers.items():
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        text = os.fdopen(reader).read()
        print(json.dumps([name, json.loads(text or "null"), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
        continue
    signal.alarm(30)  # ends a child that waits for threads that do not exist
    found = []
    for load in (lambda: ranker, lambda: ranker_samples.RANKERS[name](folder)):
        try:
            found.append(max(float(abs(a - b).max()) for a, b in zip(scores[name], scores_of(load()))))
        except ModelError as error:
            found.append(str(error))
    os.write(writer, json.dumps(found).encode())
    os.close(writer)
    sys.exit()  # as a server's worker does: destructors of the runtimes run, too
"""


@pytest.fixture(scope="module")
def children(repository: Path) -> dict[str, tuple[list[float | str] | None, int]]:
    """What the children of one process found, and their exit codes, by the name of the ranker's class."""
    names = sorted(name for name in ranker_classes() if name != "OpenVinoRanker" or is_available())
    source = FORKING.format(path=[str(Path(__file__).parents[1])], names=names, folder=str(repository))
    settings = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=200, env=settings)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (found, code) for name, found, code in rows}


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
@pytest.mark.parametrize("name", sorted(ranker_classes()))
def test_a_fork_after_use(name: str, children: dict[str, tuple[list[Any] | None, int]]) -> None:
    if name not in children:
        pytest.skip("OpenVINO is not installed")
    found, code = children[name]
    assert code == 0 and found is not None
    if name in WORKS_AFTER_FORK:
        # PyTorch sums in another order with another number of threads.
        assert max(found) <= (1e-5 if name == "TorchRanker" else 0)
    else:
        for message in found:
            assert "forked process" in message and "--preload" in message and "spawn" in message


def test_a_ranker_that_was_scoring_at_the_time_of_the_fork(repository: Path) -> None:
    ranker = load_ranker(repository, "onnxruntime")
    with ranker._call():
        ranker.after_fork()  # as in the child
    with pytest.raises(ModelError, match="another thread was scoring"):
        ranker.score(PAIRS)
    with pytest.raises(ModelError, match="another thread was scoring"):
        list(ranker.forward(iter([])))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda ranker: pickle.loads(pickle.dumps(ranker))])
def test_copies_are_loaded_anew(how: Any, runtime: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.chdir(repository.parent)
    ranker = load_ranker(repository.name, runtime=runtime, max_length=20, options=RankerOptions(1, 128))
    monkeypatch.chdir("/")
    other = how(ranker)
    assert type(other) is type(ranker) and other is not ranker and other.tokenizer is not ranker.tokenizer
    assert other.tokenizer.model_max_length == 20 and (other.threads, other.batch_tokens) == (1, 128)
    np.testing.assert_array_equal(other.score(PAIRS), ranker.score(PAIRS))
    assert other.rank("ba", ["be", "ba"]) == ranker.rank("ba", ["be", "ba"])
    np.testing.assert_array_equal(copy.deepcopy(other).score(PAIRS), ranker.score(PAIRS))


def test_bm25_is_copied(repository: Path) -> None:
    ranker = RANKERS["Bm25Ranker"](repository)
    asked = pairs_of(*requests()[5])
    for other in (copy.deepcopy(ranker), pickle.loads(pickle.dumps(ranker))):
        np.testing.assert_array_equal(other.score(asked), ranker.score(asked))


def test_a_ranker_of_objects_refuses_copies(tokenizer: BertTokenizerFast) -> None:
    ranker = TorchRanker(make_pico(), tokenizer)
    for how in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(ModelError, match=r"cannot be pickled or copied.*'TorchRanker'.*load_ranker\(folder\)"):
            how(ranker)


def _score_in_worker(ranker: BatchedRanker, results: Any) -> None:
    results.put(ranker.score(PAIRS))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ONE_RUNTIME)
def test_a_spawned_process(runtime: Any, repository: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    ranker = load_ranker(repository, runtime)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    worker = spawn.Process(target=_score_in_worker, args=(ranker, results))
    worker.start()
    np.testing.assert_array_equal(results.get(timeout=120), ranker.score(PAIRS))
    worker.join(60)
    assert worker.exitcode == 0


# Scores a column in two worker processes, after use in this one; a second map is read from the cache.
MAPPING = """
from datasets import Dataset
from datasets.fingerprint import Hasher
from hfcompress.errors import ModelError
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker

if __name__ == "__main__":
    ranker = load_ranker({folder!r}, {runtime!r}, options=RankerOptions(2))
    texts = {texts!r}
    expected = ranker.score([("ba", text) for text in texts])
    score = lambda rows: {{"score": ranker.score([("ba", text) for text in rows["text"]])}}
    assert Hasher.hash(score) == Hasher.hash(score)
    again = load_ranker({folder!r}, {runtime!r}, options=RankerOptions(2))
    assert Hasher.hash(again) == Hasher.hash(ranker) != Hasher.hash(load_ranker({folder!r}, {runtime!r}, max_length=9))
    data = Dataset.from_dict({{"text": texts}})
    try:
        mapped = data.map(score, batched=True, batch_size=100, num_proc=2)
        assert max(abs(mapped["score"] - expected)) < 0.3, "scores"  # other batches: dynamic int8 depends on them
        print("works")
    except ModelError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_FORK, reason="workers of map are forked")
@pytest.mark.parametrize("runtime", ONE_RUNTIME)
def test_workers_of_a_map(runtime: str, repository: Path, tmp_path: Path) -> None:
    if runtime == "openvino" and not is_available():
        pytest.skip("OpenVINO is not installed")
    script = tmp_path / "mapping.py"
    texts = [document for _, document in PAIRS * 2]
    script.write_text(MAPPING.format(folder=str(repository), runtime=runtime, texts=texts), encoding="utf-8")
    settings = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=settings)
    assert done.returncode == 0, done.stderr
    if runtime == "openvino":
        assert "cannot be used in a forked process" in done.stdout and "spawn" in done.stdout
    else:
        assert "works" in done.stdout


def test_fingerprints_follow_the_weights(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "copy")
    before = pickle.dumps(load_ranker(folder, "torch"))
    assert pickle.dumps(load_ranker(str(folder), "torch")) == before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert pickle.dumps(load_ranker(folder, "torch")) != before


@pytest.mark.parametrize(
    "error",
    [
        ModelError("A problem", value=Path, expected="this", remedy="that"),
        MissingExtraError("openvino", "openvino", "Ranking"),
        HubUnavailableError("Busy", expected="an answer", remedy="wait", status=503, retry_after=2.0),
    ],
)
def test_errors_reach_other_processes(error: HfCompressError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error) and str(other) == str(error) and other.remedy == error.remedy
    assert vars(other).keys() == vars(error).keys()
