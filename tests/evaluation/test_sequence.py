"""The order of the tests: the artifact to deploy first, by measurements on dev or by the recipe."""

from __future__ import annotations

from report_samples import example_report

from hfcompress.evaluation.sequence import default_sequence, measured_sequence
from hfcompress.report.report import Artifact

TEACHER = example_report().teacher


def measured(name: str, loss: float, speedup: float) -> Artifact:
    quality = {**TEACHER.quality, "ndcg@10": TEACHER.quality["ndcg@10"] - loss}
    return TEACHER.model_copy(update={"name": name, "quality": quality, "speedup": speedup})


def sequence(*artifacts: Artifact, graphs: tuple[str, ...] = ("openvino", "dynamic", "static")) -> list[str]:
    return measured_sequence([TEACHER, *artifacts], graphs, 0.01)


def test_the_fastest_graph_within_the_margin_is_first_and_the_others_follow_by_quality() -> None:
    fp32, openvino = measured("fp32", 0.001, 9.0), measured("openvino", 0.009, 5.0)
    dynamic, static = measured("dynamic", 0.02, 8.0), measured("static", 0.008, 4.0)
    assert sequence(fp32, openvino, dynamic, static) == ["openvino", "fp32", "static", "dynamic"]


def test_without_a_graph_within_the_margin_the_best_graph_is_first() -> None:
    fp32, openvino, dynamic = (
        measured("fp32", 0.0, 2.0),
        measured("openvino", 0.03, 5.0),
        measured("dynamic", 0.02, 4.0),
    )
    assert sequence(fp32, openvino, dynamic) == ["dynamic", "fp32", "openvino"]


def test_without_graphs_all_artifacts_are_eligible() -> None:
    slow, fast = measured("slow", 0.0, 2.0), measured("fast", 0.005, 3.0)
    assert sequence(slow, fast, graphs=()) == ["fast", "slow"]


def test_without_measurements_graphs_come_first_as_the_recipe_lists_them() -> None:
    assert default_sequence(["fp32", "a", "packed", "b"], ["a", "b"]) == ["a", "b", "fp32", "packed"]
