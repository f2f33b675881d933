"""The recipe of a run as strict YAML: one module for each section, and `Recipe`, which contains them."""

from __future__ import annotations

from hfcompress.recipe.data import DataStep, ScoreText, SplitLimits
from hfcompress.recipe.evaluate import EvaluateStep, PublishStep
from hfcompress.recipe.long_documents import TRUNCATED, LongDocuments
from hfcompress.recipe.prune import TARGETS, PruneStep, Speed, Target, VocabularyStep, WeightPruning
from hfcompress.recipe.quantize import (
    ArtifactStep,
    HalfPrecision,
    OnnxRuntimeInt8,
    OpenVinoInt8,
    PackedWeights,
    QuantizeStep,
)
from hfcompress.recipe.recipe import Recipe
from hfcompress.recipe.recover import (
    DistillationLoss,
    FeatureLoss,
    QuantizationAware,
    RayStep,
    RecoverStep,
    ScoreSource,
)
from hfcompress.recipe.teacher import Optimization, ScoreLabel, TeacherStep, TeacherTraining

__all__ = [
    "TARGETS",
    "TRUNCATED",
    "ArtifactStep",
    "DataStep",
    "DistillationLoss",
    "EvaluateStep",
    "FeatureLoss",
    "HalfPrecision",
    "LongDocuments",
    "OnnxRuntimeInt8",
    "OpenVinoInt8",
    "Optimization",
    "PackedWeights",
    "PruneStep",
    "PublishStep",
    "QuantizationAware",
    "QuantizeStep",
    "RayStep",
    "Recipe",
    "RecoverStep",
    "ScoreLabel",
    "ScoreSource",
    "ScoreText",
    "Speed",
    "SplitLimits",
    "Target",
    "TeacherStep",
    "TeacherTraining",
    "VocabularyStep",
    "WeightPruning",
]
