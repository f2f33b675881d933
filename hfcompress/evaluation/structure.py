"""What a report says of pruning: layers, heads and neurons that are left, tokens, and single weights."""

from __future__ import annotations

from hfcompress.evaluation.schema import ReportPart


class LayerKept(ReportPart):
    """What one surviving layer keeps, with the numbers of the teacher's layers and heads.

    Attributes:
        layer: Number of the layer.
        heads: Numbers of its surviving heads.
        heads_of: Heads of the teacher's layer.
        ffn: Surviving FFN neurons.
        ffn_of: FFN neurons of the teacher's layer.
    """

    layer: int
    heads: list[int]
    heads_of: int
    ffn: int
    ffn_of: int


class VocabularySummary(ReportPart):
    """What was cut out of the vocabulary.

    Attributes:
        tokens_before: Tokens of the teacher's tokenizer.
        tokens_after: Tokens that are left.
        min_count: How often a token had to occur in the corpus and the train queries.
        held_out_pairs: Pairs of other queries on which the new tokenizer was compared with the old one.
        changed_share: Share of these that are cut into other tokens.
    """

    tokens_before: int
    tokens_after: int
    min_count: int
    held_out_pairs: int
    changed_share: float

    def in_words(self) -> str:
        """How much is left, and what that changes."""
        return (
            f"{self.tokens_after:,} of {self.tokens_before:,} tokens are left in the vocabulary; "
            f"{self.changed_share:.1%} of {self.held_out_pairs:,} pairs of other queries are cut into other tokens "
            "than before"
        )


class SparsitySummary(ReportPart):
    """Single weights that are zero.

    Attributes:
        pattern: `unstructured` or `2:4`.
        sparsity: Share of the weights of the encoder's linear layers that was to go.
        zero_share: Share that is zero in the checkpoint.
    """

    pattern: str
    sparsity: float
    zero_share: float


class PruningSummary(ReportPart):
    """What was pruned.

    Attributes:
        importance: Method that ranked heads and FFN neurons.
        layers_of: Number of layers of the teacher.
        layers: Surviving layers.
        head_importance: Importance of every head of the teacher, layers x heads.
        encoder_flops_kept: Share of the encoder's multiply-adds a token that are left.
        custom_code: Whether loading needs `trust_remote_code` or hfcompress.
        target: What was asked for, e.g. `speedup 2`; `explicit` for shares of heads, FFN and layers.
        calibration_loss: Divergence of the pruned model's ranking from the dense model's, before any recovery, on
            held-out train queries.
        predicted_speedup: Speed-up over the dense model on the same runtime that the latency table predicts.
        vocabulary: What was cut out of the vocabulary.
        weights: Single weights set to zero in what is left.
    """

    importance: str
    layers_of: int
    layers: list[LayerKept]
    head_importance: list[list[float]]
    encoder_flops_kept: float
    custom_code: bool
    target: str = "explicit"
    calibration_loss: float | None = None
    predicted_speedup: float | None = None
    vocabulary: VocabularySummary | None = None
    weights: SparsitySummary | None = None
