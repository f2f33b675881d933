"""Devices in the card: where speed was measured, and the teacher that an artifact on a GPU is compared with there."""

from __future__ import annotations

from hfcompress.report.report import Artifact, RunReport
from hfcompress.utils import text as md

CPU = "cpu"


def several(report: RunReport) -> bool:
    """Whether an artifact or the teacher was timed elsewhere than on the CPU, so that devices have to be named."""
    return any(each.device != CPU for each in (report.teacher, *report.artifacts))


def table(report: RunReport) -> str:
    """The comparison with the teacher on each artifact's own device; empty where all ran where the teacher did.

    Speeds of two devices never share a ratio: a GPU is faster than a CPU also without any compression.
    """
    compared = [each for each in report.artifacts if each.device_teachers]
    if not compared:
        return ""
    rows = [
        [
            md.code(artifact.name),
            artifact.device,
            f"teacher, {teacher.precision} PyTorch",
            *(md.number(each.docs_per_second) for each in (artifact.latency, teacher.latency)),
            md.times(teacher.speedup),
        ]
        for artifact in compared
        for teacher in artifact.device_teachers
    ]
    head = ["", "Device", "Against", "docs/s", "docs/s of the teacher", "Speed-up"]
    return (
        f"{md.table(head, rows, right_from=3)}\n\nBoth on the same device, in turns, which waits for each before the "
        "clock is read. Against the teacher in the same precision is what compression adds to 16 bits alone.\n\n"
    )


def baseline(report: RunReport, artifact: Artifact) -> tuple[float, str]:
    """Documents a second of the teacher in fp32 on the device of an artifact, and words for that device."""
    latency, device = artifact.baseline(report.teacher)
    return latency.docs_per_second, "" if device == CPU else f" on {device}"
