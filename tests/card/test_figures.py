"""The figures: valid images, the same bytes every time, and every shape of model that a plan can leave."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from hfcompress.card.figures import COLOURS, INK, pareto, structure
from hfcompress.report.report import Artifact, DataSummary, Delta, FirstStage, Latency, Machine, RunReport
from hfcompress.report.structure import LayerKept, PruningSummary


def artifact(name: str, speedup: float, delta: Delta | None) -> Artifact:
    return Artifact(
        name=name,
        path=name,
        runtime="torch",
        precision="fp32",
        size_bytes=1,
        parameters=1,
        quality={"ndcg@10": 0.5 + (delta.mean if delta else 0.0)},
        per_query={"q": 0.5},
        agreement={},
        delta=delta,
        latency=Latency(docs_per_second=100 * speedup, p50_ms=1, p95_ms=1, threads=1, batch=1, candidates=1),
        speedup=speedup,
        tied_share=0.0,
    )


def report(artifacts: int) -> RunReport:
    delta = Delta(
        mean=-0.004, ci_low=-0.012, ci_high=0.003, confidence=0.95, margin=0.01, verdict="inconclusive", power=0.5
    )
    return RunReport(
        name="example",
        base_model="example",
        model_type="bert",
        license="",
        max_length=64,
        recipe="",
        primary_metric="ndcg@10",
        data=DataSummary(
            name="data",
            fingerprint="",
            license="",
            language="en",
            publish_texts=False,
            queries={},
            documents=1,
            candidates_per_query=1,
            mean_tokens=1,
            truncated_share=0,
            notes=[],
        ),
        pruning=None,
        first_stage=FirstStage(name="BM25", quality={"ndcg@10": 0.4}, per_query={}),
        teacher=artifact("teacher", 1.0, None),
        artifacts=[artifact(f"student-{number}", 2.0 + number, delta) for number in range(artifacts)],
        steps=[],
        machine=Machine(cpu="", flags=[], cores=1, memory_gb=1, platform="", versions={}),
    )


def summary(
    layers_of: int, heads_of: int, importance: list[list[float]], layers: list[LayerKept] | None = None
) -> PruningSummary:
    if layers is None:
        layers = [LayerKept(layer=0, heads=[0], heads_of=heads_of, ffn=32, ffn_of=64)]
    return PruningSummary(
        importance="fisher",
        layers_of=layers_of,
        layers=layers,
        head_importance=importance,
        encoder_macs_kept=0.5,
        custom_code=True,
    )


def pixels(content: bytes) -> np.ndarray:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return imread(io.BytesIO(content), format="png")


@pytest.mark.parametrize("artifacts", [0, 1, 12])
def test_pareto_draws_any_number_of_artifacts(artifacts: int) -> None:
    content = pareto(report(artifacts))
    image = pixels(content)
    assert image.shape[0] > 400 and image.shape[1] > 800
    assert image[0, 0, 3] == 0  # a transparent ground
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 10
    assert content == pareto(report(artifacts))


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117", "#0b0f19"], ids=["white", "GitHub dark", "Hub dark"])
def test_text_and_points_read_on_light_and_dark_pages(page: str) -> None:
    def contrast(colour: str) -> float:
        low, high = sorted((luminance(to_rgb(colour)), luminance(to_rgb(page))))
        return (high + 0.05) / (low + 0.05)

    assert contrast(INK) > 4
    assert min(map(contrast, COLOURS)) > 3


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(rcParams)
    pareto(report(1))
    assert dict(rcParams) == before


def test_pareto_takes_an_interval_that_does_not_hold_the_mean() -> None:
    # A BCa interval need not hold the mean of a very skewed sample, and matplotlib refuses negative bars.
    skewed = Delta(mean=-0.1, ci_low=-0.3, ci_high=-0.11, confidence=0.95, margin=0.01, verdict="inferior", power=0.1)
    changed = report(1)
    changed.artifacts[0].delta = skewed
    pixels(pareto(changed))


@pytest.mark.parametrize(
    "pruning",
    [
        summary(2, 4, [[0.1, 0.2, 0.3, 0.4]] * 2),
        summary(2, 4, []),  # no importance was measured
        summary(3, 2, [[0.0, 0.0]] * 3),  # all equal
        summary(2, 2, [[1e-9, 1.0], [1e-3, 1e-5]]),  # orders of magnitude apart
        summary(2, 4, [[0.5] * 4, [0.5] * 2]),  # a teacher that was pruned before
        summary(1, 2, [[0.1, 0.2]], [LayerKept(layer=0, heads=[], heads_of=2, ffn=0, ffn_of=64)]),
        summary(2, 2, [[0.1, 0.2]] * 2, []),  # nothing left
        summary(24, 16, [[0.1] * 16] * 24),
    ],
)
def test_structure_draws_every_shape(pruning: PruningSummary) -> None:
    content = structure(pruning)
    pixels(content)
    assert content == structure(pruning)


def test_structure_shows_what_was_removed() -> None:
    importance = [[0.1, 0.9]] * 2
    whole = [LayerKept(layer=row, heads=[0, 1], heads_of=2, ffn=64, ffn_of=64) for row in range(2)]
    fewer_heads = [whole[0].model_copy(update={"heads": [1]}), whole[1]]
    fewer_neurons = [whole[0].model_copy(update={"ffn": 32}), whole[1]]
    images = {structure(summary(2, 2, importance, layers)) for layers in (whole, fewer_heads, fewer_neurons, whole[1:])}
    assert len(images) == 4
