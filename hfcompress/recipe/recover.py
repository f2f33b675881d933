"""Recipe section `recover`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from hfcompress.recipe.base import Positive, Strict, Weight
from hfcompress.recipe.quantize import PackedWeights
from hfcompress.recipe.teacher import Optimization, ScoreLabel, without_unset_score


class DistillationLoss(Strict):
    """Weights of the terms of the distillation loss; 0 leaves a term out.

    Attributes:
        margin_mse: Squared difference of the score margins of student and teacher.
        listwise_kl: Kullback-Leibler divergence between the softmax distributions of both over a query's documents.
        ranknet: Logistic loss on the document pairs in the teacher's order.
        adr_mse: Squared difference of the ranks by student and teacher, discounted towards the end of the list.
        listmle: Negative log-likelihood of the teacher's order.
        mse: Squared difference of the scores.
        hard: Pairwise logistic loss on the labels.
        lambda_ndcg: Pairwise logistic loss on the labels, with each pair weighted by its change in nDCG.
        infonce: Negative log-likelihood of each relevant document against all documents that are not relevant.
        bce: Binary cross-entropy on the label of each document.
        temperature: Softmax temperature in `listwise_kl`.
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
    """One of several teachers: a cross-encoder, BM25, or by default the teacher of the run.

    Attributes:
        model: A local folder, a Hub id, or `package:NAME/FOLDER`, used with its own tokenizer.
        file: File in the folder of `model` that computes the scores: an ONNX or OpenVINO graph, which is faster, or
            packed weights; by default the checkpoint in fp32 PyTorch.
        bm25: Score with BM25 over the corpus.
        weight: Weight of this teacher. Its scores are brought to the scale of the first of the teachers before they are
            added.
        max_length: Maximum input length of `model` in tokens; by default that of the run's teacher.
        score: The score of a `model` that is a classifier with 2 or more labels.
    """

    model: str | None = None
    file: str | None = None
    bm25: bool = False
    weight: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=8)] | None = None
    score: ScoreLabel | None = None

    _dump = model_serializer(mode="wrap")(without_unset_score)

    @model_validator(mode="after")
    def _one_source(self) -> ScoreSource:
        if self.bm25 and self.model is not None:
            raise ValueError("name a model or bm25, not both: each is a teacher of its own")
        given = [name for name in ("max_length", "file", "score") if getattr(self, name) is not None]
        if given and self.model is None:
            raise ValueError(f"{given[0]} requires model")
        if self.score and self.file:
            raise ValueError("score is computed by the checkpoint in PyTorch: leave out file")
        return self


