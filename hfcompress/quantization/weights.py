"""Low-bit weight-only quantization: which matrices are packed, their file, and the same rounding in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from hfcompress.models.architectures import encoder_linears, input_embedding
from hfcompress.models.layout import PACKED_FOLDER
from hfcompress.models.packing import Codec, round_trip, write_packed
from hfcompress.models.wrappers import own_state, unwrapped
from hfcompress.quantization.config import WeightQuantizationConfig


def packed_file(config: WeightQuantizationConfig) -> str:
    """Path in the repository of the packed file of a config."""
    return f"{PACKED_FOLDER}/model_{config.stored_as}.safetensors"


def packed_modules(model: PreTrainedModel, scope: str) -> dict[str, nn.Linear | nn.Embedding]:
    """Modules whose weights are packed, by name.

    Args:
        model: The model, pruned or not.
        scope: `embeddings` for the word embeddings, `all` also for the linear layers of the encoder.
    """
    embeddings = input_embedding(model)
    name = next(name for name, module in model.named_modules() if module is embeddings)
    return {name: embeddings, **(encoder_linears(model) if scope == "all" else {})}


def save_packed(model: PreTrainedModel, config: WeightQuantizationConfig, folder: Path) -> Path:
    """Write the packed weights of a model into a repository; `load_model(folder, file=...)` loads them.

    Args:
        model: The model.
        config: Settings of packing.
        folder: The repository, with `config.json`.

    Raises:
        ModelError: A weight is not finite.
    """
    model = unwrapped(model)
    packed = [f"{name}.weight" for name in packed_modules(model, config.scope)]
    return write_packed(folder / packed_file(config), own_state(model), packed, config.codec)


def straight_through(weight: Tensor, codec: Codec) -> Tensor:
    """A matrix as it is dequantized from its file, with a straight-through gradient."""
    return round_trip(weight, codec) + (weight - weight.detach())


def packed_rounding(
    model: PreTrainedModel, config: WeightQuantizationConfig
) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """A context manager that gives a module of the model its weight after packing, if that is packed."""
    packed = {id(module) for module in packed_modules(model, config.scope).values()}

    def rounding(module: nn.Module) -> AbstractContextManager[None]:
        return _with_rounded_weight(module, config.codec) if id(module) in packed else nullcontext()

    return rounding


@contextmanager
def _with_rounded_weight(module: nn.Module, codec: Codec) -> Iterator[None]:
    weight = module.get_parameter("weight")
    exact = weight.data
    weight.data = round_trip(exact, codec)
    try:
        yield
    finally:
        weight.data = exact
