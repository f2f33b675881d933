"""Recipe: what the user asks for, as strict YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from hfcompress.errors import RecipeError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]

TARGETS = ("target_speedup", "target_latency_ms", "target_parameters", "target_flops")
Target = tuple[str, float]
"""A name among `TARGETS`, and its value."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitLimits(_Strict):
    """At most so many queries of each split; all of them where a split is left out.

    Attributes:
        train: Train queries.
        dev: Dev queries.
        test: Test queries.
    """

    train: Positive | None = None
    dev: Positive | None = None
    test: Positive | None = None


class DataStep(_Strict):
    """Data to train, choose and measure on.

    Attributes:
        sets: `api-search`, or folders in BEIR's layout; several are joined.
        candidates: Documents to rank for each query.
        max_queries: Limits on the number of queries, taken in the order of a hash of their id.
    """

    sets: Annotated[list[str], Field(min_length=1)]
    candidates: Positive = 20
    max_queries: SplitLimits = SplitLimits()


class Optimization(_Strict):
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


class TeacherTraining(_Strict):
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


class TeacherStep(_Strict):
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


class VocabularyStep(_Strict):
    """Which tokens survive; those that the corpus and the train queries need.

    Attributes:
        min_count: How often a token must occur.
        keep: Tokens, or words whose pieces survive whatever the corpus holds.
        characters: Single characters that survive: `all` of the vocabulary, or those of the `corpus`.
    """

    min_count: Positive = 1
    keep: list[str] = []
    characters: Literal["all", "corpus"] = "all"


