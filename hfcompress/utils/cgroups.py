"""Limits of a container on Linux: CPU quota, CPU set and memory of the control groups (cgroups) of this process.

Versions 1 and 2 are read, see https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/. A limit of a group
also binds the groups below it. What is absent or unreadable sets no limit; other systems have no such files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")  # holds `cgroup`, the groups of this process, and `mountinfo`, where they are mounted
VERSION_1, VERSION_2 = "cgroup", "cgroup2"  # file systems
DEFAULT_PERIOD = 100_000  # microseconds


def cpu_quota(process: Path = PROCESS) -> float | None:
    """CPUs' worth of time that this process may use, such as 1.5; None without a quota.

    Args:
        process: Folder of the process in `/proc`.
    """
    limits = [_quota(*_read(folder / "cpu.max").split()[:2]) for folder in _groups("cpu", VERSION_2, process)]
    for folder in _groups("cpu", VERSION_1, process):
        limits.append(_quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
    return min((limit for limit in limits if limit), default=None)


def cpu_set(process: Path = PROCESS) -> int | None:
    """Number of CPUs on which this process may run; None if its groups have no set.

    Args:
        process: Folder of the process in `/proc`.
    """
    files = [folder / "cpuset.cpus.effective" for folder in _groups("cpuset", VERSION_2, process)]
    for folder in _groups("cpuset", VERSION_1, process):
        files += [folder / "cpuset.effective_cpus", folder / "cpuset.cpus"]
    counts = [_cpus(_read(file)) for file in files]
    return min((count for count in counts if count), default=None)


def memory_limit(process: Path = PROCESS) -> int | None:
    """Largest memory of this process and the others in its groups in bytes; None without a limit.

    Args:
        process: Folder of the process in `/proc`.
    """
    return min((limit for limit, _ in _memory(process)), default=None)


def memory_available(process: Path = PROCESS) -> int | None:
    """Bytes up to the limit on memory, with file caches counted as available; None without a limit.

    Args:
        process: Folder of the process in `/proc`.
    """
    return min((max(0, limit - used) for limit, used in _memory(process)), default=None)


def _memory(process: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage in bytes of each group that has a limit."""
    names = {
        VERSION_2: ("memory.max", "memory.current", "inactive_file"),
        VERSION_1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    for version, (limit_file, usage_file, cache) in names.items():
        for folder in _groups("memory", version, process):
            limit = _number(_read(folder / limit_file))
            if limit is not None:
                cached = re.search(rf"^{cache} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
                used = (_number(_read(folder / usage_file)) or 0) - int(cached[1] if cached else 0)
                yield limit, max(0, used)


def _groups(controller: str, version: str, process: Path) -> Iterator[Path]:
    """Folders of this process's group of a controller, and of all groups above it that are visible."""
    for root, point in _mounts(controller, version, process):
        for line in _read(process / "cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" and not controllers if version == VERSION_2 else controller in controllers.split(","):
                group = PurePosixPath(path)
                # A container often sees only its own group, mounted as the root, under the path that the host gives it.
                inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
                yield from (point / folder for folder in (inside, *inside.parents) if ".." not in folder.parts)


def _mounts(controller: str, version: str, process: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """Root group and mount point of each mount of a controller; see proc_pid_mountinfo(5)."""
    for line in _read(process / "mountinfo").splitlines():
        before, _, after = (part.split() for part in line.partition(" - "))
        if len(before) < 5 or len(after) < 3 or after[0] != version:
            continue
        if version == VERSION_2 or controller in after[2].split(","):
            root, point = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), part) for part in before[3:5])
            yield PurePosixPath(root), Path(point)


def _quota(quota: str = "", period: str = "") -> float | None:
    time, every = _number(quota), _number(period) if period else DEFAULT_PERIOD
    return time / every if time and every else None


def _cpus(text: str) -> int | None:
    """Number of CPUs in a list such as `0-3,8`."""
    ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in text.split(",")]
    counts = [int(found[2] or found[1]) - int(found[1]) + 1 if found else 0 for found in ranges]
    return sum(counts) if min(counts) > 0 else None


def _number(text: str) -> int | None:
    """A count; None for `max`, `-1` (both: no limit) and anything else."""
    return int(text) if text.isascii() and text.isdecimal() else None


def _read(file: Path) -> str:
    """Content of a file without white space at its ends; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
