"""The teacher of a recipe, and settings of trainings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hfcompress.recipe.base import Fraction, Positive, Strict, Weight


class Optimization(Strict):
    """Settings of one training.

    Attributes:
        epochs: Passes over the training queries.
        queries_per_batch: Queries in one optimizer step; `accumulation` splits them into equal parts.
        accumulation: Parts in which the gradient of one step is computed.
        learning_rate: Peak learning rate of AdamW.
        warmup: Share of the steps in which the rate rises; it falls linearly afterwards.
        weight_decay: AdamW weight decay.
        max_grad_norm: Gradients are scaled down to this norm.
        dropout: Dropout while training.
        r_drop: Weight of the divergence between two passes that differ in dropout (R-Drop); 0 makes one pass. Each step
            costs twice as much.
        adversarial: Length of the step up the loss that is added to the word embeddings of every pair for a second pass
            (FGM); 0 makes no second pass. Each step costs twice as much.
        freeze_layers: Embeddings and this many lower layers stay as they are; -1 trains everything.
        precision: `bf16` autocast, `fp32`, or `auto`: bf16 where the CPU computes it.
        evaluations: Evaluations on dev within an epoch; the best checkpoint by nDCG@10 is kept.
        patience: Stop after this many evaluations without a gain.
    """

    epochs: Positive = 1
    queries_per_batch: Positive = 8
    accumulation: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup: Fraction = 0.1
    weight_decay: Weight = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    r_drop: Weight = 0.0
    adversarial: Weight = 0.0
    freeze_layers: Annotated[int, Field(ge=-1)] = -1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    evaluations: Positive = 1
    patience: Positive = 3

    @model_validator(mode="after")
    def _accumulation_divides(self) -> Optimization:
        if self.queries_per_batch % self.accumulation:
            raise ValueError(
                f"accumulation ({self.accumulation}) must divide queries_per_batch ({self.queries_per_batch})"
            )
        return self

    @model_validator(mode="after")
    def _r_drop_needs_dropout(self) -> Optimization:
        if self.r_drop and not self.dropout:
            raise ValueError("r_drop compares two passes that differ in dropout: set dropout above 0, such as 0.1")
        return self


class TeacherTraining(Strict):
    """How an encoder becomes a cross-encoder.

    Attributes:
        loss: `listwise` (softmax over one relevant and several other documents) or `pointwise` (binary cross-entropy).
        hard_negatives: Documents of a list that the first stage ranked high, or that are judged as not relevant.
        random_negatives: Documents of a list drawn from the whole corpus.
        queries: At most so many train queries; all of them where left out.
        optimization: Settings of the training.
    """

    loss: Literal["listwise", "pointwise"] = "listwise"
    hard_negatives: Annotated[int, Field(ge=0)] = 2
    random_negatives: Annotated[int, Field(ge=0)] = 2
    queries: Positive | None = None
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _some_negatives(self) -> TeacherTraining:
        if self.hard_negatives + self.random_negatives == 0:
            raise ValueError("hard_negatives and random_negatives cannot both be 0")
        return self


class TeacherStep(Strict):
    """The model to compress.

    Attributes:
        model: A local folder, a Hub id, or `package:NAME/FOLDER` for a model in an installed Python package.
        base_model: Name under which the card mentions it; `model` itself where left out.
        max_length: Longest input in tokens; longer pairs are truncated, the longer text first.
        train: How to train it; leave it out if the model is a cross-encoder already.
    """

    model: str
    base_model: str | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    train: TeacherTraining | None = None
