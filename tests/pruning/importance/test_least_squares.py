"""Least squares of one layer: scores, updates and downdates against solutions found in another way, to 1e-8."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hfcompress.models.modeling_hfcompress import BiasOnly
from hfcompress.pruning.importance.least_squares import (
    damped,
    matrix_of,
    parameters_of,
    removal_order,
    removal_scores,
    remove,
    solve,
)

OUTPUTS, GROUPS, TOKENS = 5, 6, 40
CASES = [
    pytest.param(size, bias, seed, id=f"{size} columns, {'with' if bias else 'without'} bias, seed {seed}")
    for size in (1, 3)
    for bias in (False, True)
    for seed in range(3)
]
EXACT = {"rtol": 1e-8, "atol": 1e-8}


def problem(size: int, bias: bool, seed: int, damping: float = 1e-2) -> tuple[Tensor, Tensor]:
    """A random W and H, with a constant input last where there is a bias; inputs are correlated and have a mean."""
    generator = torch.Generator().manual_seed(seed)
    columns = GROUPS * size

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    inputs = draw(TOKENS, columns) @ draw(columns, columns) / columns**0.5 + draw(columns)
    weight = draw(OUTPUTS, columns + bias)
    if bias:
        inputs = torch.cat([inputs, torch.ones(TOKENS, 1, dtype=torch.float64)], 1)
    return weight, damped(2 / TOKENS * inputs.T @ inputs, damping, columns)


def best_weight(weight: Tensor, hessian: Tensor, kept: list[int]) -> tuple[Tensor, float]:
    """The best weight of the columns kept and its cost, by a QR solution of `min |W L - W' L_K|` with H = L L^T."""
    factor = torch.linalg.cholesky(hessian)
    wanted = (weight @ factor).T
    solution = torch.linalg.lstsq(factor[kept].T, wanted, driver="gels").solution
    return solution.T, float((wanted - factor[kept].T @ solution).square().sum())


def columns_of(groups: list[int], size: int) -> list[int]:
    return [group * size + offset for group in groups for offset in range(size)]


def without(columns: list[int], total: int) -> list[int]:
    return [column for column in range(total) if column not in columns]


@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_a_score_is_the_exact_rise_of_the_loss(size: int, bias: bool, seed: int) -> None:
    weight, hessian = problem(size, bias, seed)
    scores = removal_scores(weight, torch.linalg.inv(hessian), size, GROUPS)
    expected = [
        best_weight(weight, hessian, without(columns_of([group], size), weight.shape[1]))[1] for group in range(GROUPS)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_removal_updates_the_others_and_downdates_the_inverse(size: int, bias: bool, seed: int) -> None:
    weight, hessian = problem(size, bias, seed)
    removed = columns_of([4, 1], size)
    kept = without(removed, weight.shape[1])
    remaining, inverse, loss = remove(weight, torch.linalg.inv(hessian), torch.tensor(removed))
    expected, cost = best_weight(weight, hessian, kept)
    torch.testing.assert_close(remaining, expected, **EXACT)
    torch.testing.assert_close(inverse, torch.linalg.inv(hessian[kept][:, kept]), **EXACT)
    assert loss == pytest.approx(cost, rel=1e-8)


@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_nested_removals_add_up_to_one(size: int, bias: bool, seed: int) -> None:
    weight, hessian = problem(size, bias, seed)
    remaining, inverse, first = remove(weight, torch.linalg.inv(hessian), torch.tensor(columns_of([4], size)))
    remaining, inverse, second = remove(remaining, inverse, torch.tensor(columns_of([1], size)))
    remaining, inverse, third = remove(remaining, inverse, torch.tensor(columns_of([0], size)))
    kept = without(columns_of([4, 1, 0], size), weight.shape[1])
    expected, cost = best_weight(weight, hessian, kept)
    torch.testing.assert_close(remaining, expected, **EXACT)
    torch.testing.assert_close(inverse, torch.linalg.inv(hessian[kept][:, kept]), **EXACT)
    assert first + second + third == pytest.approx(cost, rel=1e-8)


@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_one_solution_is_removal_one_by_one(size: int, bias: bool, seed: int) -> None:
    weight, hessian = problem(size, bias, seed)
    kept = without(columns_of([5, 0, 2], size), weight.shape[1])
    remaining, inverse = weight, torch.linalg.inv(hessian)
    for group in (5, 2, 0):  # from behind, so that the others keep their numbers
        remaining, inverse, _ = remove(remaining, inverse, torch.tensor(columns_of([group], size)))
    found = solve(weight, hessian, torch.tensor(kept))
    torch.testing.assert_close(found, remaining, **EXACT)
    torch.testing.assert_close(found, best_weight(weight, hessian, kept)[0], **EXACT)


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_the_order_of_removal_and_its_errors(size: int, bias: bool, seed: int, block: int) -> None:
    weight, hessian = problem(size, bias, seed)
    removal = removal_order(weight, hessian, size, GROUPS, block)
    order, errors = removal.order.tolist(), removal.errors.tolist()
    assert sorted(order) == list(range(GROUPS))
    assert errors[0] == 0.0 and all(before <= after for before, after in pairwise(errors))
    for count in {*range(0, GROUPS, block), GROUPS}:
        kept = without(columns_of(order[:count], size), weight.shape[1])
        if kept:
            assert errors[count] == pytest.approx(best_weight(weight, hessian, kept)[1], rel=1e-8, abs=1e-10)
        else:
            assert errors[count] == pytest.approx(float((weight @ hessian * weight).sum()), rel=1e-8)


@pytest.mark.parametrize(("size", "bias", "seed"), CASES)
def test_the_cheapest_group_is_removed_first_given_earlier_removals(size: int, bias: bool, seed: int) -> None:
    weight, hessian = problem(size, bias, seed)
    order = removal_order(weight, hessian, size, GROUPS).order.tolist()

    def cost(removed: list[int]) -> float:
        return best_weight(weight, hessian, without(columns_of(removed, size), weight.shape[1]))[1]

    for count in range(GROUPS - 1 - (not bias)):
        costs = {group: cost([*order[:count], group]) for group in order[count:]}
        assert min(costs, key=costs.__getitem__) == order[count]


def test_the_errors_within_a_block_rise_evenly() -> None:
    weight, hessian = problem(1, True, 0)
    errors = removal_order(weight, hessian, 1, GROUPS, block=4).errors
    steps = errors.diff()
    torch.testing.assert_close(steps[:4], steps[:1].expand(4))
    torch.testing.assert_close(steps[4:], steps[4:5].expand(2))


def test_useless_columns_are_removed_first_and_without_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(TOKENS, 10, dtype=torch.float64, generator=generator)
    weight = torch.randn(OUTPUTS, 10, dtype=torch.float64, generator=generator)
    inputs[:, 6] = inputs[:, 2]  # a copy
    inputs[:, 4] = 0
    weight[:, 8] = 0  # unused
    removal = removal_order(weight, damped(2 / TOKENS * inputs.T @ inputs, 1e-10, 10), 1, 10)
    first = set(removal.order[:3].tolist())
    assert first in ({2, 4, 8}, {6, 4, 8})
    assert removal.errors[3] < 1e-6 * removal.errors[-1]
    assert removal.errors[4] > 1e-3 * removal.errors[-1]  # the other one of the copies is needed


def test_a_redundant_group_is_removed_without_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(TOKENS, 9, dtype=torch.float64, generator=generator)
    inputs[:, 3:6] = inputs[:, 6:9] @ torch.randn(3, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(OUTPUTS, 9, dtype=torch.float64, generator=generator)
    removal = removal_order(weight, damped(2 / TOKENS * inputs.T @ inputs, 1e-7, 9), 3, 3)
    assert removal.order[0] in (1, 2)
    assert removal.errors[1] < 1e-4 * removal.errors[-1] and removal.errors[2] > 1e-2 * removal.errors[-1]


def test_a_layer_without_inputs_puts_out_its_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(TOKENS, 4, dtype=torch.float64, generator=generator) + 2
    extended = torch.cat([inputs, torch.ones(TOKENS, 1, dtype=torch.float64)], 1)
    weight = torch.randn(OUTPUTS, 5, dtype=torch.float64, generator=generator)
    bias = solve(weight, damped(2 / TOKENS * extended.T @ extended, 1e-2, 4), torch.tensor([4]))
    torch.testing.assert_close(bias[:, 0], (extended @ weight.T).mean(0), **EXACT)


def test_no_groups_leave_nothing_to_remove() -> None:
    removal = removal_order(torch.ones(2, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), 1, 0)
    assert removal.order.tolist() == [] and removal.errors.tolist() == [0.0]


def test_damping_is_a_share_of_the_mean_diagonal_and_spares_the_constant() -> None:
    moments = torch.tensor([[1.0, 0.5, 9.0], [0.5, 3.0, 9.0], [9.0, 9.0, 2.0]])
    expected = torch.tensor([[1.2, 0.5, 9.0], [0.5, 3.2, 9.0], [9.0, 9.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(damped(moments, 0.1, 2), expected)
    assert torch.equal(damped(moments, 0.1, 0), moments.double())
    assert moments[0, 0] == 1.0  # what was given stays


@pytest.mark.parametrize("bias", [True, False])
def test_layers_become_matrices_and_back(bias: bool) -> None:
    layer = nn.Linear(3, 2, bias=bias)
    matrix = matrix_of(layer)
    assert matrix.dtype == torch.float64 and matrix.shape == (2, 3 + bias) and not matrix.requires_grad
    back = parameters_of(matrix, bias)
    assert {name: tensor.dtype for name, tensor in back.items()} == dict.fromkeys(layer.state_dict(), torch.float32)
    assert all(torch.equal(tensor, layer.state_dict()[name]) for name, tensor in back.items())
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_a_layer_without_inputs_is_its_bias() -> None:
    rest = BiasOnly(2)
    nn.init.normal_(rest.bias)
    assert torch.equal(matrix_of(rest), rest.bias.detach().double()[:, None])
    assert matrix_of(BiasOnly(2, bias=False)).shape == (2, 0)
