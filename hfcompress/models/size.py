"""Sizes of a cross-encoder on which its memory depends, without its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from transformers import PretrainedConfig

from hfcompress.models.architectures import architecture_of, encoder_layers, input_embedding, projection
from hfcompress.models.modular import class_for
from hfcompress.models.surgery import needs_custom_code, plan_of_config

FP32 = 4  # bytes of a number
# Attention matrices that a layer keeps for the backward pass: fused attention none, eager attention the probabilities,
# and that with relative positions the indices into them too. With dropout, none is fused in PyTorch on a CPU, and the
# mask and its product are kept. Counted by `tests/models/test_size.py`.
EAGER_MATRICES = {"deberta-v2": 2}
MATRICES, DROPOUT_MATRICES = 1, 3


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a cross-encoder.

    Attributes:
        parameters: Number of parameters.
        embedding: Number of those in the token embedding.
        layers: Number of parameters of each encoder layer.
        columns: Inputs of W_O and W_2 of each layer; 0 where pruning left none.
        hidden: Hidden size.
        heads: Attention heads of a layer before pruning.
        blocks: Rows of W_1 for each FFN neuron: 2 in a gated FFN.
        matrices: Attention matrices that a layer keeps for the backward pass without dropout; 0 if they are fused.
    """

    parameters: int
    embedding: int
    layers: tuple[int, ...]
    columns: tuple[tuple[int, int], ...]
    hidden: int
    heads: int
    blocks: int
    matrices: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelSize:
        """Sizes of the model of a config, which is built without memory for its weights.

        Args:
            config: A config of a supported family, pruned or not.
        """
        architecture = architecture_of(config)
        with torch.device("meta"):
            model = class_for(config, needs_custom_code(config, plan_of_config(config)))(copy.deepcopy(config))
        layers = encoder_layers(model)
        paths = (architecture.attention_output, architecture.ffn_out)
        found = [[projection(layer, path) for path in paths] for layer in layers]
        fused = model.config._attn_implementation == "sdpa"
        return cls(
            parameters=sum(each.numel() for each in model.parameters()),
            embedding=input_embedding(model).weight.numel(),
            layers=tuple(sum(each.numel() for each in layer.parameters()) for layer in layers),
            columns=tuple((heads.in_features if heads else 0, ffn.in_features if ffn else 0) for heads, ffn in found),
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            blocks=architecture.ffn_blocks,
            matrices=0 if fused else EAGER_MATRICES.get(config.model_type, MATRICES),
        )

    @property
    def weights(self) -> int:
        """Bytes of the weights in fp32."""
        return FP32 * self.parameters

    @property
    def encoder(self) -> int:
        """Number of parameters of the encoder layers."""
        return sum(self.layers)

    def pruned(self, share: float, whole_vocabulary: bool) -> ModelSize:
        """The size of a student before its plan is known.

        Args:
            share: Share of the encoder that is kept.
            whole_vocabulary: Whether it keeps its vocabulary. How much of a pruned one is left is not known before the
                texts are read, so the embedding is not counted then.
        """
        embedding = self.embedding if whole_vocabulary else 0
        return replace(
            self,
            parameters=self.parameters - self.embedding - self.encoder + embedding + round(share * self.encoder),
            embedding=embedding,
            layers=tuple(round(share * count) for count in self.layers),
            columns=tuple((round(share * heads), round(share * ffn)) for heads, ffn in self.columns),
        )

    def activations(self, pairs: int, length: int, dropout: bool = False) -> int:
        """Bytes of the activations that a backward pass through the encoder needs in fp32.

        For each token and layer, a transformer in 16 bits keeps `11 h` bytes in attention, `3 h + 4 f` in the FFN and
        `4 h` in two norms, with the hidden size h and f FFN neurons (Korthikanti et al., "Reducing Activation
        Recomputation in Large Transformer Models", MLSys 2023, section 4.1, where f is 4 h); twice that in fp32. A
        gated FFN keeps twice the `4 f`. To these come the attention matrices that are kept.

        Args:
            pairs: Pairs of a batch.
            length: Tokens of each pair.
            dropout: Whether there is dropout.
        """
        linear = sum(2 * (18 * self.hidden + 4 * self.blocks * ffn) for _, ffn in self.columns)
        matrices = self.matrices + (DROPOUT_MATRICES if dropout else 0)
        return pairs * length * (linear + FP32 * matrices * self.heads * length * len(self.columns))
