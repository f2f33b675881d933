"""What R-Drop and adversarial training need: dropout, and a second pass with the word embeddings moved up the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainingArguments

from hfcompress.errors import ModelError


def adversarial_step(embeddings: nn.Module, epsilon: float, step: Callable[[], Tensor]) -> Tensor:
    """Take a step's gradient, then add that of the same step with each text's embeddings moved up the loss.

    Fast gradient method of Miyato et al. (ICLR 2017): what is added to the word embeddings of a text is
    `epsilon * g / ||g||`, with g the gradient of the loss with respect to all of the text's word embeddings. It goes to
    what the embedding layer puts out. So no weight changes on the way, frozen embeddings do as well, and the texts of
    an accumulated batch are moved just as in one large batch.

    Args:
        embeddings: The layer of the word embeddings; puts out `(pairs, tokens, elements)`.
        epsilon: Length of what is added to each pair.
        step: Computes the loss and its gradients, which it adds to those that are there, in one pass or in several
            that are the same each time.

    Returns:
        What the first call of `step` returned.
    """
    probes: list[Tensor] = []

    def probe(output: Tensor) -> Tensor:
        probes.append(torch.zeros_like(output, requires_grad=True))
        return output + probes[-1]

    with _changed_output(embeddings, probe):
        loss = step()
    gradients = (probe.grad for probe in probes)

    def move(output: Tensor) -> Tensor:
        gradient = next(gradients)
        assert gradient is not None
        added = epsilon * functional.normalize(gradient.float().flatten(1), dim=1).view_as(gradient)
        return output + added.to(output.dtype)

    with _changed_output(embeddings, move):
        step()
    return loss


def require_dropout(model: nn.Module) -> None:
    """Check that two passes of a model in training differ, which R-Drop compares.

    Raises:
        ModelError: The model has no dropout, or all of it is 0.
    """
    if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        raise ModelError(
            "r_drop compares two passes that differ in dropout, and this model has none",
            value="dropout 0",
            expected="a dropout above 0",
            remedy="set one, for example with hfcompress.training.fit.set_dropout(model, 0.1), or leave out r_drop",
        )


def require_hooks(arguments: TrainingArguments, option: str) -> None:
    """Check that hooks on the parts of a model see all of every pass, which `option` needs.

    Raises:
        ModelError: The model will be compiled, or copied to several devices by one process.
    """
    if arguments.n_gpu > 1 or arguments.torch_compile:
        raise ModelError(
            f"{option} cannot reach into a model that is compiled or copied to several devices",
            value=f"n_gpu={arguments.n_gpu}, torch_compile={arguments.torch_compile}",
            expected="one device a process, and no compilation",
            remedy=f"use accelerate launch for several devices and leave torch_compile out, or leave out {option}",
        )


@contextmanager
def _changed_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    hook = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()