class PruneStep(_Strict):
    """What to cut: one target, or explicit shares of heads, FFN neurons and layers.

    Attributes:
        importance: How heads and FFN neurons are ranked: `obs` (least-squares error with all survivors settled),
            `fisher` (squared gradient of the listwise ranking loss with respect to a gate on each structure, query by
            query) or `magnitude` (norm of the weights).
        target_speedup: How many times faster than the unpruned model on the same runtime, in the same precision.
        target_latency_ms: Milliseconds for one query with `data.candidates` documents.
        target_parameters: Share of the model's parameters to keep, embeddings included.
        target_flops: Share of the encoder's multiply-adds to keep.
        heads: Share of the heads to keep, over all kept layers; all where left out.
        ffn: Share of the FFN neurons to keep, over all kept layers; all where left out.
        layers: Numbers of the layers to keep; all where left out.
        spread: For explicit shares: `global` ranks heads and neurons of all layers together; `uniform` keeps the same
            share of each layer.
        structure: `free` (any shape; the checkpoint carries its code) or `stock` (whole layers and one FFN width, which
            loads anywhere).
        runtime: Where time is measured: `auto` takes the first of quantize.artifacts, in its precision.
        ffn_multiple: FFN widths are rounded to a multiple of this, which vector instructions prefer.
        calibration_queries: Train queries with their lists of 8 documents that importance and search look at.
        search_steps: Plans that the search tries for a target.
        sequential: Settle the weights layer by layer at the end, on what the pruned layers below put out; `obs` only.
        vocabulary: Cut the vocabulary too; leave it out to keep it.
    """

    importance: Literal["obs", "fisher", "magnitude"] = "obs"
    target_speedup: Annotated[float, Field(gt=1)] | None = None
    target_latency_ms: Annotated[float, Field(gt=0)] | None = None
    target_parameters: Share | None = None
    target_flops: Share | None = None
    heads: Fraction | None = None
    ffn: Fraction | None = None
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    spread: Literal["global", "uniform"] = "global"
    structure: Literal["free", "stock"] = "free"
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    ffn_multiple: Positive = 32
    calibration_queries: Positive = 64
    search_steps: Positive = 16
    sequential: bool = True
    vocabulary: VocabularyStep | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> PruneStep:
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        shares = [name for name in ("heads", "ffn", "layers") if getattr(self, name) is not None]
        if len(targets) > 1 or (targets and shares):
            raise ValueError(f"give one target, or shares of heads, ffn and layers, not {', '.join(targets + shares)}")
        if not targets and not shares and self.vocabulary is None:
            raise ValueError(f"give one of {', '.join(TARGETS)}, or shares of heads, ffn and layers, or vocabulary")
        if self.structure == "stock" and shares and (self.heads not in (None, 1.0) or self.spread == "global"):
            raise ValueError("structure: stock keeps all heads and one FFN width: leave out heads, set spread: uniform")
        return self

    @classmethod
    def of(cls, settings: dict[str, Any]) -> PruneStep:
        """A step from settings.

        Raises:
            RecipeError: A setting does not fit; names each of them.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise _invalid("The settings of pruning do not fit", error) from error

    @property
    def target(self) -> Target | None:
        """The target; None for explicit shares."""
        found = [(name, value) for name in TARGETS if (value := getattr(self, name)) is not None]
        return found[0] if found else None


class DistillationLoss(_Strict):
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


class ScoreSource(_Strict):
    """A teacher among several: a cross-encoder, BM25 of the first stage, or the run's own teacher, if neither is named.

    Attributes:
        model: A local folder, a Hub id, or `package:NAME/FOLDER`; it tokenizes for itself.
        bm25: Score with BM25 over the corpus.
        weight: How much it counts; scores are brought to the scale of the first teacher before they are added.
        max_length: Longest input of `model` in tokens; that of the run's teacher where left out.
    """

    model: str | None = None
    bm25: bool = False
    weight: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=8)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ScoreSource:
        if self.bm25 and self.model is not None:
            raise ValueError("name a model or bm25, not both: they are teachers of their own")
        if self.max_length is not None and self.model is None:
            raise ValueError("max_length goes with model")
        return self


class FeatureLoss(_Strict):
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


class QuantizationAware(_Strict):
    """Rounding of int8 in the last part of recovery; see `QuantizationAwareCallback`.

    Attributes:
        begin: Share of all steps after which training is rounded; evaluations on dev are rounded from the start.
        activations: `dynamic` ranges of each batch, or `static` ones from a moving average.
        per_channel: One scale for each output channel of a weight.
        reduce_range: 7-bit weights; `auto` as in `OnnxRuntimeInt8`.
    """

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.5
    activations: Literal["dynamic", "static"] = "dynamic"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"


class RecoverStep(_Strict):
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
    teachers: list[ScoreSource] = []
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


class OnnxRuntimeInt8(_Strict):
    """An int8 artefact for ONNX Runtime.

    Attributes:
        runtime: Always `onnxruntime`.
        mode: `dynamic` (activation ranges at run time) or `static` (ranges from calibration pairs).
        per_channel: One scale for each output channel of a weight.
        reduce_range: 7-bit weights; `auto` uses them where the CPU has no VNNI and 8 bits could saturate.
    """

    runtime: Literal["onnxruntime"] = "onnxruntime"
    mode: Literal["dynamic", "static"]
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"


class OpenVinoInt8(_Strict):
    """An int8 artefact for OpenVINO, by NNCF's post-training quantization with its transformer preset.

    Attributes:
        runtime: Always `openvino`.
        smooth_quant_alpha: Share of the outliers moved from activations into weights; -1 turns SmoothQuant off.
        optional: Skip this artefact, saying so, where the `openvino` extra is not installed.
    """

    runtime: Literal["openvino"] = "openvino"
    smooth_quant_alpha: Annotated[float, Field(ge=-1, le=1)] = 0.95
    optional: bool = False


Int8 = Annotated[OnnxRuntimeInt8 | OpenVinoInt8, Field(discriminator="runtime")]


class QuantizeStep(_Strict):
    """Exports and int8 artefacts.

    Attributes:
        artifacts: What to make.
        calibration_pairs: Pairs of train queries and their candidates from which static ranges are measured.
        first_token: The last layer of an exported graph computes the first token only, where the model's head reads
            nothing else: same scores, less work.
    """

    artifacts: list[Int8] = [OnnxRuntimeInt8(mode="dynamic")]
    calibration_pairs: Positive = 128
    first_token: bool = True


class EvaluateStep(_Strict):
    """How the teacher and every artefact are measured.

    Attributes:
        margin: Largest loss in mean nDCG@10 that counts as ranking as well.
        confidence: Confidence of the paired bootstrap interval.
        threads: Threads for every runtime; 0 uses all cores.
        batch_tokens: Token budget of a batch (batch size times padded length).
        latency_queries: Test queries timed one by one for p50 and p95.
        rounds: Parts in which the test queries are scored; all artefacts score a part in turn, so that drift of the
            machine's speed cancels.
    """

    margin: Annotated[float, Field(gt=0)] = 0.01
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    threads: Annotated[int, Field(ge=0)] = 0
    batch_tokens: Positive = 4096
    latency_queries: Positive = 30
    rounds: Positive = 8


class PublishStep(_Strict):
    """What the model card says.

    Attributes:
        license: Licence of the compressed model.
    """

    license: str = "apache-2.0"


class Recipe(_Strict):
    """A whole run: data, teacher, pruning, recovery, int8, evaluation and card.

    Attributes:
        name: Short name of the run.
        seed: Seed of everything random.
        data: Data to train, choose and measure on.
        teacher: The model to compress.
        prune: What to cut; leave it out to keep the structure.
        recover: How the pruned model is trained again; needs `prune`.
        quantize: Exports and int8 artefacts.
        evaluate: How everything is measured.
        publish: What the card says.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataStep
    teacher: TeacherStep
    prune: PruneStep | None = None
    recover: RecoverStep | None = None
    quantize: QuantizeStep = QuantizeStep()
    evaluate: EvaluateStep = EvaluateStep()
    publish: PublishStep = PublishStep()
    _source: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _recovery_needs_pruning(self) -> Recipe:
        if self.recover and not self.prune:
            raise ValueError("recover is set without prune: there is nothing to recover from")
        return self

    @model_validator(mode="after")
    def _features_need_one_vocabulary(self) -> Recipe:
        if self.recover and self.recover.features and self.prune and self.prune.vocabulary:
            raise ValueError(
                "recover.features needs student and teacher to read the same ids: leave out one of it and "
                "prune.vocabulary"
            )
        return self

    @property
    def text(self) -> str:
        """The YAML text that this recipe was read from, verbatim; `to_yaml()` where it was changed or made in code."""
        if self._source and type(self).model_validate(yaml.safe_load(self._source)) == self:
            return self._source
        return self.to_yaml()

    def __eq__(self, other: object) -> bool:
        """Recipes are equal if their settings are, whatever text they were read from."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def to_yaml(self) -> str:
        """The recipe as YAML with every default written out; `from_yaml` reads the same recipe back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from YAML.

        Args:
            text: The YAML text.
            overrides: Settings such as `prune.heads=0.25`, which take the place of those in the text; the value is
                YAML.

        Raises:
            RecipeError: No valid YAML, an unknown key, or a value that does not fit; names each of them.
        """
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(
                "The recipe is not valid YAML",
                value=str(error).replace("\n", " "),
                expected="a YAML mapping",
                remedy="correct the line named",
            ) from error
        if not isinstance(settings, dict):
            raise RecipeError(
                "The recipe is empty or no mapping",
                value=type(settings).__name__,
                expected="a YAML mapping with at least name, data and teacher",
                remedy="start from a recipe in configs/",
            )
        for override in overrides or []:
            _override(settings, override)
        try:
            recipe = cls.model_validate(settings)
        except ValidationError as error:
            raise _invalid("The recipe cannot be run", error) from error
        if not overrides:
            recipe._source = text
        return recipe

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Recipe:
        """Read a recipe from a YAML file.

        Raises:
            RecipeError: There is no such file, or it holds no valid recipe.
        """
        if not path.is_file():
            raise RecipeError(
                "There is no such recipe",
                value=str(path),
                expected="a YAML file",
                remedy="check the path; configs/ has recipes to start from",
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"The recipe {path} is not text",
                value=str(error),
                expected="a YAML file in UTF-8",
                remedy="save it as UTF-8",
            ) from error
        return cls.from_yaml(text, overrides)


def _invalid(what: str, error: ValidationError) -> RecipeError:
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}" for fault in error.errors()
    )
    return RecipeError(
        f"{what}: {faults}",  # not as the value, which is shortened
        expected="known keys with values that fit",
        remedy="correct or remove these keys; docs/recipe.md lists all keys",
    )


def _override(settings: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise RecipeError(
            "A --set option is not of the form key=value",
            value=override,
            expected="for example prune.heads=0.25",
            remedy="name the key with dots, then =, then a YAML value",
        )
    *parents, last = key.split(".")
    target = settings
    for parent in parents:
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise RecipeError(
                f"--set {key} goes through {parent!r}, which holds no keys",
                value=target,
                expected="keys of nested sections",
                remedy="correct the key",
            )
    try:
        target[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"The value of --set {key} is not valid YAML",
            value=value,
            expected="a YAML value, for example 0.25 or [0, 2, 4]",
            remedy="correct the value, or quote it",
        ) from error
