"""Sensitivity of the ranking margins to each token and each direction of a sublayer's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.errors import DataError
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.hooks import evaluation_mode, hooks
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.importance.least_squares import in_float64
from hfcompress.utils.device import moved
from hfcompress.utils.progress import progress_bar

TokenWeights = dict[tuple[int, str], Tensor]
"""Weights of the tokens of a batch, `(pairs, tokens)`, by layer index and path of W_O or W_2."""


@dataclass(frozen=True)
class MarginGradients:
    """Gradients g of a query's margins with respect to the outputs of W_O and W_2, as second moments.

    Attributes:
        tokens: For each batch the token weights `|g|^2 / hidden size`; 0 for padding.
        directions: By layer index and path of W_O or W_2, the second moment of g over all tokens, scaled to the trace
            of the unit matrix, float64, shape `(hidden, hidden)`; the unit matrix if g is 0.
    """

    tokens: list[TokenWeights]
    directions: dict[tuple[int, str], Tensor]


def margin_gradients(
    model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], seed: int = 0, progress: bool = True
) -> MarginGradients:
    """Measure how the margins between a query's documents depend on the outputs of each sublayer.

    A small change D of the output of W_O or W_2 at token t changes the centered scores s of a query's documents by a
    vector with the expected square `E[(g . D)^2]`, where g is the gradient at t of `v . s`, and v is standard normal
    and centered. One v is drawn per query. Factored into a weight for each token and directions for the sublayer, this
    is `E[|g|^2 D^T G D] / size of g` with the second moment G of g. Few directions of the hidden state change the
    scores, in the last layer hardly more than one. In the last layer of a model that reads only [CLS], all other tokens
    have weight 0.

    This is the Fisher information of scores with unit normal errors, with the Kronecker factors of Martens and Grosse
    ("K-FAC", ICML 2015) for the outputs. Weighting layer-wise errors by the gradient of the final loss: Kim et al.,
    "GuidedQuant", ICML 2025. The Fisher information of the softmax over the documents worked less well here, since it
    is almost 0 for confident predictions.

    Args:
        model: A sequence-classification model, pruned or not.
        batches: Batches of `RankingCollator`; labels are not used.
        seed: Seed of v.
        progress: Show a progress bar.

    Raises:
        DataError: A score is not finite.
    """
    model = unwrapped(model)
    generator = torch.Generator().manual_seed(seed)
    tokens: list[TokenWeights] = []
    moments: dict[tuple[int, str], Tensor] = {}
    with evaluation_mode(model, frozen=True):
        for batch in progress_bar(batches, desc="margin gradients", unit="batch", disable=not progress, leave=False):
            weights, of_batch = _of_batch(model, batch, generator)
            tokens.append(weights)
            for name, moment in of_batch.items():
                moments[name] = moments[name] + moment if name in moments else moment
    return MarginGradients(tokens, {name: _unit_trace(moment) for name, moment in moments.items()})


def _of_batch(
    model: PreTrainedModel, batch: dict[str, Tensor], generator: torch.Generator
) -> tuple[TokenWeights, dict[tuple[int, str], Tensor]]:
    """Token weights of a batch, and the sums of `g g^T` over its real tokens, `(h, h)` in float64.

    The gradients themselves are as large as the hidden states of all layers, and are gone before the next batch.
    """
    with _probes(model) as probes:
        inputs = moved(model_inputs(batch), model.device)
        scores = model(**inputs).logits[:, 0].float()
    require_finite(scores)
    directions = _directions(batch["list_mask"].cpu(), generator).to(scores.device)
    gradients = torch.autograd.grad(scores @ directions, list(probes.values()))
    real = inputs["attention_mask"].bool()
    found = dict(zip(probes, (gradient.float() for gradient in gradients), strict=True))
    weights = {name: gradient.square().mean(-1) * real for name, gradient in found.items()}
    return weights, {name: _second_moment(gradient[real]) for name, gradient in found.items()}


def _second_moment(rows: Tensor) -> Tensor:
    return in_float64(rows.T @ rows)


def require_finite(scores: Tensor) -> None:
    """Check the scores of calibration pairs.

    Raises:
        DataError: One is not finite.
    """
    if not torch.isfinite(scores).all():
        raise DataError(
            "The model gave a score that is not finite on calibration data",
            value=scores.tolist(),
            expected="finite scores",
            remedy="check the checkpoint: its weights may be broken, or overflow in 16 bits",
        )


def _unit_trace(moment: Tensor) -> Tensor:
    """A second moment divided by the mean of its diagonal."""
    mean = float(moment.diagonal().mean())
    return moment / mean if mean else torch.eye(len(moment), dtype=torch.float64, device=moment.device)


def _directions(mask: Tensor, generator: torch.Generator) -> Tensor:
    """A centered standard normal vector for each list, divided by the square root of its length; all concatenated."""
    sizes = mask.sum(1, keepdim=True)
    drawn = torch.randn(mask.shape, generator=generator) * mask
    return ((drawn - drawn.sum(1, keepdim=True) / sizes) / sizes.sqrt())[mask]


@contextmanager
def _probes(model: PreTrainedModel) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Add zeros to the outputs of all W_O and W_2; their gradients are those of the outputs."""
    probes: dict[tuple[int, str], Tensor] = {}

    def add_zeros(name: tuple[int, str], _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        probes[name] = torch.zeros_like(output, requires_grad=True)
        return output + probes[name]

    architecture = architecture_of(model.config)
    handles = [
        layer.get_submodule(path).register_forward_hook(partial(add_zeros, (number, path)))
        for number, layer in enumerate(encoder_layers(model))
        for path in (architecture.attention_output, architecture.ffn_out)
    ]
    with hooks(handles):
        yield probes
