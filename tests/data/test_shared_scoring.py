"""Processes that are launched together share teacher scoring: the scores of one process, in the same order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from conftest import write_beir

from hfcompress.data.lists import training_lists, with_scores
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import DataStep
from hfcompress.utils import device
from hfcompress.utils.device import shared_out

SCRIPT = """
import json, sys
from pathlib import Path
from hfcompress.data import lists
from hfcompress.errors import DataError
from hfcompress.data.load import load_data
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import DataStep
from hfcompress.utils.device import process_state, shared_out

lists.LISTS_PER_CHUNK = 7
data = load_data(DataStep(sets=[sys.argv[1]]), progress=False)
made = lists.training_lists(data, documents=4, random_negatives=1, seed=0)
ranker = load_ranker(sys.argv[2], "torch", device="auto")
scored = lists.with_scores(made, ranker, progress=False)["teacher_scores"][:]
state = process_state()

def fails_once(item):
    if item == 1:
        raise DataError("One item fails", expected="none", remedy="none")
    return item

try:
    shared_out(fails_once, range(4))
    error = ""
except DataError as found:
    error = str(found)
result = {"scores": scored, "processes": state.num_processes, "error": error}
Path(sys.argv[3], f"{state.process_index}.json").write_text(json.dumps(result))
state.destroy_process_group()
"""


def test_one_process_does_all() -> None:
    assert shared_out(lambda item: 2 * item, range(5)) == [0, 2, 4, 6, 8]
    assert shared_out(str, []) == []


@pytest.mark.parametrize("items", [0, 1, 2, 7])
@pytest.mark.parametrize("processes", [2, 3])
def test_results_come_back_in_order(processes: int, items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes: each one's part is computed here, and gathered as accelerate does."""

    class State:
        num_processes = processes
        process_index = 0

    def gather(_own: object) -> list[object]:
        return [([10 * item for item in range(items)[rank::processes]], None) for rank in range(processes)]

    monkeypatch.setattr(device, "process_state", State)
    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    assert shared_out(lambda item: 10 * item, range(items)) == [10 * item for item in range(items)]


@pytest.mark.soak
def test_two_processes_give_the_scores_of_one(
    word_data: RankingData, cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.data.lists.LISTS_PER_CHUNK", 7)
    folder = write_beir(tmp_path / "words", word_data)
    lists = training_lists(load_data(DataStep(sets=[str(folder)]), progress=False), 4, 1, seed=0)
    wanted = with_scores(lists, load_ranker(cross_encoder, "torch"), progress=False)["teacher_scores"]
    script = tmp_path / "score.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(script), str(folder), str(cross_encoder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["processes"] == 2 and found["scores"] == list(wanted)
        assert found["error"].startswith("One item fails")  # in both, and neither waits for the other


def test_a_ranker_with_parallel_calls_gives_the_scores_in_order(
    word_data: RankingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls end in another order than they begin, as on a cluster; after an error, those that have not begun do not."""
    monkeypatch.setattr("hfcompress.data.lists.LISTS_PER_CHUNK", 7)
    lists = training_lists(word_data, 4, 1, seed=0)
    together, asked = Barrier(3), []

    class Slow:
        parallel_calls = 1

        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            asked.append(pairs)
            if self.parallel_calls == 3 and len(asked) <= 3:
                together.wait(30)  # three calls at the same time
                time.sleep(0.02 * (pairs[0][0] == lists["query"][0]))
            return np.array([len(document) for _, document in pairs], dtype=np.float32)

    alone = with_scores(lists, Slow(), progress=False)["teacher_scores"][:]
    asked.clear()
    monkeypatch.setattr(Slow, "parallel_calls", 3)
    assert with_scores(lists, Slow(), progress=False)["teacher_scores"][:] == alone and len(asked) == 6
    monkeypatch.setattr(Slow, "score", lambda self, pairs: np.full(len(pairs), np.nan))
    with pytest.raises(DataError, match="NaN"):
        with_scores(lists, Slow(), progress=False)
