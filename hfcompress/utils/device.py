"""The device that PyTorch computes on. accelerate chooses it; all other modules take a device, or follow a model's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import psutil
import torch
from torch import Tensor

from hfcompress.errors import DeviceError, HfCompressError, OutputError
from hfcompress.utils.machine import available_memory, cpu_name, memory_limit, trains_in_bf16
from hfcompress.utils.settings import DEVICE_PATTERN

if TYPE_CHECKING:
    from accelerate import PartialState

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
CPU, CUDA = "cpu", "cuda"
CHOSEN_VARIABLE, CPU_VARIABLE = "ACCELERATE_TORCH_DEVICE", "ACCELERATE_USE_CPU"  # which accelerate reads and sets
PROCESSES_VARIABLE = "WORLD_SIZE"  # set by accelerate launch and torchrun
NAMES = "auto, cpu, cuda, cuda:N or mps"
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""Names of the precisions that a PyTorch model runs in, in reports, by the names of PyTorch."""


def process_state() -> PartialState:
    """Accelerate's state of this process: its device, its number and that of all processes of an `accelerate launch`.

    The first call in a launched process joins it to the others.
    """
    from accelerate import PartialState

    return PartialState(cpu=_cpu_only() or not torch.accelerator.is_available())


def require_one_process() -> None:
    """Check that this process was not launched together with others, which would write the same files.

    Raises:
        OutputError: It was.
    """
    if (processes := int(os.environ.get(PROCESSES_VARIABLE) or 1)) > 1:
        raise OutputError(
            "Several processes cannot make a run together",
            value=f"{processes} processes ({PROCESSES_VARIABLE})",
            expected="one process, which uses one device",
            remedy="start it without accelerate launch or torchrun; teachers score and trainers train in several "
            "processes, as in scripts/distill.py",
        )


def torch_device(name: str = "auto") -> torch.device:
    """The device of a name.

    Args:
        name: `auto` for accelerate's choice: an accelerator where there is one, in a launched process the one that is
            its own; or `cpu`, `cuda` (the current GPU), `cuda:N` or `mps`.

    Raises:
        DeviceError: There is no such device here.
    """
    if not re.fullmatch(DEVICE_PATTERN, name):
        raise DeviceError(
            "There is no device of this name", value=name, expected=NAMES, remedy="correct --device, or device"
        )
    if name == "auto":
        return _with_index(_automatic())
    if name.startswith("cuda"):
        _require_gpu(name)
    elif name == "mps" and not torch.backends.mps.is_available():
        raise _missing(name, "a Mac with Apple silicon and macOS 14 or newer, and PyTorch for it")
    if name == "cuda" and process_state().num_processes > 1:
        return process_state().device
    return _with_index(torch.device(name))


