"""Recipe section `prune`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from hfcompress.recipe.base import Fraction, Positive, Share, Strict, invalid

Pattern = Literal["unstructured", "2:4"]
PATTERNS: tuple[str, ...] = get_args(Pattern)
Speed = Literal["throughput", "latency"]
TARGETS = ("target_speedup", "target_latency_ms", "target_parameters", "target_macs")
Target = tuple[str, float]
"""One of the names in `TARGETS`, and its value."""


class VocabularyStep(Strict):
    """Vocabulary pruning: tokens that neither the corpus nor the train queries need are removed.

    Attributes:
        min_count: Least number of occurrences of a token that is kept.
        keep: Tokens that are kept in any case, or words whose subword tokens are.
        characters: Single characters that are kept: `all` of the vocabulary, or those of the `corpus`.
    """

    min_count: Positive = 1
    keep: list[str] = Field(default=[])
    characters: Literal["all", "corpus"] = "all"


class WeightPruning(Strict):
    """Unstructured or 2:4 sparsity: the smallest weights of the encoder's linear layers are zero, also during recovery.

    Zeros are stored and multiplied like other numbers. They reduce the size of compressed files, and give no speed-up
    on the supported runtimes.

    Attributes:
        pattern: `unstructured` prunes the smallest weights of each matrix, `2:4` two of every four neighbours in a row.
        sparsity: Share of the weights that is pruned; 0.5 for `2:4`.
        gradual: Share of the recovery over which the sparsity grows; 0 sets all zeros before the recovery.
    """

    pattern: Pattern = "unstructured"
    sparsity: Share = 0.5
    gradual: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("pattern", mode="before")
    @classmethod
    def _require_quotes(cls, value: Any) -> Any:
        if value == 2 * 60 + 4:  # YAML 1.1 reads 2:4 as minutes and seconds
            raise ValueError('write "2:4" in quotes: without them YAML reads a number')
        return value

    @model_validator(mode="after")
    def _half_of_four(self) -> WeightPruning:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("pattern: 2:4 has a sparsity of 0.5")
        return self


class PruneStep(Strict):
    """Pruning to one target, or to explicit shares of heads, FFN neurons and layers.

    Attributes:
        importance: Importance of heads and FFN neurons: `obs` (least-squares error after an update of all remaining
            weights), `fisher` (squared gradient of the listwise ranking loss with respect to a gate on each structure,
            for each query) or `magnitude` (norm of the weights).
        target_speedup: Speed-up over the unpruned model on the same runtime in the same precision.
        target_latency_ms: Milliseconds for one query with `data.candidates` documents.
        speed: Speed that `target_speedup` refers to: `throughput` of many queries scored together, or `latency` of one
            query with its candidates, in which fixed costs weigh more.
        target_parameters: Share of the model's parameters to keep, embeddings included.
        target_macs: Share of the encoder's multiply-accumulate operations (MACs) to keep. `target_flops` is its
            deprecated name.
        heads: Share of the heads to keep, over all kept layers; all by default.
        ffn: Share of the FFN neurons to keep, over all kept layers; all by default.
        layers: Indices of the layers to keep; all by default.
        spread: For explicit shares: `global` ranks the heads and neurons of all layers together, `uniform` keeps the
            same share of each layer.
        structure: `free` (any shape; the checkpoint contains its modeling code) or `stock` (whole layers and one FFN
            width; loads without custom code).
        runtime: Runtime on which time is measured; `auto` is that of the first of `quantize.artifacts`, in its
            precision.
        ffn_multiple: FFN widths are rounded to a multiple of this number, for efficient vector instructions.
        calibration_queries: Train queries, with lists of 8 documents, on which importance and search are computed.
        search_steps: Plans that the local search evaluates for a target, after the loss of single cuts is measured.
        stages: Rounds of pruning and recovery, for large ratios. Each round prunes by the same factor and recomputes
            importance and search; the settings of `recover` apply to each round.
        sequential: Repeat the least-squares weight update layer by layer at the end, on the outputs of the pruned
            layers below; `obs` only.
        vocabulary: Vocabulary pruning; none by default.
        weights: Unstructured or 2:4 sparsity of the remaining weights; none by default.
    """

    deprecated: ClassVar[dict[str, str]] = {"target_flops": "target_macs"}

    importance: Literal["obs", "fisher", "magnitude"] = "obs"
    target_speedup: Annotated[float, Field(gt=1)] | None = None
    target_latency_ms: Annotated[float, Field(gt=0)] | None = None
    speed: Speed = "throughput"
    target_parameters: Share | None = None
    target_macs: Share | None = None
    heads: Fraction | None = None
    ffn: Fraction | None = None
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    spread: Literal["global", "uniform"] = "global"
    structure: Literal["free", "stock"] = "free"
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    ffn_multiple: Positive = 32
    calibration_queries: Positive = 64
    search_steps: Positive = 12
    stages: Positive = 1
    sequential: bool = True
    vocabulary: VocabularyStep | None = None
    weights: WeightPruning | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> PruneStep:
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        shares = [name for name in ("heads", "ffn", "layers") if getattr(self, name) is not None]
        if len(targets) > 1 or (targets and shares):
            raise ValueError(f"give one target, or shares of heads, ffn and layers, not {', '.join(targets + shares)}")
        if not targets and not shares and self.vocabulary is None and self.weights is None:
            names = ", ".join(TARGETS)
            raise ValueError(f"give one of {names}, or shares of heads, ffn and layers, or vocabulary, or weights")
        if self.stages > 1 and (not targets or self.target_latency_ms is not None):
            raise ValueError("stages go with target_speedup, target_parameters or target_macs, which have a halfway")
        if self.speed == "latency" and self.target_speedup is None and self.target_latency_ms is None:
            raise ValueError("speed: latency is about target_speedup, and there is none: add it, or leave out speed")
        if self.structure == "stock" and shares and (self.heads not in (None, 1.0) or self.spread == "global"):
            raise ValueError("structure: stock keeps all heads and one FFN width: leave out heads, set spread: uniform")
        return self

    @classmethod
    def of(cls, settings: dict[str, Any]) -> PruneStep:
        """Create a step from settings.

        Raises:
            RecipeError: A setting is invalid; the message names each of them.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise invalid("The settings of pruning are invalid", error) from error

    @property
    def target(self) -> Target | None:
        """The target, or None for explicit shares."""
        found = [(name, value) for name in TARGETS if (value := getattr(self, name)) is not None]
        return found[0] if found else None

    @property
    def has_shares(self) -> bool:
        """Whether heads, FFN neurons or layers are pruned by explicit shares."""
        return any(share is not None for share in (self.heads, self.ffn, self.layers))

    def by_stage(self) -> list[PruneStep]:
        """A step for each stage, with its part of the target; vocabulary and single weights are pruned in the last."""
        if self.stages == 1 or self.target is None:
            return [self]
        name, value = self.target
        share = {"stages": 1, name: value ** (1 / self.stages)}
        stage = self.model_copy(update={**share, "vocabulary": None, "weights": None})
        return [stage] * (self.stages - 1) + [self.model_copy(update=share)]
