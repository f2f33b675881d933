"""Second moments of the inputs of a linear layer, which is all that least-squares pruning needs to know of data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hfcompress.importance.least_squares import damped, matrix_of, parameters_of


class Moments:
    """(2/N) X X^T over the tokens seen, with a constant 1 behind x where the layer has a bias.

    Attributes:
        columns: Input columns without the constant.
        tokens: Tokens seen.
        weight: Sum of their weights.
    """

    def __init__(self, columns: int, constant: bool) -> None:
        self.columns = columns
        self.constant = constant
        self.tokens = 0
        self.weight = 0.0
        self._sum = torch.zeros(columns + constant, columns + constant)

    def extended(self, inputs: Tensor) -> Tensor:
        """Inputs with the constant, shape `(tokens, columns + constant)`."""
        return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1) if self.constant else inputs

    def add(self, inputs: Tensor, weights: Tensor | None = None) -> None:
        """Add tokens.

        Args:
            inputs: Shape `(tokens, columns)`.
            weights: How much each token counts, shape `(tokens,)`; all alike by default.
        """
        x = self.extended(inputs).float()
        self._sum.addmm_((x if weights is None else x * weights[:, None]).T, x)
        self.weight += float(len(x) if weights is None else weights.sum())
        self.tokens += len(x)

    def matrix(self) -> Tensor:
        """(2/N) X X^T in float64, N the sum of the weights."""
        return 2 / (self.weight or 1.0) * self._sum.double()


class Fit:
    """Least squares for a linear layer, or for the bias that pruning left of one, from inputs and outputs wanted.

    Args:
        layer: The layer; it is not changed.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.weight = matrix_of(layer)
        self.bias = layer.bias is not None
        self.moments = Moments(self.weight.shape[1] - self.bias, self.bias)
        self._cross = torch.zeros(self.weight.shape)

    def add(self, inputs: Tensor, outputs: Tensor, weights: Tensor | None = None) -> None:
        """Add tokens: inputs `(tokens, columns)`, outputs wanted `(tokens, outputs)`, weights `(tokens,)`."""
        self.moments.add(inputs, weights)
        wanted = outputs if weights is None else outputs * weights[:, None]
        self._cross.addmm_(wanted.float().T, self.moments.extended(inputs).float())

    def solve(self, damping: float) -> dict[str, Tensor]:
        """Weight and bias of least error, damped towards the layer's own.

        `argmin_W (2/N) sum |W x - y|^2 + damping mean(diag H) |W - W_0|^2`, the bias not damped.
        """
        moments = self.moments.matrix()
        gradient = 2 / (self.moments.weight or 1.0) * self._cross.double() - self.weight @ moments
        step = torch.linalg.solve(damped(moments, damping, self.moments.columns), gradient.T).T
        return parameters_of(self.weight + step, self.bias)
