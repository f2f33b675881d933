"""What `/info` shows: models and limits, with the fields of text-embeddings-inference."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from hfcompress.serve.models import Models, ServedModel


class ModelInfo(BaseModel):
    """A model.

    Attributes:
        name: Its name in requests.
        runtime: Its runtime.
        precision: Its precision.
        file: Its file in the folder.
        device: Its device.
        max_input_length: Tokens of a pair.
        loaded: Time of loading, in seconds since the epoch.
    """

    name: str
    runtime: str
    precision: str
    file: str
    device: str
    max_input_length: int
    long_documents: str
    loaded: float


class Info(BaseModel):
    """The server; names are those of text-embeddings-inference where it has them."""

    model_id: str
    model_dtype: str
    model_type: dict[str, Any]
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    max_queue_tokens: int
    max_body_bytes: int
    auto_truncate: bool
    version: str
    models: list[ModelInfo]


def info(models: Models) -> Info:
    """What `/info` shows."""
    listed = [_model_info(each) for each in models.all()]
    settings = models.settings
    return Info(
        model_id=listed[0].name,
        model_dtype=listed[0].precision,
        model_type={"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        max_input_length=listed[0].max_input_length,
        max_batch_tokens=settings.batch_tokens,
        max_client_batch_size=settings.max_texts,
        max_queue_tokens=settings.queue_tokens,
        max_body_bytes=settings.max_bytes,
        auto_truncate=True,
        version=version("hfcompress"),
        models=listed,
    )


def _model_info(model: ServedModel) -> ModelInfo:
    candidate = model.candidate
    return ModelInfo(
        name=model.source.name,
        runtime=candidate.runtime,
        precision=candidate.precision,
        file=candidate.file or "model.safetensors",
        device=candidate.device,
        max_input_length=model.max_length,
        long_documents=model.source.long_documents.mode,
        loaded=model.loaded,
    )