def shared_out(work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """Results of a function for all items, in their order. The processes of an `accelerate launch` share the items.

    Args:
        work: The function; its results can be pickled.
        items: The items, the same in each process.

    Raises:
        HfCompressError: What `work` raised, in all processes, so that none waits for another.
    """
    state = process_state()
    if state.num_processes == 1:
        return [work(item) for item in items]
    from accelerate.utils import gather_object

    own: list[ResultT] = []
    error: HfCompressError | None = None
    try:
        own = [work(item) for item in items[state.process_index :: state.num_processes]]
    except HfCompressError as found:
        error = found
    parts: list[tuple[list[ResultT], HfCompressError | None]] = gather_object([(own, error)])
    for failure in filter(None, (failure for _, failure in parts)):
        raise failure
    return [parts[index % len(parts)][0][index // len(parts)] for index in range(len(items))]


def gpu_names() -> list[str]:
    """Names of the GPUs that PyTorch can use, by index."""
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


class Accelerator(NamedTuple):
    """A device besides the CPU.

    Attributes:
        device: Its name in PyTorch.
        name: Name of the hardware.
        memory_gb: Its memory in 10^9 bytes; None where it is that of the machine.
        half: Precision of training by default: `bf16`, `fp16` or `fp32`.
    """

    device: str
    name: str
    memory_gb: float | None
    half: str


def accelerators() -> list[Accelerator]:
    """The devices besides the CPU that PyTorch can use here."""
    found = []
    for index, name in enumerate(gpu_names()):
        memory = round(torch.cuda.get_device_properties(index).total_memory / 1e9, 1)
        half = str(half_precision(torch.device("cuda", index))).removeprefix("torch.")
        found.append(Accelerator(f"cuda:{index}", name, memory, DTYPES.get(half, "fp32")))
    if torch.backends.mps.is_available():
        found.append(Accelerator("mps", cpu_name(), None, "fp32"))
    return found


class Memory(NamedTuple):
    """Memory of a device in bytes.

    Attributes:
        free: What is available to this process.
        total: The most that it could be, with the swap space of the machine.
    """

    free: int
    total: int


def memory_of(device: str | torch.device) -> Memory:
    """Memory of a device: that of a GPU, else that of the machine within the limit of its container."""
    if torch.device(device).type == "cuda":
        return Memory(*torch.cuda.mem_get_info(device))
    return Memory(available_memory(), memory_limit().amount + psutil.swap_memory().total)


def device_title(device: str | torch.device) -> str:
    """A device in reports: `cpu`, or its name in PyTorch and that of the hardware, such as `cuda:0 (NVIDIA L4)`."""
    device = torch.device(device)
    if device.type == CPU:
        return CPU
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({cpu_name()})" if device.type == "mps" else str(device)


def synchronize(device: str | torch.device) -> None:
    """Wait until a device has done all that it was asked for; a clock that is read before would stop too early."""
    if torch.device(device).type != CPU:
        torch.accelerator.synchronize(device)


def half_precision(device: str | torch.device) -> torch.dtype | None:
    """The 16-bit type for autocast that a device computes faster than fp32: bf16 where it can, else fp16 on a GPU.

    None on a CPU without AMX, where fp32 is faster, and on `mps`.
    """
    device = torch.device(device)
    if device.type == CPU:
        return torch.bfloat16 if trains_in_bf16() else None
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return None


def float64_device(device: torch.device) -> torch.device:
    """Where float64 is computed for tensors of a device: there, or on the CPU for `mps`, which has no float64."""
    return torch.device(CPU) if device.type == "mps" else device


def moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _automatic() -> torch.device:
    state = process_state()
    if state.num_processes > 1 or _cpu_only():
        return state.device
    chosen = os.environ.get(CHOSEN_VARIABLE)
    return torch.device(chosen) if chosen else state.default_device


def _cpu_only() -> bool:
    return os.environ.get(CPU_VARIABLE, "").lower() in ("1", "true", "yes", "on", "y", "t")


def _with_index(device: torch.device) -> torch.device:
    """The device by the name that its tensors have."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device(device.type, torch.cuda.current_device())


def _require_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        raise _missing(
            name,
            "an NVIDIA or AMD GPU with its driver"
            if built
            else f"a build of PyTorch for GPUs, which {torch.__version__} is not (https://pytorch.org/get-started)",
        )
    _, _, index = name.partition(":")
    found = gpu_names()
    if index and int(index) >= len(found):
        raise _missing(name, "one of these GPUs, or another value of CUDA_VISIBLE_DEVICES")


def _missing(name: str, needed: str) -> DeviceError:
    gpus = [f"cuda:{index} ({title})" for index, title in enumerate(gpu_names())]
    others = ["mps"] if torch.backends.mps.is_available() else []
    return DeviceError(
        f"PyTorch cannot use the device {name} here",
        value=name,
        expected=f"auto, or one of the devices of this machine: {', '.join([CPU, *gpus, *others])}",
        remedy=f"choose one of them with --device or device; {name} needs {needed}",
    )
