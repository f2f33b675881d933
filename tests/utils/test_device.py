"""The device is accelerate's choice, or one by its name that is there; others are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_pico
from pretend_device import pretend_device, reads
from transformers import BertTokenizerFast

from hfcompress.errors import DeviceError
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils import device as devices
from hfcompress.utils.device import device_title, float64_device, half_precision, synchronize, torch_device

PACKAGE = Path(devices.__file__).parents[1]
CPU_ONLY = not torch.cuda.is_available()
PAIRS = [("ba de fi", "ba de"), ("ba de fi", "lu ma na ki do"), ("go", "sun")]


def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    assert torch_device() == torch_device("auto") == torch_device("cpu") == torch.device("cpu")


def test_auto_is_the_choice_of_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert torch_device("auto") == torch.device("meta")
    assert torch_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")
    assert torch_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", "cpu:0", "meta"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=r"no device of this name.*auto, cpu, cuda, cuda:N or mps.*--device"):
        torch_device(name)


@pytest.mark.skipif(not CPU_ONLY, reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"'{name}'.*auto, or one of the devices of this machine: cpu.*needs a"):
        torch_device(name)


def test_an_index_beyond_the_gpus_names_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: "NVIDIA L4")
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    assert device_title("cuda:1") == "cuda:1 (NVIDIA L4)" and device_title("cpu") == "cpu"
    with pytest.raises(DeviceError, match=r"cpu, cuda:0 \(NVIDIA L4\), cuda:1 \(NVIDIA L4\).*CUDA_VISIBLE_DEVICES"):
        torch_device("cuda:2")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is mps")
def test_mps_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"mps.*Apple silicon"):
        torch_device("mps")


def test_what_a_device_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "trains_in_bf16", lambda: True)
    assert half_precision("cpu") == torch.bfloat16
    monkeypatch.setattr(devices, "trains_in_bf16", lambda: False)
    assert half_precision("cpu") is None and half_precision("mps") is None
    assert float64_device(torch.device("mps")).type == "cpu"
    assert float64_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_only_a_device_that_lags_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waited.append(str(device)))
    synchronize("cpu")
    synchronize("cuda:1")
    assert waited == ["cuda:1"]


# Rankers


def test_a_ranker_scores_on_its_device_and_reads_the_scores_at_once(tokenizer: BertTokenizerFast) -> None:
    many, options = PAIRS * 20, RankerOptions(1, 64)
    wanted = TorchRanker(make_pico(), tokenizer, options=options).score(many)
    with pretend_device() as device:
        ranker = TorchRanker(make_pico().to(device), tokenizer, options=options)
        batches = len(list(ranker.batches(many)))
        reads.clear()
        found = ranker.score(many)
        assert batches > 5 and reads["copies"] == 1
        assert reads["scalars"] <= batches  # transformers asks of each mask whether anything is padded
        assert ranker.score([]).shape == (0,)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_ranker_is_loaded_onto_its_device(cross_encoder: Path) -> None:
    with pretend_device() as device:
        ranker = load_ranker(cross_encoder, "torch", options=RankerOptions(device=str(device)))
        assert isinstance(ranker, TorchRanker) and ranker.model.device == device
        assert [hit.position for hit in ranker.rank(*ranking())] == [
            hit.position for hit in load_ranker(cross_encoder, "torch", device="cpu").rank(*ranking())
        ]


def ranking() -> tuple[str, list[str]]:
    return "ba de fi", [document for _, document in PAIRS]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_ranker_may_compute_in_half_precision(dtype: str, cross_encoder: Path) -> None:
    half, whole = (load_ranker(cross_encoder, "torch", dtype=each) for each in (dtype, "float32"))
    assert isinstance(half, TorchRanker) and half.model.dtype == getattr(torch, dtype)
    difference = np.abs(half.score(PAIRS) - whole.score(PAIRS)).max()
    assert 0 < difference < 0.1


def test_a_device_or_precision_that_a_runtime_has_not_is_refused(
    repository: Path, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match=r"onnxruntime does not run a model in this precision.*float16"):
        load_ranker(repository, "onnxruntime", dtype="float16")
    with pytest.raises(DeviceError, match=r"float32, float16, bfloat16 for torch"):
        load_ranker(cross_encoder, "torch", dtype="int8")
    with pytest.raises(DeviceError, match=r"cannot use the device cuda"):
        load_ranker(cross_encoder, "torch", device="cuda" if CPU_ONLY else "cuda:99")
    monkeypatch.setattr("hfcompress.rankers.load.torch_device", lambda name: torch.device("cuda", 0))
    with pytest.raises(DeviceError, match=r"openvino does not run graphs on cuda"):
        load_ranker(repository, "openvino", device="cuda")
    assert load_ranker(repository, "onnxruntime", device="auto").score(PAIRS).shape == (3,)


def test_providers_of_onnx_runtime(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = load_ranker(repository, "onnxruntime").score(PAIRS)
    options = RankerOptions(providers=("CPUExecutionProvider",))
    np.testing.assert_array_equal(load_ranker(repository, "onnxruntime", options=options).score(PAIRS), wanted)
    refused = "'MissingExecutionProvider'.*one of.*CPUExecutionProvider.*onnxruntime-gpu"
    for providers in (("MissingExecutionProvider",), ("CPUExecutionProvider", "MissingExecutionProvider")):
        with pytest.raises(DeviceError, match=refused):
            load_ranker(repository, "onnxruntime", options=RankerOptions(providers=providers))


@pytest.mark.skipif(not CPU_ONLY, reason="there is a GPU")
def test_a_cuda_device_is_cudas_provider_in_onnx_runtime(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.rankers.load.torch_device", lambda name: torch.device("cuda", 1))
    with pytest.raises(DeviceError, match=r"'CUDAExecutionProvider'"):
        load_ranker(repository, "onnxruntime", device="cuda:1")


def test_a_provider_that_is_there_but_does_not_work_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime opens the graph on the CPU then, with a warning of its own."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    opened: list[object] = []

    class Session:
        def __init__(self, *_args: object, providers: list[object], **_kwargs: object) -> None:
            opened.append(providers)

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    options = RankerOptions(providers=("CUDAExecutionProvider",), device="cuda:1")
    with pytest.raises(DeviceError, match=r"'CUDAExecutionProvider'.*one of CPUExecutionProvider"):
        load_ranker(repository, "onnxruntime", "onnx/model.onnx", options=options)
    assert opened == [[("CUDAExecutionProvider", {"device_id": "1"})]]


# The whole package

FORBIDDEN = {
    r"\.cuda\(": "moves to whatever GPU is the current one",
    r"torch\.(cuda|mps)\.(?!is_bf16)": "asks one kind of device",
    r"(?<!== )[\"'](cuda|mps)(:\d+)?[\"']": "names a GPU",
    r"\.item\(\)": "reads one value at a time",
}


def test_only_the_module_for_devices_knows_kinds_of_devices() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()} ({why})"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(devices.__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for pattern, why in FORBIDDEN.items()
        if re.search(pattern, line)
    ]
    assert not found
