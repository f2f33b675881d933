"""Second moments of the inputs of a linear layer: all that least-squares pruning needs of the calibration data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hfcompress.pruning.importance.least_squares import damped, in_float64, matrix_of, parameters_of


class Moments:
    """(2/N) X X^T over tokens, with a constant 1 as the last input if the layer has a bias.

    It is summed on the device of the inputs.

    Args:
        columns: Input columns without the constant.
        constant: Whether there is a constant input.
        device: Device of the inputs.

    Attributes:
        columns: Input columns without the constant.
        tokens: Number of tokens added.
        weight: Sum of their weights.
    """

    def __init__(self, columns: int, constant: bool, device: torch.device | str = "cpu") -> None:
        self.columns = columns
        self.constant = constant
        self.tokens = 0
        self.weight = 0.0
        self._sum = torch.zeros(columns + constant, columns + constant, device=device)

    def extended(self, inputs: Tensor) -> Tensor:
        """Inputs with the constant, shape `(tokens, columns + constant)`."""
        return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1) if self.constant else inputs

    def add(self, inputs: Tensor, weights: Tensor | None = None) -> None:
        """Add tokens.

        Args:
            inputs: Shape `(tokens, columns)`.
            weights: Weight of each token, shape `(tokens,)`; 1 by default.
        """
        x = self.extended(inputs).float()
        self._sum.addmm_((x if weights is None else x * weights[:, None]).T, x)
        self.weight += float(len(x) if weights is None else weights.sum())
        self.tokens += len(x)

    def matrix(self) -> Tensor:
        """(2/N) X X^T in float64, where N is the sum of the weights."""
        return 2 / (self.weight or 1.0) * in_float64(self._sum)


class Fit:
    """Least-squares fit of a linear layer to target outputs; pruning may have left only its bias.

    Args:
        layer: The layer; it is not changed.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.weight = matrix_of(layer)
        self.bias = layer.bias is not None
        device = getattr(layer, "weight").device  # noqa: B009
        self.moments = Moments(self.weight.shape[1] - self.bias, self.bias, device)
        self._cross = torch.zeros(self.weight.shape, device=device)

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add tokens: inputs `(tokens, columns)`, target outputs `(tokens, outputs)`, weights `(tokens,)`."""
        self.moments.add(inputs, weights)
        weighted = targets if weights is None else targets * weights[:, None]
        self._cross.addmm_(weighted.float().T, self.moments.extended(inputs).float())

    def solve(self, damping: float) -> dict[str, Tensor]:
        """Weight and bias with the least error, damped towards those of the layer.

        `argmin_W (2/N) sum |W x - y|^2 + damping mean(diag H) |W - W_0|^2`; the bias is not damped.
        """
        moments = self.moments.matrix()
        gradient = 2 / (self.moments.weight or 1.0) * in_float64(self._cross) - self.weight @ moments
        step = torch.linalg.solve(damped(moments, damping, self.moments.columns), gradient.T).T
        return parameters_of(self.weight + step, self.bias)
