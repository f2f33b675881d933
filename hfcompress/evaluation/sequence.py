"""The order in which artifacts are tested against their teacher, set before the test split is seen."""

from __future__ import annotations

from collections.abc import Sequence

from hfcompress.evaluation.metrics import PRIMARY_METRIC
from hfcompress.report.report import Artifact


def default_sequence(names: Sequence[str], quantized: Sequence[str]) -> list[str]:
    """The order without measurements: quantized artifacts as the recipe lists them, then the others.

    Args:
        names: Names of all artifacts.
        quantized: Names of those that are graphs for a runtime.
    """
    return [*quantized, *(name for name in names if name not in quantized)]


def measured_sequence(artifacts: Sequence[Artifact], quantized: Sequence[str], margin: float) -> list[str]:
    """The order by measurements on dev: what is best to deploy, then the others by their quality.

    Best to deploy is the fastest of the quantized artifacts whose loss is within the margin; if there is none, the one
    of them with the smallest loss. Without quantized artifacts, the same holds for all artifacts.

    Args:
        artifacts: Measurements on dev, the teacher first.
        quantized: Names of the artifacts that are graphs for a runtime.
        margin: Largest acceptable loss.
    """
    teacher, *others = artifacts
    losses = {each.name: teacher.quality[PRIMARY_METRIC] - each.quality[PRIMARY_METRIC] for each in others}
    eligible = [each for each in others if each.name in quantized] or others
    within = [each for each in eligible if losses[each.name] <= margin]
    if within:
        first = max(within, key=lambda each: each.speedup).name
    else:
        first = min((each.name for each in eligible), key=lambda name: losses[name])
    return [first, *sorted((name for name in losses if name != first), key=lambda name: losses[name])]
