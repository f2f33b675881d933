"""The recipe of a whole run on a pico model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class FinishedRun(NamedTuple):
    """The folder of a run, and its output."""

    out: Path
    printed: list[str]
    errors: list[str]


PACKED = {"runtime": "torch", "bits": 6, "group_size": 16, "scope": "all"}


QUICK = {"epochs": 2, "learning_rate": 1e-3, "queries_per_batch": 8}


def recipe_for(inputs: Path) -> dict:
    artifacts: list[dict] = [{"runtime": "onnxruntime", "mode": mode} for mode in ("dynamic", "static")]
    return {
        "name": "pico",
        "data": {"sets": [str(inputs / "words")], "candidates": 6},
        "teacher": {"model": str(inputs / "encoder"), "max_length": 32, "train": {"optimization": QUICK}},
        "prune": {
            "target_macs": 0.5, "ffn_multiple": 8, "calibration_queries": 12, "search_steps": 3,
            "vocabulary": {"min_count": 8, "characters": "corpus"}, "weights": {"sparsity": 0.3},
        },
        "recover": {"documents": 4, "random_negatives": 1, "optimization": QUICK},
        "quantize": {
            "artifacts": [*artifacts, {"runtime": "openvino", "optional": True}, PACKED], "calibration_pairs": 16,
        },
        "evaluate": {
            "latency_queries": 2, "rounds": 2, "threads": 1, "cold_start": False, "metrics": ["auc", "ndcg@5"],
        },
    }  # fmt: skip
