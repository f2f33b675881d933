"""Threads and memory follow the limits of a container: quota, CPU set and memory of its control groups."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import psutil
import pytest
import torch
from conftest import WORDS, make_pico
from transformers import BertTokenizerFast

from hfcompress import doctor, pipeline
from hfcompress.cli import main
from hfcompress.data.bm25 import Bm25Index
from hfcompress.evaluation.results import describe_machine
from hfcompress.pruning.prune import prune_model
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import StaticQuantizationConfig
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.training.trainer import RankingTrainer
from hfcompress.utils import cgroups, machine
from hfcompress.utils.cgroups import cpu_quota, cpu_set, memory_available, memory_limit
from hfcompress.utils.machine import Limit, core_limit, limited_torch_threads, thread_count

GIB = 1 << 30
V1_UNLIMITED = "9223372036854771712"
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a fake `/proc/self` and the files of its groups."""

    def make(version: int, path: str, files: dict[str, str], root: str = "/") -> Path:
        process, mount = tmp_path / "self", tmp_path / "sys fs"
        process.mkdir(exist_ok=True)
        controllers = [""] if version == 2 else ["cpu,cpuacct", "cpuset", "memory"]
        groups, mounts = [], ["22 1 0:21 / /proc rw - proc proc rw", "a line that means nothing"]
        for number, controller in enumerate(controllers):
            point = str(mount / controller).replace(" ", "\\040")
            kind = "cgroup2 cgroup2 rw,nsdelegate" if version == 2 else f"cgroup cgroup rw,{controller}"
            groups.append(f"{number}:{controller}:{path}")
            mounts.append(f"3{number} 22 0:2{number} {root} {point} rw,nosuid shared:9 - {kind}")
        (process / "cgroup").write_text("\n".join([*groups, "9:name=systemd:/init.scope", "nonsense"]) + "\n")
        (process / "mountinfo").write_text("\n".join(mounts) + "\n")
        for name, content in files.items():
            file = mount / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content + "\n")
        return process

    return make


@pytest.fixture
def container(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 1.5 of the 64 CPUs of its host and 1 GiB of its memory, of which 256 MiB are used."""
    files = {"cpu.max": "150000 100000", "memory.max": str(GIB), "memory.current": str(GIB // 4)}
    monkeypatch.setattr(cgroups, "PROCESS", tree(2, "/", files))
    for name in ("cpu_quota", "cpu_set", "memory_limit", "memory_available"):
        function = getattr(cgroups, name)
        monkeypatch.setattr(cgroups, name, lambda function=function: function(cgroups.PROCESS))
    host(monkeypatch, 64)


def host(monkeypatch: pytest.MonkeyPatch, cores: int, affinity: int | None = None) -> None:
    """A machine with a number of cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    for name in ("process_cpu_count", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity or cores)), raising=False)


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("150000 100000", 1.5),
        ("200000 100000", 2.0),
        ("50000 100000", 0.5),
        ("200000", 2.0),  # the kernel's default period
        ("max 100000", None),
        ("max", None),
        ("", None),
        ("0 100000", None),
        ("100000 0", None),
        ("-1 100000", None),
        ("two 100000", None),
        ("1.5 1", None),
        ("² 1", None),
        ("150000 100000 more", 1.5),
    ],
)
def test_quota_of_version_2(content: str, cpus: float | None, tree: Tree) -> None:
    assert cpu_quota(tree(2, "/", {"cpu.max": content})) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("150000", "100000", 1.5), ("-1", "100000", None), ("100000", "0", None), ("", "", None), ("?", "100000", None)],
)
def test_quota_of_version_1(quota: str, period: str, cpus: float | None, tree: Tree) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": quota, "cpu,cpuacct/cpu.cfs_period_us": period}
    assert cpu_quota(tree(1, "/", files)) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3", 4), ("0-1,4,6-7", 5), ("5", 1), ("", None), ("all", None), ("0-3,x", None), ("3-", None), ("3-1", None)],
)
@pytest.mark.parametrize(
    ("version", "file"),
    [(2, "cpuset.cpus.effective"), (1, "cpuset/cpuset.effective_cpus"), (1, "cpuset/cpuset.cpus")],
)
def test_cpu_sets(version: int, file: str, text: str, cpus: int | None, tree: Tree) -> None:
    assert cpu_set(tree(version, "/", {file: text})) == cpus


