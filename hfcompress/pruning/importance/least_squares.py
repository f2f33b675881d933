"""Structured optimal brain surgeon on one linear layer: order of column removal, and least-squares weight update.

A layer `y = W x` has inputs with the second moments `H = (2/N) X X^T + damping`. Replacing `W` by `W'` costs
`tr((W - W') H (W - W')^T)`, twice the mean squared error of the output plus the damping. For a set S of columns, the
cheapest `W'` with `W'_S = 0` costs `tr(W_S ((H^-1)_SS)^-1 W_S^T)` and is `W - W_S ((H^-1)_SS)^-1 (H^-1)_S,:`. The
inverse for the remaining columns is `H^-1 - (H^-1)_:,S ((H^-1)_SS)^-1 (H^-1)_S,:`.

Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993; for groups of columns:
Kurtic et al., "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023.

All computations are in float64, on the device of the tensors if it has float64. A bias is the last column of `W`, with
a constant 1 as its input. It is never removed and is updated with the other columns, so that a layer without remaining
inputs outputs its mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hfcompress.utils.device import float64_device


@dataclass(frozen=True)
class Removal:
    """The order in which the groups of a layer are removed, and the errors; on the CPU.

    Attributes:
        order: Indices of the groups in the order of removal, shape `(groups,)`.
        errors: Loss after the first k removals, shape `(groups + 1,)`, not decreasing; `errors[0]` is 0.
    """

    order: Tensor
    errors: Tensor


def damped(moments: Tensor, damping: float, columns: int) -> Tensor:
    """Add `damping` times the mean of the diagonal to the diagonal, in float64.

    Args:
        moments: `(2/N) X X^T`, shape `(columns, columns)`.
        damping: Share of the mean of the diagonal.
        columns: Number of columns to damp, the first ones; a constant input after them is not damped.
    """
    matrix = moments.double().clone()
    if columns:
        diagonal = matrix.diagonal()[:columns]
        diagonal += damping * (float(diagonal.mean()) or 1e-9)  # for inputs that are all zero
    return matrix


def in_float64(tensor: Tensor) -> Tensor:
    """A tensor in float64, on its device or, if that has no float64, on the CPU."""
    return tensor.detach().to(float64_device(tensor.device)).double()


def matrix_of(layer: nn.Module) -> Tensor:
    """W of a linear layer, or of the bias that pruning left of one, in float64, with the bias as the last column."""
    parts: list[Tensor] = [layer.get_parameter("bias")[:, None]] if layer.bias is not None else []
    return in_float64(torch.cat([getattr(layer, "weight"), *parts], 1))  # noqa: B009


def parameters_of(matrix: Tensor, bias: bool) -> dict[str, Tensor]:
    """Weight and bias in fp32, from a matrix of `matrix_of`."""
    parts = {"weight": matrix[:, :-1], "bias": matrix[:, -1]} if bias else {"weight": matrix}
    return {name: part.float().contiguous() for name, part in parts.items()}


def removal_scores(weight: Tensor, inverse: Tensor, size: int, groups: int) -> Tensor:
    """Loss of removing each group of columns alone, shape `(groups,)`.

    Args:
        weight: W, shape `(outputs, columns)`; the groups are its first columns.
        inverse: H^-1, shape `(columns, columns)`.
        size: Columns of a group.
        groups: Number of groups.
    """
    width = groups * size
    columns = weight[:, :width]
    if size == 1:
        return columns.square().sum(0) / inverse.diagonal()[:width]
    blocks = torch.stack([inverse[start : start + size, start : start + size] for start in range(0, width, size)])
    parts = columns.reshape(len(weight), groups, size).permute(1, 2, 0)  # (groups, size, outputs)
    return (parts * torch.linalg.solve(blocks, parts)).sum((1, 2))


def remove(weight: Tensor, inverse: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, float]:
    """Remove columns and update the other ones by least squares.

    Args:
        weight: W, shape `(outputs, columns)`.
        inverse: H^-1, shape `(columns, columns)`.
        columns: Indices of the columns to remove.

    Returns:
        The new weight and the inverse for the remaining columns, both without the removed columns, and the loss.
    """
    kept = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    kept[columns] = False
    block, rows = inverse[columns][:, columns], inverse[columns][:, kept]
    factor = torch.linalg.cholesky(block)
    share = torch.cholesky_solve(weight[:, columns].T, factor)  # ((H^-1)_SS)^-1 W_S^T
    loss = float((weight[:, columns].T * share).sum())
    weight = torch.addmm(weight[:, kept], share.T, rows, alpha=-1)
    inverse = torch.addmm(inverse[kept][:, kept], rows.T, torch.cholesky_solve(rows, factor), alpha=-1)
    return weight, inverse, loss


def removal_order(weight: Tensor, hessian: Tensor, size: int, groups: int, block: int = 1) -> Removal:
    """Remove all groups one block at a time, always those with the least loss given all earlier removals.

    Args:
        weight: W, shape `(outputs, columns)`; the groups are its first columns.
        hessian: H, shape `(columns, columns)`, positive definite.
        size: Columns of a group.
        groups: Number of groups.
        block: Groups removed at a time, before the remaining ones are scored again.
    """
    inverse = torch.linalg.inv(hessian)
    remaining = torch.arange(groups, device=weight.device)
    order: list[Tensor] = []
    errors = [0.0]
    while len(remaining):
        scores = removal_scores(weight, inverse, size, len(remaining))
        chosen = torch.argsort(scores, stable=True)[:block]
        columns = (chosen[:, None] * size + torch.arange(size, device=weight.device)).flatten()
        weight, inverse, loss = remove(weight, inverse, columns)
        step = max(loss, 0.0) / len(chosen)
        errors += [errors[-1] + step * (number + 1) for number in range(len(chosen))]
        order.append(remaining[chosen])
        kept = torch.ones(len(remaining), dtype=torch.bool, device=weight.device)
        kept[chosen] = False
        remaining = remaining[kept]
    return Removal((torch.cat(order) if order else remaining).cpu(), torch.tensor(errors, dtype=torch.float64))


def solve(weight: Tensor, hessian: Tensor, columns: Tensor) -> Tensor:
    """Least-squares update of the kept columns: `W H_:,K (H_KK)^-1`.

    Equal to removing all other columns one by one with `remove`, but solved at once.

    Args:
        weight: W, shape `(outputs, columns)`.
        hessian: H, shape `(columns, columns)`.
        columns: Indices of the columns to keep.
    """
    factor = torch.linalg.cholesky(hessian[columns][:, columns])
    return torch.cholesky_solve(hessian[columns] @ weight.T, factor).T
