"""Recipes as plain data, and what several tests do with them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hfcompress.errors import RecipeError
from hfcompress.recipe import Recipe

MINIMAL: dict[str, Any] = {"name": "small", "data": {"sets": ["api-search"]}, "teacher": {"model": "some/model"}}
FULL: dict[str, Any] = {
    "name": "full-1.0_b",
    "seed": 7,
    "data": {
        "sets": ["api-search", "data/ä"],
        "candidates": 50,
        "max_queries": {"train": 10, "dev": 5, "test": 3},
        "score_text": {"bm25_max": 12.5, "separator": "</s>"},
    },
    "teacher": {
        "model": "package:a/b",
        "base_model": "some/Model",
        "max_length": 256,
        "train": {
            "loss": "pointwise",
            "hard_negatives": 0,
            "random_negatives": 3,
            "queries": 900,
            "optimization": {
                "epochs": 2,
                "queries_per_batch": 12,
                "accumulation": 3,
                "learning_rate": 3.5e-05,
                "warmup": 0.0,
                "weight_decay": 0.0,
                "max_grad_norm": 0.5,
                "dropout": 0.1,
                "r_drop": 0.5,
                "adversarial": 0.25,
                "freeze_layers": 0,
                "precision": "fp32",
                "evaluations": 4,
                "patience": 1,
            },
        },
    },
    "prune": {
        "importance": "magnitude",
        "heads": 0.25,
        "ffn": 0.0,
        "layers": [0, 2, 5],
        "spread": "uniform",
        "ffn_multiple": 8,
        "calibration_queries": 16,
        "search_steps": 5,
        "sequential": False,
        "structure": "free",
        "runtime": "onnxruntime",
        "vocabulary": {"min_count": 3, "keep": ["ünder", "##s"], "characters": "corpus"},
        "weights": {"pattern": "2:4", "gradual": 0.5},
    },
    "recover": {
        "documents": 4,
        "random_negatives": 1,
        "queries": 800,
        "loss": {"margin_mse": 0.0, "listwise_kl": 1.0, "hard": 0.0, "temperature": 2.0},
        "optimization": {"epochs": 3},
    },
    "quantize": {
        "artifacts": [
            {"runtime": "onnxruntime", "mode": "dynamic", "per_channel": False, "reduce_range": True},
            {"runtime": "onnxruntime", "mode": "static", "reduce_range": "auto"},
            {"runtime": "openvino", "smooth_quant_alpha": -1.0, "optional": True},
            {"runtime": "torch", "method": "round", "bits": 4, "group_size": 64, "scope": "all"},
        ],
        "calibration_pairs": 32,
    },
    "evaluate": {
        "margin": 0.02,
        "confidence": 0.9,
        "threads": 2,
        "batch_tokens": 1024,
        "latency_queries": 5,
        "rounds": 2,
    },
    "publish": {"license": "mit"},
}


def changed(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `settings` with the value at a dotted path set; sections on the way are made."""
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(settings))
    target: Any = copy
    *parents, last = path.split(".")
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target.setdefault(parent, {})
    target[int(last) if isinstance(target, list) else last] = value
    return copy


def read(settings: dict[str, Any], *overrides: str) -> Recipe:
    """The recipe of settings, by way of YAML."""
    return Recipe.from_yaml(yaml.safe_dump(settings, allow_unicode=True), list(overrides))


def same(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes have the same settings, wherever they were read from."""
    return first.model_dump() == second.model_dump()


def fault(text: str | dict[str, Any], *overrides: str) -> str:
    """The message of the error for a recipe."""
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text if isinstance(text, str) else yaml.safe_dump(text), list(overrides))
    assert caught.value.expected and caught.value.remedy
    return str(caught.value)


def assert_named(path: str, value: Any, words: str) -> None:
    """Check that the full recipe with another value at a dotted path is refused, with the key in the message."""
    message = fault(changed(FULL, path, value))
    assert words in message, message
    assert path.split(".")[-1] in message
