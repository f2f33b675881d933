"""Facts about the machine: CPU, instruction sets, threads, memory, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import torch

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


def has_bf16() -> bool:
    """Whether the CPU has bf16 instructions; without them, bf16 autocast is many times slower than fp32."""
    return bool({"avx512_bf16", "amx_bf16"}.intersection(cpu_flags()))


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


def thread_count(threads: int = 0) -> int:
    """Number of threads to use; 0 stands for all cores that this process may use."""
    if threads:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Model name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_gb() -> float:
    """Physical memory in GB."""
    return round(psutil.virtual_memory().total / 1e9, 1)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect results."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
