"""What a recipe cuts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from hfcompress.recipe.base import Fraction, Positive, Share, Strict, invalid

Pattern = Literal["unstructured", "2:4"]
PATTERNS: tuple[str, ...] = get_args(Pattern)
Speed = Literal["throughput", "latency"]
TARGETS = ("target_speedup", "target_latency_ms", "target_parameters", "target_flops")
Target = tuple[str, float]
"""A name among `TARGETS`, and its value."""


class VocabularyStep(Strict):
    """Which tokens survive; those that the corpus and the train queries need.

    Attributes:
        min_count: How often a token must occur.
        keep: Tokens, or words whose pieces survive whatever the corpus holds.
        characters: Single characters that survive: `all` of the vocabulary, or those of the `corpus`.
    """

    min_count: Positive = 1
    keep: list[str] = Field(default=[])
    characters: Literal["all", "corpus"] = "all"


class WeightPruning(Strict):
    """Single weights of the encoder's linear layers set to zero, the smallest first, and held there in recovery.

    Zeros are stored and multiplied like other numbers: they make a file smaller where it is compressed, and nothing
    faster on the runtimes here.

    Attributes:
        pattern: `unstructured` takes the smallest weights of each matrix; `2:4` two of every four neighbours in a row.
        sparsity: Share of the weights that goes; 0.5 in `2:4`.
        gradual: Share of the recovery over which zeros grow; 0 sets all of them before it.
    """

    pattern: Pattern = "unstructured"
    sparsity: Share = 0.5
    gradual: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("pattern", mode="before")
    @classmethod
    def _in_quotes(cls, value: Any) -> Any:
        if value == 2 * 60 + 4:  # YAML 1.1 takes it for minutes and seconds
            raise ValueError('write "2:4" in quotes: without them YAML reads a number')
        return value

    @model_validator(mode="after")
    def _half_of_four(self) -> WeightPruning:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("pattern: 2:4 has a sparsity of 0.5")
        return self


class PruneStep(Strict):
    """What to cut: one target, or explicit shares of heads, FFN neurons and layers.

    Attributes:
        importance: How heads and FFN neurons are ranked: `obs` (least-squares error with all survivors settled),
            `fisher` (squared gradient of the listwise ranking loss with respect to a gate on each structure, query by
            query) or `magnitude` (norm of the weights).
        target_speedup: How many times faster than the unpruned model on the same runtime, in the same precision.
        target_latency_ms: Milliseconds for one query with `data.candidates` documents.
        speed: What `target_speedup` counts: `throughput`, with many queries scored together, or `latency`, one query
            with its candidates at a time, which costs that do not shrink with the model are a larger part of.
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
        search_steps: Plans that the local search tries for a target, once it is measured what single cuts lose.
        stages: Prune and recover in so many rounds, each of them a like step on the way to the target, with importance
            and search anew; for large ratios. The settings of `recover` are those of each round.
        sequential: Settle the weights layer by layer at the end, on what the pruned layers below put out; `obs` only.
        vocabulary: Cut the vocabulary too; leave it out to keep it.
        weights: Set single weights of what is left to zero; leave it out to keep them.
    """

    importance: Literal["obs", "fisher", "magnitude"] = "obs"
    target_speedup: Annotated[float, Field(gt=1)] | None = None
    target_latency_ms: Annotated[float, Field(gt=0)] | None = None
    speed: Speed = "throughput"
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
            raise ValueError("stages go with target_speedup, target_parameters or target_flops, which have a halfway")
        if self.speed == "latency" and self.target_speedup is None and self.target_latency_ms is None:
            raise ValueError("speed: latency is about target_speedup, and there is none: add it, or leave out speed")
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
            raise invalid("The settings of pruning do not fit", error) from error

    @property
    def target(self) -> Target | None:
        """The target; None for explicit shares."""
        found = [(name, value) for name in TARGETS if (value := getattr(self, name)) is not None]
        return found[0] if found else None

    @property
    def has_shares(self) -> bool:
        """Whether heads, FFN neurons or layers go by explicit shares."""
        return any(share is not None for share in (self.heads, self.ffn, self.layers))

    def by_stage(self) -> list[PruneStep]:
        """A step for each stage, with its share of the target; vocabulary and weights are pruned in the last."""
        if self.stages == 1 or self.target is None:
            return [self]
        name, value = self.target
        share = {"stages": 1, name: value ** (1 / self.stages)}
        stage = self.model_copy(update={**share, "vocabulary": None, "weights": None})
        return [stage] * (self.stages - 1) + [self.model_copy(update=share)]
