"""Recipe section `teacher`, and the settings of a training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StrictInt, StrictStr, model_serializer, model_validator

from hfcompress.recipe.base import Fraction, Positive, Strict, Weight

Label = StrictStr | Annotated[StrictInt, Field(ge=0)]


class Optimization(Strict):
    """Settings of one training.

    Attributes:
        epochs: Passes over the training queries.
        queries_per_batch: Queries of one optimizer step; `accumulation` splits them into equal parts.
        accumulation: Gradient accumulation steps.
        learning_rate: Peak learning rate of AdamW.
        warmup: Share of the steps with a rising learning rate, which then decays linearly.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Maximum gradient norm, by clipping.
        dropout: Dropout during training.
        r_drop: Weight of the divergence between two passes with different dropout (R-Drop), which doubles the cost of a
            step; 0 turns it off.
        adversarial: Norm of the gradient step that is added to the word embeddings of every pair for a second pass
            (FGM), which doubles the cost of a step; 0 turns it off.
        freeze_layers: Freeze the embeddings and this many lower layers; -1 trains everything.
        precision: `bf16` or `fp16` (autocast), `fp32`, or `auto`: on a GPU bf16 if it computes it, else fp16, except
            for DeBERTa-v2 and -v3, whose activations exceed its range; on a CPU bf16 if it has AMX, else fp32.
        evaluations: Evaluations on dev in each epoch; the checkpoint with the best nDCG@10 is kept.
        patience: Stop after this many evaluations without improvement.
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
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
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
            raise ValueError("r_drop compares two passes with different dropout: set dropout above 0, such as 0.1")
        return self


class TeacherTraining(Strict):
    """Training of the teacher: an encoder becomes a cross-encoder.

    Attributes:
        loss: `listwise` (softmax over one relevant document and its negatives) or `pointwise` (binary cross-entropy).
        hard_negatives: Negatives of a list that the first stage ranked high, or that are judged as not relevant.
        random_negatives: Negatives of a list drawn from the whole corpus.
        queries: Maximum number of train queries; all by default.
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


class ScoreLabel(Strict):
    """The score of a classifier with several labels, such as one for natural language inference.

    Attributes:
        label: Name or number of the label whose logit is the score.
        against: Name or number of another label: the score is then the log-odds of the two, which is the difference of
            their logits.
        log_odds: The score is the log-odds of the label against all other labels, `log p - log(1 - p)`, which ranks as
            the label's probability does. With 3 or more labels, only an additional teacher can have it.
    """

    label: Label
    against: Label | None = None
    log_odds: bool = False

    @model_validator(mode="after")
    def _one_comparison(self) -> ScoreLabel:
        if self.label == self.against:
            raise ValueError("label and against must be two labels")
        if self.log_odds and self.against is not None:
            raise ValueError("log_odds is against all other labels: leave out log_odds or against")
        return self

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `log_odds` where it is not set: fingerprints of earlier runs stay the same."""
        return {key: value for key, value in dump(self).items() if key != "log_odds" or value}

    @property
    def in_words(self) -> str:
        """The score, such as `logit of entailment`."""
        if self.log_odds:
            return f"log-odds of {self.label}"
        return f"logit of {self.label}" if self.against is None else f"log-odds of {self.label} against {self.against}"


def without_unset_score(self: Strict, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """Dump a section without a `score` that is not set: fingerprints of earlier runs stay the same."""
    return {key: value for key, value in dump(self).items() if key != "score" or value is not None}


class TeacherStep(Strict):
    """The model to compress.

    Attributes:
        model: A local folder, a Hub id, or `package:NAME/FOLDER` for a model in an installed Python package.
        base_model: Name of the model in the card; `model` by default.
        max_length: Maximum input length in tokens; longer pairs are truncated, the longer text first.
        score: The score of a classifier with 2 or more labels, such as `{label: entailment}`. The teacher of the run,
            and with it the student, is that classifier with this one output. Leave it out for a cross-encoder.
        train: How to train the model; leave it out if the model is a cross-encoder already.
    """

    model: str
    base_model: str | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    score: ScoreLabel | None = None
    train: TeacherTraining | None = None

    _dump = model_serializer(mode="wrap")(without_unset_score)

    @model_validator(mode="after")
    def _head_of_its_own(self) -> TeacherStep:
        if self.score and self.train:
            raise ValueError("train gives the model a new head with one score: leave out score or train")
        return self
