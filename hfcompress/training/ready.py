"""What a model must be before it is trained: without wrappers, and with own weights for each layer."""

from __future__ import annotations

import logging
from typing import TypeVar

from torch import nn

from hfcompress.errors import ModelError
from hfcompress.models.wrappers import has_wrappers, shared_modules, shared_weights, untie_, unwrap_

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=nn.Module)


def ready_to_train(model: ModelT) -> ModelT:
    """Remove wrappers from a model, and give layers that share weights their own, in place and with a note.

    Hooks, pruning and checkpoints need both: a checkpoint has the stock names, and each layer's weights once.

    Returns:
        The model inside the wrappers.
    """
    if has_wrappers(model):
        logger.warning(
            "the model was compiled or wrapped: it is trained without the wrapper; for a compiled training, set "
            "torch_compile in the arguments"
        )
        model = unwrap_(model)
    if names := untie_(model, getattr(model, "config", None)):
        logger.warning(f"{len(names)} weights were shared, among them {names[0]}: each place has its own from here on")
    return model


def optimizer_of_shared_weights() -> ModelError:
    """The error of an optimizer that was made before the weights were copied."""
    return ModelError(
        "Layers share weights, and each of them gets its own, which the given optimizer does not have",
        value="optimizers",
        expected="an optimizer of all weights",
        remedy="call hfcompress.models.wrappers.untie_(model) before you make the optimizer, or leave it out",
    )


def require_plain(model: nn.Module) -> None:
    """Check a model whose layers a callback changes, when it enters a trainer of another package.

    Raises:
        ModelError: It was compiled or wrapped before training, or parts of it share weights.
    """
    if has_wrappers(model):
        raise ModelError(
            "The model was compiled or wrapped before training, so hooks would have no effect, and its "
            "checkpoints would have other names",
            value=type(model).__name__,
            expected="a model without wrappers in it",
            remedy="pass the model from before, or hfcompress.models.wrappers.unwrap_(model); for a compiled training "
            "set torch_compile in the arguments",
        )
    if shared := shared_modules(model) or shared_weights(model):
        raise ModelError(
            "Parts of the model share weights, and the callback compresses each of them separately",
            value=f"{shared[0]} and {len(shared) - 1} more",
            expected="own weights for each part",
            remedy="call hfcompress.models.wrappers.untie_(model) before you make the trainer",
        )
