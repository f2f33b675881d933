"""Quantization-aware training in any `Trainer`: fake quantization with straight-through gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerControl, TrainerState, TrainingArguments

from hfcompress.errors import RecipeError
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.packing import Codec
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.rounding import REDUCED_STEPS, Range, rounded_input, rounded_weight, weight_steps
from hfcompress.quantization.weights import packed_modules, straight_through
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.stateful import StatefulCallback

MOMENTUM = 0.95  # of the moving average of static ranges


class QuantizationAwareCallback(StatefulCallback):
    """Trains the encoder's linear layers with fake quantization to int8, in any `Trainer`.

    From `begin` on, weights are rounded to 8 bits as in ONNX Runtime (symmetric, one scale for each output channel or
    for the whole matrix) and inputs to 8 bits (asymmetric, one scale for the batch). Gradients pass through the
    rounding unchanged (straight-through estimator; Jacob et al., CVPR 2018). Evaluations always use the rounded model,
    so that `load_best_model_at_end` chooses the best one in int8. The weights stay in fp32, and the model has its
    original modules when training ends: export and quantize it as usual. With `weights`, the model is trained for
    low-bit packed weights in the same way. A checkpoint resumes bit-equal; see `StatefulCallback`.

    Args:
        begin: Share of all steps from which training is rounded too.
        activations: `dynamic` computes the range of inputs for each batch; `static` uses a moving average over the
            training, as a model of static quantization.
        per_channel: One weight scale for each output channel.
        reduce_range: 7-bit weights; None decides by the CPU, like `DynamicQuantizationConfig`.
        weights: Round only the weights that these settings pack, as they do; of the other settings, only `begin`
            applies then. A dict has the arguments of `WeightQuantizationConfig`.

    Raises:
        RecipeError: `begin` is not in [0, 1). When training begins: the resumed checkpoint was made with other
            settings.
    """

    def __init__(
        self,
        begin: float = 0.5,
        activations: Literal["dynamic", "static"] = "dynamic",
        per_channel: bool = True,
        reduce_range: bool | None = None,
        weights: WeightQuantizationConfig | dict[str, Any] | None = None,
    ) -> None:
        if not 0 <= begin < 1:
            raise RecipeError(
                "Quantization-aware training cannot begin there",
                value=begin,
                expected="a share of all steps, from 0 to less than 1",
                remedy="correct begin",
            )
        self.begin, self.activations, self.per_channel = begin, activations, per_channel
        self.steps = weight_steps(reduce_range)
        self.weights = WeightQuantizationConfig(**weights) if isinstance(weights, dict) else weights
        self.ranges: dict[str, Range] = {}
        self._rounding = False
        self._overrides = ExitStack()

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor, with `reduce_range` as decided by the CPU."""
        names = ("method", "bits", "group_size", "scope")
        return {
            "begin": self.begin,
            "activations": self.activations,
            "per_channel": self.per_channel,
            "reduce_range": self.steps == REDUCED_STEPS,
            "weights": {name: getattr(self.weights, name) for name in names} if self.weights else None,
        }

    def progress(self) -> dict[str, Any]:
        """The moving averages of static ranges."""
        return {"ranges": self.ranges}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replace the `forward` of layers; restore the ranges of a resumed checkpoint."""
        self._overrides.close()
        saved = self.begin_training(state, kwargs["model"]) or {"ranges": {}}
        self.ranges = {name: (low, high) for name, (low, high) in saved["ranges"].items()}
        if self.weights is not None:
            for packed in packed_modules(transformer_of(kwargs["model"]), self.weights.scope).values():
                self._override(packed, self._packed_forward(packed, self.weights.codec))
            return
        for number, layer in enumerate(encoder_layers(transformer_of(kwargs["model"]))):
            for name, module in layer.named_modules():
                if isinstance(module, nn.Linear):
                    self._override(module, self._forward(module, f"{number}.{name}"))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin rounding at the step of `begin`."""
        self._rounding = state.global_step >= self.begin * state.max_steps

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the `forward` of layers."""
        self.end_training()
        self._overrides.close()

    def _override(self, module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        setattr(module, "forward", forward)  # noqa: B010
        self._overrides.callback(delattr, module, "forward")

    def _packed_forward(self, module: nn.Linear | nn.Embedding, codec: Codec) -> Callable[[Tensor], Tensor]:
        def weight_of(exact: Tensor) -> Tensor:
            return exact if module.training and not self._rounding else straight_through(exact, codec)

        def look_up(inputs: Tensor) -> Tensor:
            rows = functional.embedding(inputs, module.weight, getattr(module, "padding_idx", None))
            return weight_of(rows.flatten(0, -2)).view_as(rows)  # scales are per row, so rounding only these is exact

        def multiply(inputs: Tensor) -> Tensor:
            return functional.linear(inputs, weight_of(module.weight), getattr(module, "bias", None))

        return look_up if isinstance(module, nn.Embedding) else multiply

    def _forward(self, module: nn.Linear, name: str) -> Callable[[Tensor], Tensor]:
        def forward(inputs: Tensor) -> Tensor:
            if self.activations == "static" and module.training:
                self._observe(name, inputs.detach())
            if module.training and not self._rounding:
                return functional.linear(inputs, module.weight, module.bias)
            weight = rounded_weight(module.weight, self.per_channel, self.steps)
            return functional.linear(rounded_input(inputs, self.ranges.get(name)), weight, module.bias)

        return forward

    def _observe(self, name: str, inputs: Tensor) -> None:
        low, high = (float(bound) for bound in inputs.aminmax())
        if name in self.ranges:
            before = self.ranges[name]
            low, high = MOMENTUM * before[0] + (1 - MOMENTUM) * low, MOMENTUM * before[1] + (1 - MOMENTUM) * high
        self.ranges[name] = low, high
