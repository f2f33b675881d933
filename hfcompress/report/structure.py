"""Parts of a report about pruning: remaining layers, heads and neurons, the vocabulary, and sparse weights."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from hfcompress.report.schema import ReportPart


class LayerKept(ReportPart):
    """What remains of one layer. Layers and heads have the numbers of the original model.

    Attributes:
        layer: Number of the layer.
        heads: Numbers of its remaining heads.
        heads_of: Heads of the original layer.
        ffn: Remaining FFN neurons.
        ffn_of: FFN neurons of the original layer.
    """

    layer: int
    heads: list[int]
    heads_of: int
    ffn: int
    ffn_of: int


class VocabularySummary(ReportPart):
    """How the vocabulary was pruned.

    Attributes:
        tokens_before: Tokens of the original tokenizer.
        tokens_after: Remaining tokens.
        min_count: Occurrences in the corpus and the train queries that a token needed to be kept.
        held_out_pairs: Pairs of other queries that both tokenizers were compared on.
        changed_share: Share of these pairs that the new tokenizer splits differently.
    """

    tokens_before: int
    tokens_after: int
    min_count: int
    held_out_pairs: int
    changed_share: float

    def in_words(self) -> str:
        """The remaining tokens and the changed pairs, as a sentence."""
        return (
            f"{self.tokens_after:,} of {self.tokens_before:,} tokens remain in the vocabulary; "
            f"{self.changed_share:.1%} of {self.held_out_pairs:,} pairs of other queries are tokenized differently"
        )


class SparsitySummary(ReportPart):
    """Unstructured or 2:4 sparsity of the checkpoint's weights.

    Attributes:
        pattern: `unstructured` or `2:4`.
        sparsity: Requested share of zeros in the weights of the encoder's linear layers.
        zero_share: Actual share of zeros in the checkpoint.
    """

    pattern: str
    sparsity: float
    zero_share: float


class PruningSummary(ReportPart):
    """What was pruned.

    Attributes:
        importance: Method that ranked heads and FFN neurons.
        layers_of: Layers of the original model.
        layers: Remaining layers.
        head_importance: Importance of every head of the original model, layers x heads.
        encoder_macs_kept: Remaining share of the encoder's MACs per token. Older reports call it `encoder_flops_kept`.
        custom_code: Whether loading needs `trust_remote_code` or hfcompress.
        target: The requested budget, e.g. `speedup 2`; `explicit` for shares of heads, FFN and layers.
        calibration_loss: Divergence of the pruned model's ranking from the dense model's on held-out train queries,
            before any recovery.
        predicted_speedup: Speed-up over the dense model on the same runtime, as predicted by the latency table.
        vocabulary: How the vocabulary was pruned.
        weights: Sparsity of the remaining weights.
    """

    importance: str
    layers_of: int
    layers: list[LayerKept]
    head_importance: list[list[float]]
    encoder_macs_kept: float = Field(validation_alias=AliasChoices("encoder_macs_kept", "encoder_flops_kept"))
    custom_code: bool
    target: str = "explicit"
    calibration_loss: float | None = None
    predicted_speedup: float | None = None
    vocabulary: VocabularySummary | None = None
    weights: SparsitySummary | None = None
