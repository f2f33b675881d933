"""How much each token of each sublayer's output counts for the ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers
from hfcompress.training.trainer import RANKING_COLUMNS

Weights = dict[tuple[int, str], Tensor]
"""For a layer's position and the path of W_O or W_2, one weight for each token of a batch, `(pairs, tokens)`."""


def margin_weights(
    model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], seed: int = 0, progress: bool = True
) -> list[Weights]:
    """Weights of tokens by how far the margins between a query's documents move when a sublayer's output moves.

    A small change D of the output of W_O or W_2 at token t changes the scores s of a query's documents, less their
    mean, by a vector whose expected square is `E[(g . D)^2]`, with g the gradient at t of `v . s` and v standard normal
    less its mean. Taken alike in all directions of D, that is `E[|g|^2] |D|^2 / size of g`: a squared error with a
    weight for each token. One v is drawn for each query. In the last layer of a model that reads only [CLS] all other
    tokens get 0.

    This is the Fisher information of scores with unit normal errors; guidance of layer-wise errors by the gradient of
    the end loss: Kim et al., "GuidedQuant", ICML 2025. The Fisher information of the softmax over the documents did
    worse here: it is next to nothing wherever the model is sure.

    Args:
        model: A sequence-classification model, pruned or not.
        batches: Batches of `RankingCollator`; labels are not used.
        seed: Seed of the draws.
        progress: Show a progress bar.

    Returns:
        For each batch the weights, `|g|^2 / size of g`; 0 for padding.
    """
    generator = torch.Generator().manual_seed(seed)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = model.training
    model.eval().requires_grad_(False)
    result = []
    try:
        for batch in tqdm(batches, desc="token weights", unit="batch", disable=not progress, leave=False):
            inputs = {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}
            with _probes(model) as probes:
                scores = model(**inputs).logits[:, 0].float()
            directions = _directions(batch["list_mask"], generator)
            gradients = torch.autograd.grad(scores @ directions, list(probes.values()))
            real = batch["attention_mask"].bool()
            weights = [gradient.float().square().mean(-1) * real for gradient in gradients]
            result.append(dict(zip(probes, weights, strict=True)))
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
    return result


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
