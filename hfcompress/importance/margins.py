"""How much each token, and each direction, of every sublayer's output counts for the ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers
from hfcompress.errors import DataError
from hfcompress.progress import progress_bar
from hfcompress.training.trainer import RANKING_COLUMNS

Weights = dict[tuple[int, str], Tensor]
"""For a layer's position and the path of W_O or W_2, one weight for each token of a batch, `(pairs, tokens)`."""


@dataclass(frozen=True)
class MarginGradients:
    """How far a query's margins move with the outputs of W_O and W_2.

    Attributes:
        tokens: For each batch one weight for each token, `|g|^2 / hidden size`; 0 for padding.
        directions: For a layer's position and the path of W_O or W_2 the second moment of g over all tokens, scaled
            to the trace of a unit matrix, float64, shape `(hidden, hidden)`; the unit matrix where g is 0.
    """

    tokens: list[Weights]
    directions: dict[tuple[int, str], Tensor]


def margin_gradients(
    model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], seed: int = 0, progress: bool = True
) -> MarginGradients:
    """How far the margins between a query's documents move when a sublayer's output moves.

    A small change D of the output of W_O or W_2 at token t changes the scores s of a query's documents, less their
    mean, by a vector whose expected square is `E[(g . D)^2]`, with g the gradient at t of `v . s` and v standard normal
    less its mean. One v is drawn for each query. Taken apart into a size for each token and a direction for the
    sublayer that is `E[|g|^2 D^T G D] / size of g`, with G the second moment of g: few directions of the hidden state
    move the scores, in the last layer hardly more than one. In the last layer of a model that reads only [CLS] all
    other tokens get 0.

    This is the Fisher information of scores with unit normal errors, with the Kronecker factors of Martens and Grosse
    ("K-FAC", ICML 2015) for the outputs; guidance of layer-wise errors by the gradient of the end loss: Kim et al.,
    "GuidedQuant", ICML 2025. The Fisher information of the softmax over the documents did worse here: it is next to
    nothing wherever the model is sure.

    Args:
        model: A sequence-classification model, pruned or not.
        batches: Batches of `RankingCollator`; labels are not used.
        seed: Seed of the draws.
        progress: Show a progress bar.

    Raises:
        DataError: A score is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = model.training
    model.eval().requires_grad_(False)
    tokens: list[Weights] = []
    moments: dict[tuple[int, str], Tensor] = {}
    try:
        for batch in progress_bar(batches, desc="margin gradients", unit="batch", disable=not progress, leave=False):
            inputs = {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}
            with _probes(model) as probes:
                scores = model(**inputs).logits[:, 0].float()
            require_finite(scores)
            directions = _directions(batch["list_mask"], generator)
            gradients = torch.autograd.grad(scores @ directions, list(probes.values()))
            real = batch["attention_mask"].bool()
            found = dict(zip(probes, (gradient.float() for gradient in gradients), strict=True))
            tokens.append({name: gradient.square().mean(-1) * real for name, gradient in found.items()})
            for name, gradient in found.items():
                rows = gradient[real]
                moments[name] = moments.get(name, torch.zeros(())) + (rows.T @ rows).double()
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
    return MarginGradients(tokens, {name: _unit_trace(moment) for name, moment in moments.items()})


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
    """A second moment over the mean of its diagonal."""
    mean = float(moment.diagonal().mean())
    return moment / mean if mean else torch.eye(len(moment), dtype=torch.float64)


def _directions(mask: Tensor, generator: torch.Generator) -> Tensor:
    """For each list a standard normal vector less its mean, over the square root of its length; all in one row."""
    sizes = mask.sum(1, keepdim=True)
    drawn = torch.randn(mask.shape, generator=generator) * mask
    return ((drawn - drawn.sum(1, keepdim=True) / sizes) / sizes.sqrt())[mask]


@contextmanager
def _probes(model: PreTrainedModel) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Zeros added to the outputs of all W_O and W_2, whose gradients are those of the outputs."""
    probes: dict[tuple[int, str], Tensor] = {}

    def add_zeros(name: tuple[int, str]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            probes[name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[name]

        return hook

    architecture = architecture_of(model.config)
    hooks = [
        layer.get_submodule(path).register_forward_hook(add_zeros((number, path)))
        for number, layer in enumerate(encoder_layers(model))
        for path in (architecture.attention_output, architecture.ffn_out)
    ]
    try:
        yield probes
    finally:
        for hook in hooks:
            hook.remove()
