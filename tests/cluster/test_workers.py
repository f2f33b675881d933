"""Two nodes of Ray, one of which is killed in mid-run: the bytes and scores of one process."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest
from conftest import IDENTITY, ROOT, WORDS, make_pico
from datasets import Dataset, load_from_disk
from run_samples import recipe_for
from transformers import BertTokenizerFast

from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.cluster.connection import STATISTICS_VARIABLE, RaySettings, ray_cluster
from hfcompress.data.lists import score_lists, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ClusterError, DataError, ModelError
from hfcompress.evaluation.ray_ranker import open_ranker, ranker_workers, ray_ranker
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import Recipe
from hfcompress.scoring.opening import ScoreSettings
from hfcompress.scoring.shard_folder import WORK_FOLDER
from hfcompress.scoring.shards import score_shard
from hfcompress.steps.checks import check
from hfcompress.steps.context import RunContext
from hfcompress.steps.inputs import load_run_data
from hfcompress.steps.workspace import Workspace

pytest.importorskip("ray", reason="Ray is not installed: pip install 'hfcompress[ray]'")
pytestmark = pytest.mark.soak

SHARDS, ROWS = 10, 3000
STORE_BYTES = 80 << 20
SECONDS = 600.0  # of waiting, on a machine that does other work


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "model"
    save_checkpoint(folder, make_pico(), tokenizer, IDENTITY, 32)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node without CPUs, and two nodes with one each; nothing of it is sent elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATISTICS_VARIABLE, "0")
        patch.setenv("RAY_raylet_start_wait_time_s", f"{SECONDS:.0f}")
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                started.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            yield started
        finally:
            started.shutdown()


def test_lists_have_the_scores_of_one_process(
    model: Path, cluster: Any, word_data: RankingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.data.lists.LISTS_PER_CHUNK", 7)
    lists = training_lists(word_data, 4, 1, seed=0)
    wanted = score_lists(lists, load_ranker(model, "torch", options=RankerOptions(1)), progress=False)
    settings = RaySettings(cluster.address)
    with ray_ranker(settings, str(model)) as ranker:
        assert ranker.parallel_calls == 2 and len(ranker.score([])) == 0
        assert score_lists(lists, ranker, False, tmp_path / "scores", "model") == wanted
        monkeypatch.setattr(ranker, "score", lambda pairs: pytest.fail("scores that are known"))
        assert score_lists(lists, ranker, False, tmp_path / "scores", "model") == wanted


def test_errors_of_workers_come_back(model: Path, cluster: Any, tmp_path: Path) -> None:
    loading = {"runtime": "torch", "file": None}
    with ray_cluster(RaySettings(cluster.address)) as connection:
        for name, words in ((str(tmp_path / "gone"), "has no model"), (str(model), "has another model")):
            opening = connection.workers("cpu", 1, open_ranker, name, "another fingerprint", loading)
            with pytest.raises(ModelError, match=words), opening:
                pass
        with ranker_workers(connection, "cpu", str(model), loading, 1) as workers:
            for _ in range(2):  # the only worker is there for the next call
                with pytest.raises(DataError, match="no such file"):
                    workers.call(score_shard, tmp_path / "gone", tmp_path / "out", tmp_path, "jsonl", ScoreSettings())
        with pytest.raises(ClusterError, match="cannot use this device"):
            connection.device("mps", "torch")
        assert connection.device("auto", "torch") == "cpu"


def test_teachers_of_a_recovery(
    run_inputs: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.data.lists.LISTS_PER_CHUNK", 7)

    def scored(name: str, **changes: object) -> Dataset:
        settings = {**recipe_for(run_inputs), "teacher": {"model": str(run_inputs / "encoder"), "max_length": 32}}
        settings["recover"] = {**settings["recover"], "teachers": [{}, {"bm25": True, "weight": 0.1}], **changes}
        recipe = Recipe.model_validate(settings)
        check(recipe)
        workspace = Workspace(tmp_path / name, resume=True)
        workspace.begin()
        context = RunContext(recipe, load_run_data(recipe, False), workspace, False)
        return load_from_disk(str(pipeline.score(context, pipeline.obtain_teacher(context)).path))

    alone, together = scored("alone"), scored("together", engine="ray", ray={"address": cluster.address})
    assert together["document_ids"][:] == alone["document_ids"][:]
    for one, other in zip(alone["teacher_scores"], together["teacher_scores"], strict=True):
        assert other == pytest.approx(one, abs=1e-5)  # this process may use more threads


def test_mining(model: Path, run_inputs: Path, cluster: Any, tmp_path: Path) -> None:
    command = ["data", "mine", str(run_inputs / "words"), "--model", str(model), "--depth", "10", "--out"]
    main([*command, str(tmp_path / "alone")])
    main([*command, str(tmp_path / "out"), "--engine", "ray", "--address", cluster.address])
    for name in ("mine.json", "bm25/train.tsv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_killed_node_and_a_killed_worker_leave_no_trace(
    model: Path, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node is killed while both of its cluster score, and then the worker that is left."""
    source, out, done = write_shards(tmp_path / "pairs"), tmp_path / "out", []
    command = ["score", str(model), "--input", str(source), "--output"]
    main([*command, str(tmp_path / "alone"), "--threads", "1"])
    capsys.readouterr()

    def kill() -> None:
        wait_for(lambda: len(busy()) == 2)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        before = len(finished())
        wait_for(lambda: len(finished()) > before and len(busy()) == 1)
        busy()[0].kill()
        done.append(len(finished()))

    def finished() -> list[Path]:
        return list((out / WORK_FOLDER).glob("done/*"))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    main([*command, str(out), "--engine", "ray", "--address", cluster.address])
    killer.join(SECONDS)
    assert done and done[0] < SHARDS
    errors = capsys.readouterr().err
    assert "2 workers with 1 CPU each, on 3 nodes" in errors
    assert errors.count("a worker of the cluster was lost") == 2
    assert f"scored {SHARDS * (ROWS - 1):,} pairs" in errors and f"{SHARDS} bad lines" in errors
    found = files(out)
    assert len(found) == SHARDS and found == files(tmp_path / "alone")


def write_shards(folder: Path) -> Path:
    """Shards with a bad row each."""
    rng = random.Random(0)
    folder.mkdir()
    for number in range(SHARDS):
        queries = [" ".join(rng.choices(WORDS, k=4)) for _ in range(ROWS)]
        queries[5] = ""
        documents = [" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) for _ in range(ROWS)]
        table = pyarrow.table({"id": range(ROWS), "query": queries, "document": documents})
        pyarrow.parquet.write_table(table, folder / f"part-{number:02}.parquet")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def busy() -> list[psutil.Process]:
    """Processes of workers that score, by the title that Ray gives them."""
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if "ray::_Worker.call" in " ".join(each.info["cmdline"] or ())]


def wait_for(ready: Any) -> None:
    end = time.monotonic() + SECONDS
    while not ready() and time.monotonic() < end:
        time.sleep(0.005)