class FeatureLoss(Strict):
    """Weights of distillation losses on features of the teacher, which runs beside the student; 0 leaves a term out.

    Attributes:
        hidden: Squared difference of the hidden states of matching layers; both models need the same hidden size.
        relation: Kullback-Leibler divergence between the self-attention relations of both (MiniLMv2): queries with
            queries, keys with keys and values with values, in one layer; heads and hidden sizes may differ.
        decay: Share of all steps over which both weights decay linearly to 0; the teacher does not run afterwards.
        hidden_layers: Layers whose hidden states are compared: `all` matching layers, or the `last`.
        relation_layer: Index of the teacher's layer, before any pruning, whose relations are compared; by default the
            last one in which both models have heads.
        relation_heads: Number of relation heads, lowered to the next number that divides the widths of all heads of
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
            raise ValueError("hidden or relation must be above 0; leave out features to turn both off")
        return self


class QuantizationAware(Strict):
    """Quantization-aware training in the last part of recovery, for int8 or packed weights.

    Attributes:
        begin: Share of all steps after which training is quantized; evaluations on dev are quantized from the start.
        activations: `dynamic` ranges of each batch, or `static` ranges from a moving average.
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights; `auto` as in `OnnxRuntimeInt8`.
        weights: Quantize weights as this artifact packs them, and no activations. The default is int8.
    """

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.5
    activations: Literal["dynamic", "static"] = "dynamic"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"
    weights: PackedWeights | None = None


class RayStep(Strict):
    """The Ray cluster of a step with `engine: ray`.

    Attributes:
        address: `host:port` of its head node, `auto` for one that runs on this machine, or `local` for a new one; by
            default that of the environment variable `RAY_ADDRESS`, else one that runs here, else a new one. An address
            in the recipe stands in the model card.
        workers: Number of workers; 0 for as many as the cluster has room for.
        cpus: CPUs of each worker.
    """

    address: str | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    cpus: Positive = 1


class RecoverStep(Strict):
    """Recovery of the pruned model by distillation from the teacher's scores.

    Attributes:
        documents: Documents of a query's list: the relevant ones, hard negatives, and `random_negatives`.
        random_negatives: Negatives of a list drawn from the whole corpus.
        queries: Maximum number of train queries, pseudo-queries included; all by default.
        teachers: Teachers whose scores are combined by weight; by default the teacher of the run.
        engine: Where teachers score: in this process, or on the workers of a Ray cluster (`ray`), in PyTorch or with
            their `file`. BM25 stays in this process.
        ray: The cluster, with `engine: ray`.
        unlabelled: Also train on queries without a relevant document, including those in no qrels file. Loss terms on
            the teacher's scores use them, terms on labels do not; `loss.bce` cannot tell them apart and is refused.
        pseudo_queries: Number of additional train queries, made from titles and sentences of documents, at first of
            those in no training list, and placed after the others. If no train query has labels, pruning is calibrated
            on them too.
        also: Additional texts, on which the student learns the teacher's scores alone, so that it keeps what the
            teacher knows of other domains. An entry is a data set as in `data.sets`, of which the train queries are
            used (all of a set without judgements) and no judgements; a plain text file (`.txt`, also gzipped) with a
            document on each line, or paragraphs between blank lines; or `general-text`: API search, and WordNet's
            glosses where they are installed. Where queries are too few, sentences of documents become queries, with
            their document and its neighbours by BM25 as candidates. Half of the calibration queries of `prune` are from
            these texts.
        also_share: Share of all training lists that are made of the texts in `also`. With 0 they are used for the
            calibration of pruning only.
        loss: Terms of the loss.
        features: Additional loss terms on hidden states and self-attention; none by default. The student needs the
            whole vocabulary of the teacher.
        quantization_aware: Quantization-aware training in the last part; off by default.
        optimization: Settings of the training.
    """

    documents: Annotated[int, Field(ge=2)] = 8
    random_negatives: Annotated[int, Field(ge=0)] = 2
    queries: Positive | None = None
    teachers: list[ScoreSource] = Field(default=[])
    engine: Literal["local", "ray"] = "local"
    ray: RayStep = RayStep()
    unlabelled: bool = False
    pseudo_queries: Annotated[int, Field(ge=0)] = 0
    also: list[str] = Field(default=[])
    also_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    loss: DistillationLoss = DistillationLoss()
    features: FeatureLoss | None = None
    quantization_aware: QuantizationAware | None = None
    optimization: Optimization = Optimization(learning_rate=2e-4)

    @model_validator(mode="after")
    def _labels_for_bce(self) -> RecoverStep:
        for name in ("unlabelled", "also"):
            if getattr(self, name) and self.loss.bce:
                raise ValueError(f"{name} excludes loss.bce, which would treat every document as not relevant")
        return self

    @model_validator(mode="after")
    def _cluster_for_ray(self) -> RecoverStep:
        if self.engine != "ray" and self.ray != RayStep():
            raise ValueError("ray requires engine: ray")
        return self

    @model_validator(mode="after")
    def _also_once(self) -> RecoverStep:
        if repeated := sorted({name for name in self.also if self.also.count(name) > 1}):
            raise ValueError(f"also names {', '.join(repeated)} twice: give each text once")
        return self
