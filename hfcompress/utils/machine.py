"""Facts about the machine: CPU, instruction sets, threads, memory, versions."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from hfcompress.utils import cgroups

REPORTED_FLAGS = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
# CPUs whose instructions sum products of 8-bit numbers in 16 bits, which overflow unless weights have 7 bits.
SATURATING_TARGETS = ("avx2", "avx512")
REPORTED_PACKAGES = (
    "hfcompress", "torch", "transformers", "optimum", "tokenizers", "onnx", "onnxruntime", "openvino", "nncf",
)  # fmt: skip


def cpu_flags() -> list[str]:
    """Instruction sets of this CPU that matter for the speed of int8 and bf16."""
    capabilities = torch.cpu.get_capabilities()
    return [flag for flag in REPORTED_FLAGS if capabilities.get(flag)]


def trains_in_bf16() -> bool:
    """Whether bf16 autocast makes training on the CPU faster: only AMX does.

    With AVX512-BF16 alone, conversions cost more than the products save, and without it bf16 is many times slower.
    """
    return "amx_bf16" in cpu_flags()


def has_vnni() -> bool:
    """Whether the CPU accumulates int8 products in int32 without saturation."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"}.intersection(cpu_flags()))


def cpu_target() -> str:
    """CPU target of the int8 settings: `avx2`, `avx512`, `avx512_vnni` or `arm64`."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    if has_vnni():
        return "avx512_vnni"
    return "avx512" if "avx512_f" in cpu_flags() else "avx2"


class Limit(NamedTuple):
    """How much of a resource this process may use.

    Attributes:
        amount: Number of cores, or bytes of memory.
        source: What limits it: `machine`, `affinity`, `cpuset`, `CPU quota` or `memory limit`.
    """

    amount: int
    source: str


def core_limit() -> Limit:
    """The cores that this process may use: the least of those of the machine, its CPU affinity and its container.

    A quota is a share of time, so that of 1.5 CPUs counts as 2 cores.
    """
    affinity = None
    if hasattr(os, "process_cpu_count"):  # Python 3.13 or newer
        affinity = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    quota = cgroups.cpu_quota()
    found = {
        "machine": os.cpu_count() or affinity or 1,
        "affinity": affinity,
        "cpuset": cgroups.cpu_set(),
        "CPU quota": math.ceil(quota) if quota else None,
    }
    return min((Limit(count, source) for source, count in found.items() if count), key=lambda limit: limit.amount)


def thread_count(threads: int = 0) -> int:
    """Number of threads to use; 0 stands for all cores that this process may use: see `core_limit`."""
    return threads or core_limit().amount


@contextmanager
def limited_torch_threads() -> Iterator[None]:
    """Within the block, PyTorch uses at most `thread_count()` threads: its own default ignores a container's quota."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, thread_count()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_name() -> str:
    """Model name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_limit() -> Limit:
    """The memory that this process may use: the least of that of the machine and that of its container."""
    machine, container = psutil.virtual_memory().total, cgroups.memory_limit()
    if container is not None and container < machine:
        return Limit(container, "memory limit")
    return Limit(machine, "machine")


def memory_gb() -> float:
    """Memory that this process may use in GB: see `memory_limit`."""
    return round(memory_limit().amount / 1e9, 1)


def available_memory() -> int:
    """Bytes of memory that are available to this process, within the limit of its container."""
    machine, container = psutil.virtual_memory().available, cgroups.memory_available()
    return int(machine if container is None else min(machine, container))


def available_memory_gb() -> float:
    """Memory that is available to this process in GB: see `available_memory`."""
    return round(available_memory() / 1e9, 1)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect results."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