def test_a_group_has_the_limits_of_those_above_it(tree: Tree) -> None:
    files = {
        "cpu.max": "max 100000",
        "pod/cpu.max": "200000 100000",
        "pod/box/cpu.max": "800000 100000",
        "other/cpu.max": "1000 100000",
        "pod/memory.max": str(3 * GIB),
        "pod/memory.current": str(2 * GIB),
        "pod/box/memory.max": str(2 * GIB),
        "pod/box/memory.current": str(GIB // 2),
    }
    process = tree(2, "/pod/box", files)
    assert cpu_quota(process) == 2.0
    assert memory_limit(process) == 2 * GIB and memory_available(process) == GIB  # what others in the pod use counts
    above = {f"memory/{name}": V1_UNLIMITED for name in ("memory.limit_in_bytes", "a/memory.limit_in_bytes")}
    process = tree(1, "/a/b", {**above, "memory/a/b/memory.limit_in_bytes": str(GIB)})
    assert memory_limit(process) == GIB


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_sees_its_group_under_the_path_of_the_host(version: int, tree: Tree) -> None:
    folder = "" if version == 2 else "cpu,cpuacct/"
    files = {"cpu.max": "100000 100000", "cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}
    files = {folder + name: content for name, content in files.items()}
    assert cpu_quota(tree(version, "/docker/abc", files, root="/docker/abc")) == 1.0
    assert cpu_quota(tree(version, "/docker/abc/inner", files, root="/docker/abc")) == 1.0
    assert cpu_quota(tree(version, "/elsewhere", files, root="/docker/abc")) == 1.0  # the group that is mounted
    assert cpu_quota(tree(version, "/../../host", files)) == 1.0  # a process outside the namespace of the mount


def test_file_caches_count_as_available(tree: Tree) -> None:
    files = {"memory.max": str(GIB), "memory.current": str(GIB), "memory.stat": f"anon 5\ninactive_file {GIB // 2}"}
    assert memory_available(tree(2, "/", files)) == GIB // 2
    files = {
        "memory/memory.limit_in_bytes": str(GIB),
        "memory/memory.usage_in_bytes": str(2 * GIB),
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 7",
    }
    assert memory_available(tree(1, "/", files)) == 0


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo", "all", "groups"])
def test_without_the_files_there_is_no_limit(missing: str, tree: Tree, tmp_path: Path) -> None:
    process = tree(2, "/", {} if missing == "groups" else {"cpu.max": "100000 100000", "memory.max": "5"})
    for name in ("cgroup", "mountinfo"):
        if missing in (name, "all"):
            (process / name).unlink()
    for read in (cpu_quota, cpu_set, memory_limit, memory_available):
        assert read(process) is None
        assert read(tmp_path / "absent") is None  # macOS, Windows


def test_files_that_are_not_text(tree: Tree) -> None:
    process = tree(2, "/", {"cpu.max": "1 1"})
    (process.parent / "sys fs" / "cpu.max").write_bytes(b"\xff\xfe\x00")
    (process.parent / "sys fs" / "memory.max").mkdir()
    assert cpu_quota(process) is None and memory_limit(process) is None


@pytest.mark.parametrize(
    ("cores", "affinity", "quota", "cpus", "expected"),
    [
        (64, 64, None, None, Limit(64, "machine")),
        (64, 8, None, None, Limit(8, "affinity")),
        (64, 64, 1.5, None, Limit(2, "CPU quota")),
        (64, 64, 0.2, None, Limit(1, "CPU quota")),
        (64, 2, 3.5, None, Limit(2, "affinity")),
        (64, 64, None, 4, Limit(4, "cpuset")),
        (2, 2, 16.0, 8, Limit(2, "machine")),
    ],
)
def test_the_least_of_all_limits_counts(
    cores: int, affinity: int, quota: float | None, cpus: int | None, expected: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, cores, affinity)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cgroups, "cpu_set", lambda: cpus)
    assert core_limit() == expected and thread_count() == expected.amount
    assert thread_count(7) == 7  # what is asked for


def test_systems_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, 8)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: None)
    monkeypatch.setattr(cgroups, "cpu_set", lambda: None)
    assert thread_count() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count() == 1
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)  # Python 3.13 and newer
    assert core_limit().amount == 3


