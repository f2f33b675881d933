"""Make Hugging Face rerankers several times faster and smaller, and prove that they still rank as well."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfcompress.data.score_text import text_with_score
    from hfcompress.models.load import load_model
    from hfcompress.models.plan import PruningPlan
    from hfcompress.models.surgery import apply_plan
    from hfcompress.pipeline import run
    from hfcompress.quantization.quantizer import RankerQuantizer
    from hfcompress.rankers.load import load_ranker
    from hfcompress.recipe import LongDocuments, Recipe
    from hfcompress.training.arguments import RankingTrainingArguments
    from hfcompress.training.callbacks import RankingEvalCallback
    from hfcompress.training.gradual import GradualPruningCallback
    from hfcompress.training.quantization_aware import QuantizationAwareCallback
    from hfcompress.training.report import CompressionReportCallback
    from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer
    from hfcompress.training.weight_pruning import WeightPruningCallback

__version__ = "0.1.0"

# Loaded when first asked for: `import hfcompress` alone loads neither torch nor a runtime.
_HOMES = {
    "CompressionReportCallback": "training.report",
    "GradualPruningCallback": "training.gradual",
    "LongDocuments": "recipe",
    "PruningPlan": "models.plan",
    "QuantizationAwareCallback": "training.quantization_aware",
    "RankerQuantizer": "quantization.quantizer",
    "RankingDistillationTrainer": "training.trainer",
    "RankingEvalCallback": "training.callbacks",
    "RankingTrainer": "training.trainer",
    "RankingTrainingArguments": "training.arguments",
    "Recipe": "recipe",
    "WeightPruningCallback": "training.weight_pruning",
    "apply_plan": "models.surgery",
    "load_model": "models.load",
    "load_ranker": "rankers.load",
    "run": "pipeline",
    "text_with_score": "data.score_text",
}

__all__ = [
    "CompressionReportCallback",
    "GradualPruningCallback",
    "LongDocuments",
    "PruningPlan",
    "QuantizationAwareCallback",
    "RankerQuantizer",
    "RankingDistillationTrainer",
    "RankingEvalCallback",
    "RankingTrainer",
    "RankingTrainingArguments",
    "Recipe",
    "WeightPruningCallback",
    "apply_plan",
    "load_model",
    "load_ranker",
    "run",
    "text_with_score",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"hfcompress.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
