"""A small report of a run, and its parts, for tests of the card."""

from __future__ import annotations

from typing import Any

from hfcompress.report.report import Artifact, DataSummary, Delta, FirstStage, Latency, Machine, RunReport, Step
from hfcompress.report.structure import LayerKept, PruningSummary

MARGIN = 0.01
QUERIES = {f"query-{number}": number / 10 for number in range(8)}


def example_delta(mean: float, verdict: str) -> Delta:
    low = {"non-inferior": -0.009, "inferior": mean - 0.01, "inconclusive": -0.02}[verdict]
    high = -0.011 if verdict == "inferior" else 0.02
    return Delta(
        mean=mean,
        ci_low=low,
        ci_high=high,
        confidence=0.95,
        margin=MARGIN,
        verdict=verdict,
        power=0.41,  # type: ignore[arg-type]
    )


def example_artifact(name: str, runtime: str, speedup: float, delta: Delta | None, **changes: Any) -> Artifact:
    mean = delta.mean if delta else 0.0
    values: dict[str, Any] = {
        "name": name,
        "path": "onnx/model_quantized.onnx",
        "runtime": runtime,
        "precision": "int8-static" if "int8" in name else "fp32",
        "size_bytes": 14_900_000 if delta else 91_000_000,
        "parameters": 9_000_000,
        "quality": {"ndcg@10": 0.5674 + mean, "mrr@10": 0.5301 + mean, "map": 0.53, "recall@10": 0.71},
        "per_query": QUERIES,
        "agreement": {"kendall_tau": 0.912, "overlap@10": 0.953} if delta else {},
        "delta": delta,
        "latency": Latency(
            docs_per_second=96.25 * speedup,
            p50_ms=208 / speedup,
            p95_ms=300 / speedup,
            threads=2,
            batch=4096,
            candidates=20,
        ),
        "speedup": speedup,
        "tied_share": 0.0004 if delta else 0.0,
    }
    return Artifact(**values | changes)


def example_report(**changes: Any) -> RunReport:
    """A small report of a run with a teacher of three layers and two artifacts."""
    fast = {**QUERIES, "query-0": 0.5, "query-7": 0.25}
    values: dict[str, Any] = {
        "name": "quickstart",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "model_type": "bert",
        "license": "apache-2.0",
        "max_length": 128,
        "recipe": "name: quickstart  # a comment\nprune: {heads: 0.5}\n",
        "primary_metric": "ndcg@10",
        "data": DataSummary(
            name="api-search",
            fingerprint="0123456789abcdef" * 4,
            license="PSF-2.0",
            language="en",
            publish_texts=True,
            queries={"train": 4000, "dev": 200, "test": 8},
            documents=13000,
            candidates_per_query=20.0,
            mean_tokens=63.2,
            truncated_share=0.031,
            notes=["Docstrings of the standard library."],
        ),
        "pruning": PruningSummary(
            importance="fisher",
            layers_of=3,
            layers=[
                LayerKept(layer=0, heads=[0, 3], heads_of=4, ffn=768, ffn_of=1536),
                LayerKept(layer=2, heads=[], heads_of=4, ffn=64, ffn_of=1536),
            ],
            head_importance=[[0.4, 0.1, 0.2, 0.9], [0.1] * 4, [0.0] * 4],
            encoder_macs_kept=0.34,
            custom_code=True,
        ),
        "first_stage": FirstStage(name="BM25", quality={"ndcg@10": 0.519, "mrr@10": 0.48}, per_query=QUERIES),
        "teacher": example_artifact("teacher", "torch", 1.0, None, path="/somewhere/private/teacher"),
        "artifacts": [
            example_artifact("student-onnx", "onnxruntime", 2.6, example_delta(0.0031, "non-inferior")),
            example_artifact(
                "student-int8", "openvino", 9.3, example_delta(0.0013, "non-inferior"), path="openvino", per_query=fast
            ),
        ],
        "steps": [
            Step(name="train", seconds=312.4, reused=True),
            Step(name="recover", seconds=4000.0, reused=False),
            Step(name="evaluate", seconds=3.21, reused=False),
        ],
        "machine": Machine(
            cpu="Example CPU",
            flags=["fpu", "avx2", "avx512_vnni"],
            cores=2,
            memory_gb=7.6,
            platform="Linux 6.1",
            versions={"torch": "2.13.0", "onnxruntime": "1.32.0"},
        ),
    }
    return RunReport(**values | changes)
