"""How a recipe trains the pruned model again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hfcompress.recipe.base import Positive, Strict, Weight
from hfcompress.recipe.quantize import PackedWeights
from hfcompress.recipe.teacher import Optimization


class DistillationLoss(Strict):
    """Weights of the terms of the distillation loss; 0 leaves a term out.

    Attributes:
        margin_mse: Squared difference of the score margins of student and teacher.
        listwise_kl: Kullback-Leibler divergence between the softmax of both over the documents of a query.
        ranknet: Logistic loss over the pairs that the teacher puts in order.
        adr_mse: Squared difference of the ranks by student and teacher, discounted towards the end of the list.
        listmle: Likelihood of the teacher's whole order.
        mse: Squared difference of the scores themselves.
        hard: Pairwise logistic loss on the labels.
        lambda_ndcg: The same with each pair weighted by what it changes in nDCG.
        infonce: Likelihood of each relevant document against all that are not.
        bce: Binary cross-entropy on the labels, document by document.
        temperature: Temperature of both softmaxes in `listwise_kl`.
    """

    margin_mse: Weight = 1.0
    listwise_kl: Weight = 0.5
    ranknet: Weight = 0.0
    adr_mse: Weight = 0.0
    listmle: Weight = 0.0
    mse: Weight = 0.0
    hard: Weight = 0.1
    lambda_ndcg: Weight = 0.0
    infonce: Weight = 0.0
    bce: Weight = 0.0
    temperature: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _something_left(self) -> DistillationLoss:
        terms = [name for name in type(self).model_fields if name != "temperature"]
        if not any(getattr(self, name) for name in terms):
            raise ValueError(f"at least one of {', '.join(terms)} must be above 0")
        return self


class ScoreSource(Strict):
    """A teacher among several: a cross-encoder, BM25 of the first stage, or the run's own teacher, if neither is named.

    Attributes:
        model: A local folder, a Hub id, or `package:NAME/FOLDER`; it tokenizes for itself.
        file: File in the folder of `model` that scores: an ONNX or OpenVINO graph, which is faster, or packed weights;
            by default its checkpoint, in fp32 PyTorch.
        bm25: Score with BM25 over the corpus.
        weight: How much it counts; scores are brought to the scale of the first teacher before they are added.
        max_length: Longest input of `model` in tokens; that of the run's teacher where left out.
    """

    model: str | None = None
    file: str | None = None
    bm25: bool = False
    weight: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=8)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ScoreSource:
        if self.bm25 and self.model is not None:
            raise ValueError("name a model or bm25, not both: they are teachers of their own")
        given = [name for name in ("max_length", "file") if getattr(self, name) is not None]
        if given and self.model is None:
            raise ValueError(f"{given[0]} goes with model")
        return self


class FeatureLoss(Strict):
    """Weights of what the student learns from inside the teacher, which runs beside it; 0 leaves a term out.

    Attributes:
        hidden: Squared difference of the hidden states of matching layers; both models need the same hidden size.
        relation: Kullback-Leibler divergence between the self-attention relations of both (MiniLMv2): queries with
            queries, keys with keys and values with values, in one layer; heads and hidden sizes may differ.
        decay: Share of all steps over which both weights fall linearly to 0; the teacher does not run afterwards.
        hidden_layers: Whose hidden states count: those of `all` matching layers, or of the `last`.
        relation_layer: Whose relations count: a layer of the teacher, by its number before any pruning; the last one in
            which both models have heads where left out.
        relation_heads: Relation heads wanted; lowered to the next number that divides the widths of all heads of
            student and teacher. Memory grows with it.
    """

    hidden: Weight = 0.0
    relation: Weight = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5
    hidden_layers: Literal["all", "last"] = "all"
    relation_layer: Annotated[int, Field(ge=0)] | None = None
    relation_heads: Positive = 12

    @model_validator(mode="after")
    def _something_left(self) -> FeatureLoss:
        if not (self.hidden or self.relation):
            raise ValueError("hidden or relation must be above 0; leave features out to do without")
        return self


class QuantizationAware(Strict):
    """Rounding of int8 or of packed weights in the last part of recovery; see `QuantizationAwareCallback`.

    Attributes:
        begin: Share of all steps after which training is rounded; evaluations on dev are rounded from the start.
        activations: `dynamic` ranges of each batch, or `static` ones from a moving average.
        per_channel: One scale for each output channel of a weight.
        reduce_range: 7-bit weights; `auto` as in `OnnxRuntimeInt8`.
        weights: Round weights as this artefact packs them, and nothing else; leave it out to round as int8 does.
    """

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.5
    activations: Literal["dynamic", "static"] = "dynamic"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"
    weights: PackedWeights | None = None


class RecoverStep(Strict):
    """Recovery of the pruned model by distillation from the teacher's scores.

    Attributes:
        documents: Documents of a query's list: the relevant ones, hard negatives, and `random_negatives`.
        random_negatives: Documents of a list drawn from the whole corpus.
        queries: At most so many train queries; all of them where left out.
        teachers: Whose scores the student learns, joined by weight; the run's teacher alone where left out.
        unlabelled: Train on queries without a relevant document too, also those that no qrels file names: the terms on
            the teacher's scores learn from them, those on labels do not; `loss.bce` cannot tell and is refused.
        pseudo_queries: So many more train queries, made from titles or first sentences of documents and placed after
            the others; where no train query has labels, pruning is calibrated on them too.
        loss: Terms of the loss.
        features: Terms on hidden states and self-attention besides; leave it out to do without. The student needs all
            of the teacher's vocabulary.
        quantization_aware: Train the last part under the rounding of int8; leave it out to do without.
        optimization: Settings of the training.
    """

    documents: Annotated[int, Field(ge=2)] = 8
    random_negatives: Annotated[int, Field(ge=0)] = 2
    queries: Positive | None = None
    teachers: list[ScoreSource] = Field(default=[])
    unlabelled: bool = False
    pseudo_queries: Annotated[int, Field(ge=0)] = 0
    loss: DistillationLoss = DistillationLoss()
    features: FeatureLoss | None = None
    quantization_aware: QuantizationAware | None = None
    optimization: Optimization = Optimization(learning_rate=2e-4)

    @model_validator(mode="after")
    def _labels_for_bce(self) -> RecoverStep:
        if self.unlabelled and self.loss.bce:
            raise ValueError("unlabelled does not go with loss.bce, which would take every document for not relevant")
        return self
