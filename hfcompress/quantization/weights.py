"""Weights of few bits: which matrices of a model are packed, the file of them, and the same rounding in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers
from hfcompress.layout import PACKED_FOLDER
from hfcompress.packing import Codec, rounded, write_packed
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.surgery import unwrapped


def packed_file(config: WeightQuantizationConfig) -> str:
    """Path in the repository of the file that a config makes."""
    return f"{PACKED_FOLDER}/model_{config.stored_as}.safetensors"


def packed_modules(model: PreTrainedModel, scope: str) -> dict[str, nn.Linear | nn.Embedding]:
    """The modules whose weights are packed, by their names in the model.

    Args:
        model: The model, pruned or not.
        scope: `embeddings` for the word embeddings, `all` for these and the linear layers of the encoder.
    """
    names = {id(module): name for name, module in model.named_modules()}
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    found: dict[str, nn.Linear | nn.Embedding] = {names[id(embeddings)]: embeddings}
    if scope == "all":
        prefix = architecture_of(model.config).layers
        for name, module in encoder_layers(model).named_modules():
            if isinstance(module, nn.Linear):
                found[f"{prefix}.{name}"] = module
    return found


def save_packed(model: PreTrainedModel, config: WeightQuantizationConfig, folder: Path) -> Path:
    """Write the weights of a model into a repository, packed as a config says; `load_model(folder, file=...)` opens it.

    Args:
        model: The model.
        config: What to pack, and how.
        folder: The repository, with `config.json`.

    Raises:
        ModelError: A weight is not finite.
    """
    model = unwrapped(model)
    packed = [f"{name}.weight" for name in packed_modules(model, config.scope)]
    return write_packed(folder / packed_file(config), model.state_dict(), packed, config.codec)


def straight_through(weight: Tensor, codec: Codec) -> Tensor:
    """A matrix as it comes back from its file; the gradient is that of the matrix itself (straight-through)."""
    return rounded(weight, codec) + (weight - weight.detach())


def packed_rounding(
    model: PreTrainedModel, config: WeightQuantizationConfig
) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A function that, for a block, gives a module of a model the weight that it has after packing, if it is packed."""
    packed = {id(module) for module in packed_modules(model, config.scope).values()}

    def rounding(module: nn.Module) -> AbstractContextManager[None]:
        return _rounded(module, config.codec) if id(module) in packed else nullcontext()

    return rounding


@contextmanager
def _rounded(module: nn.Module, codec: Codec) -> Iterator[None]:
    weight = module.get_parameter("weight")
    exact = weight.data
    weight.data = rounded(exact, codec)
    try:
        yield
    finally:
        weight.data = exact