def test_doctor_names_the_limits_that_bind(container: None, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    monkeypatch.setattr(doctor, "PROBES", ())
    found = doctor.diagnose()
    assert (found.cores, found.cores_limited_by, found.machine_cores) == (2, "CPU quota", 64)
    assert (found.memory_gb, found.memory_limited_by, found.free_gb) == (1.1, "memory limit", 0.8)
    assert found.machine_memory_gb == round(psutil.virtual_memory().total / 1e9, 1)
    main(["doctor"])
    text = " ".join(capsys.readouterr().out.split())  # type: ignore[attr-defined]
    assert "2 cores of 64 (limited by CPU quota)" in text
    assert "1.1 GB of memory (0.8 free; memory limit of the container, the machine has" in text
    monkeypatch.setattr(cgroups, "PROCESS", Path("absent"))
    host(monkeypatch, 64)
    main(["doctor"])
    text = " ".join(capsys.readouterr().out.split())  # type: ignore[attr-defined]
    assert "64 cores," in text and "limit" not in text.partition("VNNI")[0]


def test_reports_name_what_the_process_may_use(container: None) -> None:
    found = describe_machine()
    assert (found.cores, found.memory_gb) == (2, 1.1)


def test_rankers_and_bm25_use_as_many_threads(
    container: None, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TorchRanker(make_pico(), tokenizer).threads == 2
    index = Bm25Index(WORDS)
    asked = {}
    retrieve = index._index.retrieve

    def recorded(*args: object, **options: object) -> object:
        asked.update(options)
        return retrieve(*args, **options)

    monkeypatch.setattr(index._index, "retrieve", recorded)
    index.retrieve({"q": WORDS[0]}, WORDS, 2)
    assert asked["n_threads"] == 2


def test_pytorch_uses_as_many_threads_within_the_block_only(container: None) -> None:
    torch.set_num_threads(4)
    with pytest.raises(KeyError), limited_torch_threads():
        assert torch.get_num_threads() == 2
        raise KeyError
    assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    with limited_torch_threads():
        assert torch.get_num_threads() == 1  # fewer, as OMP_NUM_THREADS may ask for


@pytest.mark.parametrize("entry", ["run", "compress", "prune_model", "quantize", "train"])
def test_every_way_into_pytorch_limits_its_threads(
    entry: str, container: None, tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfcompress.compress import compress as compress_module
    from hfcompress.pruning import prune
    from hfcompress.quantization import quantizer
    from hfcompress.training import trainer

    class Reached(Exception):
        """The work has begun."""

    seen = []

    def work(*_: object, **__: object) -> None:
        seen.append((torch.get_num_threads(), threading.current_thread().name))
        raise Reached

    nothing = object()
    calls: dict[str, tuple[object, str, Callable[[], object]]] = {
        "run": (pipeline, "Workspace", lambda: pipeline.run(nothing, tmp_path)),
        "compress": (compress_module, "Workspace", lambda: compress_module.compress("m", [], tmp_path, nothing)),
        "prune_model": (prune, "_checked_targets", lambda: prune_model(make_pico(), *[nothing] * 4)),
        "quantize": (quantizer, "check_configs", lambda: RankerQuantizer(nothing, tokenizer).quantize(tmp_path)),
        "train": (trainer.Trainer, "train", lambda: RankingTrainer(make_pico()).train()),
    }
    module, name, call = calls[entry]
    monkeypatch.setattr(module, name, work)
    torch.set_num_threads(4)
    with pytest.raises(Reached):
        call()
    assert seen == [(2, "MainThread")] and torch.get_num_threads() == 4


@pytest.mark.parametrize("calibration", ["minmax", "percentile"])
def test_calibration_of_onnx_runtime_uses_as_many_threads(
    calibration: str, container: None, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx_backend.export_onnx(make_pico(num_hidden_layers=1), tokenizer)
    batches = calibration_batches(tokenizer, [("ba de", " ".join(WORDS[:9]))] * 3)
    threads, session = [], onnxruntime.InferenceSession

    def recorded(*args: object, **options: object) -> onnxruntime.InferenceSession:
        opened = session(*args, **options)
        threads.append(opened.get_session_options().intra_op_num_threads)
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    onnx_backend.quantize(graph, StaticQuantizationConfig(calibration=calibration), batches)
    assert threads and set(threads) == {2}


def test_only_one_function_counts_cores() -> None:
    """Others that ask the machine would ignore a container."""
    package = Path(machine.__file__).parents[1]
    asking = ("cpu_count(", "sched_getaffinity(", "virtual_memory(", "n_threads=-1")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in asking)
    }
    assert found == {"utils/machine.py", "doctor.py"}  # the doctor shows the machine beside what may be used of it
