"""The teacher on the devices and in the precisions of artifacts, so that speeds of two devices never make a ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hfcompress.evaluation.benchmark import BenchmarkResult
from hfcompress.evaluation.candidate import Candidate
from hfcompress.rankers.base import BatchedRanker
from hfcompress.report.schema import Interval
from hfcompress.report.speed import DeviceTeacher
from hfcompress.utils.device import DTYPES

Place = tuple[str, str]
"""A device and a precision."""


def missing_teachers(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The teacher in PyTorch on the device of each candidate, in fp32 and in its precision, where it is not there yet.

    Args:
        candidates: All candidates, the teacher first. If that is no model in PyTorch, there is no other teacher.
    """
    teacher = candidates[0]
    if teacher.runtime != "torch" or teacher.is_packed:
        return []
    places: dict[Place, None] = {}
    for each in candidates[1:]:
        places |= dict.fromkeys([(each.device, "float32"), (each.device, each.dtype)])
    places.pop(_place(teacher), None)
    return [
        replace(
            teacher, name=f"teacher, {DTYPES[dtype]} on {device}", precision=DTYPES[dtype], device=device, dtype=dtype
        )
        for device, dtype in places
    ]


@dataclass(frozen=True)
class TimedTeachers:
    """The teacher of an evaluation, wherever it was timed.

    Attributes:
        candidates: The teacher of the evaluation, and those of `missing_teachers`.
        rankers: Their rankers.
        results: Their times.
        confidence: Confidence level of intervals.
    """

    candidates: Sequence[Candidate]
    rankers: Sequence[BatchedRanker]
    results: Sequence[BenchmarkResult]
    confidence: float

    def speedup(self, candidate: Candidate, result: BenchmarkResult) -> tuple[float, Interval | None]:
        """Speed-up over the teacher in fp32 on the same device, with its interval."""
        places = [_place(each) for each in self.candidates]
        wanted = candidate.device, "float32"
        base = self.results[places.index(wanted) if wanted in places else 0]
        return result.speedup_over(base), result.speedup_interval(base, self.confidence)

    def beside(self, candidate: Candidate, result: BenchmarkResult) -> list[DeviceTeacher]:
        """The other teachers that a candidate is compared with, those of its device in fp32 or in its precision."""
        places = (candidate.device, "float32"), (candidate.device, candidate.dtype)
        each = zip(self.candidates[1:], self.rankers[1:], self.results[1:], strict=True)
        return [
            DeviceTeacher(
                precision=teacher.precision,
                latency=base.latency(ranker),
                speedup=result.speedup_over(base),
                speedup_interval=result.speedup_interval(base, self.confidence),
            )
            for teacher, ranker, base in each
            if _place(teacher) in places
        ]


def _place(candidate: Candidate) -> Place:
    return candidate.device, candidate.dtype
