"""R-Drop and adversarial training: their requirements, and the adversarial step on word embeddings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainingArguments

from hfcompress.errors import ModelError
from hfcompress.models.hooks import hooks


def adversarial_step(embeddings: nn.Module, epsilon: float, step: Callable[[], Tensor]) -> Tensor:
    """Run a step, then add the gradient of the same step with adversarially perturbed word embeddings.

    Fast gradient method (Miyato et al., ICLR 2017): the perturbation of a text's word embeddings is
    `epsilon * g / ||g||`, with g the gradient of the loss with respect to all of the text's word embeddings. It is
    added to the output of the embedding layer, so no weight changes, embeddings may be frozen, and the perturbations of
    an accumulated batch equal those of one large batch.

    Args:
        embeddings: The word embedding layer, with output `(pairs, tokens, elements)`.
        epsilon: L2 norm of each pair's perturbation.
        step: Computes the loss and accumulates its gradients, with the same forward passes in each call.

    Returns:
        The result of the first call of `step`.
    """
    probes: list[Tensor] = []

    def probe(output: Tensor) -> Tensor:
        probes.append(torch.zeros_like(output, requires_grad=True))
        return output + probes[-1]

    with _changed_output(embeddings, probe):
        loss = step()
    gradients = (probe.grad for probe in probes)

    def perturb(output: Tensor) -> Tensor:
        gradient = next(gradients)
        assert gradient is not None
        added = epsilon * functional.normalize(gradient.float().flatten(1), dim=1).view_as(gradient)
        return output + added.to(output.dtype)

    with _changed_output(embeddings, perturb):
        step()
    return loss


def require_dropout(model: nn.Module) -> None:
    """Check that a model has dropout, which R-Drop needs.

    Raises:
        ModelError: The model has no dropout, or all probabilities are 0.
    """
    if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        raise ModelError(
            "r_drop compares two passes that differ in dropout, and this model has no dropout",
            value="dropout 0",
            expected="a dropout above 0",
            remedy="set one, for example with hfcompress.training.fit.set_dropout(model, 0.1), or leave out r_drop",
        )


def require_hooks(arguments: TrainingArguments, option: str) -> None:
    """Check that hooks on the modules of a model work, which `option` needs.

    Raises:
        ModelError: The model will be compiled, or copied to several devices by one process.
    """
    if arguments.n_gpu > 1 or arguments.torch_compile:
        raise ModelError(
            f"{option} needs hooks, which do not work if the model is compiled or copied to several devices",
            value=f"n_gpu={arguments.n_gpu}, torch_compile={arguments.torch_compile}",
            expected="one device per process, and no compilation",
            remedy=f"use accelerate launch for several devices and leave torch_compile out, or leave out {option}",
        )


def _changed_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
    return hooks([module.register_forward_hook(lambda _module, _inputs, output: change(output))])
