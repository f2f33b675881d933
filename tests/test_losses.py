"""Losses: values by hand, gradients by finite differences, and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hfcompress.losses import (
    adr_mse,
    bce,
    infonce,
    lambda_loss,
    listmle,
    listwise_kl,
    listwise_softmax,
    margin_mse,
    mse,
    ranknet,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LABEL_LOSSES: dict[str, Loss] = {
    "listwise_softmax": listwise_softmax,
    "infonce": infonce,
    "infonce at 2": partial(infonce, temperature=2.0),
    "bce": bce,
    "ranknet": ranknet,
    "lambda_loss": lambda_loss,
    "listmle": listmle,
}
TEACHER_LOSSES: dict[str, Loss] = {
    "margin_mse": margin_mse,
    "listwise_kl": listwise_kl,
    "listwise_kl at 2": partial(listwise_kl, temperature=2.0),
    "listwise_kl at 3": partial(listwise_kl, temperature=3.0),  # a division that half precision would round
    "mse": mse,
    "adr_mse": adr_mse,
    "ranknet": ranknet,
    "listmle": listmle,
}
LOSSES = LABEL_LOSSES | TEACHER_LOSSES
SHIFT_INVARIANT = sorted(LOSSES.keys() - {"bce", "mse"})


def full(values: Tensor) -> Tensor:
    return torch.ones(values.shape, dtype=torch.bool)


def value(name: str, scores: list[float], targets: list[float]) -> float:
    given_scores, given_targets = torch.tensor([scores]), torch.tensor([targets])
    return LOSSES[name](given_scores, given_targets, full(given_scores)).item()


def softplus(margin: float) -> float:
    return math.log1p(math.exp(margin))


# Values by hand


def test_listwise_softmax_with_one_relevant_document_is_its_negative_log_likelihood() -> None:
    scores = [1.0, 2.0, 0.5]
    expected = math.log(sum(map(math.exp, scores))) - 2.0
    assert value("listwise_softmax", scores, [0, 1, 0]) == pytest.approx(expected, rel=1e-6)
    assert value("listwise_softmax", scores, [0, 3, 0]) == pytest.approx(expected, rel=1e-6)  # labels sum to 1


def test_listwise_softmax_with_graded_labels_is_a_cross_entropy() -> None:
    # Softmax of (0, ln 2, ln 3) is (1/6, 2/6, 3/6); labels (3, 1, 0) are (3/4, 1/4, 0).
    expected = -(0.75 * math.log(1 / 6) + 0.25 * math.log(2 / 6))
    assert value("listwise_softmax", [0, math.log(2), math.log(3)], [3, 1, 0]) == pytest.approx(expected, rel=1e-6)


def test_bce_is_the_mean_over_the_documents() -> None:
    expected = (softplus(-1.0) + softplus(-2.0)) / 2
    assert value("bce", [1.0, -2.0], [2, 0]) == pytest.approx(expected, rel=1e-6)
    assert value("bce", [0.0], [1]) == pytest.approx(math.log(2), rel=1e-6)


def test_ranknet_is_the_mean_over_ordered_pairs() -> None:
    # Labels 2 > 1 > 0: the pairs are (0, 1), (0, 2) and (1, 2).
    expected = (softplus(-(1.0 - 3.0)) + softplus(-(1.0 - 0.5)) + softplus(-(3.0 - 0.5))) / 3
    assert value("ranknet", [1.0, 3.0, 0.5], [2, 1, 0]) == pytest.approx(expected, rel=1e-6)
    # Documents with equal labels make no pair.
    assert value("ranknet", [1.0, 3.0, 0.5], [1, 1, 0]) == pytest.approx(
        (softplus(-0.5) + softplus(-2.5)) / 2, rel=1e-6
    )


def test_margin_mse_is_the_mean_over_unordered_pairs() -> None:
    # Differences to the teacher are (1, -1, 3), so those of the margins are 2, -2 and -4.
    assert value("margin_mse", [2.0, 0.0, 4.0], [1.0, 1.0, 1.0]) == pytest.approx((4 + 4 + 16) / 3, rel=1e-6)
    assert value("margin_mse", [5.0, 1.0], [2.0, 3.0]) == pytest.approx(25.0, rel=1e-6)


def test_in_infonce_relevant_documents_do_not_compete() -> None:
    first = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.5)))
    second = -math.log(math.exp(3.0) / (math.exp(3.0) + math.exp(0.5)))
    assert value("infonce", [1.0, 3.0, 0.5], [1, 2, 0]) == pytest.approx((first + second) / 2, rel=1e-6)
    halved = -math.log(math.exp(0.5) / (math.exp(0.5) + math.exp(0.25)))
    assert value("infonce at 2", [1.0, 0.5], [1, 0]) == pytest.approx(halved, rel=1e-6)
    assert value("infonce", [1.0, 3.0], [1, 2]) == 0


def test_lambda_loss_weighs_pairs_by_their_part_in_ndcg() -> None:
    # Ranks by score are 2, 1, 3; grades are 2, 0, 1.
    discount = [1 / math.log2(rank + 1) for rank in (2, 1, 3)]
    ideal = 2 + 1 / math.log2(3)
    expected = (
        2 * abs(discount[0] - discount[1]) * softplus(2.0)
        + 1 * abs(discount[0] - discount[2]) * softplus(-0.5)
        + 1 * abs(discount[2] - discount[1]) * softplus(2.5)
    ) / ideal
    assert value("lambda_loss", [1.0, 3.0, 0.5], [2, 0, 1]) == pytest.approx(expected, rel=1e-6)


def test_lambda_loss_of_equal_scores_is_not_zero() -> None:
    # Both may stand first or second: the pair weighs 1 - 1 / log2(3).
    assert value("lambda_loss", [1.0, 1.0], [1, 0]) == pytest.approx((1 - 1 / math.log2(3)) * softplus(0.0), rel=1e-6)


def test_listmle_is_the_likelihood_of_the_order() -> None:
    # Order 1, 0, 2: the best is drawn from all, the second from two, the last from itself.
    scores = [1.0, 3.0, 0.5]
    first = math.log(sum(map(math.exp, scores))) - 3.0
    second = math.log(math.exp(1.0) + math.exp(0.5)) - 1.0
    assert value("listmle", scores, [2, 5, -1]) == pytest.approx((first + second) / 3, rel=1e-6)
    # Equal targets compete with each other.
    tied = math.log(math.exp(1.0) + math.exp(0.5))
    assert value("listmle", scores, [0, 1, 0]) == pytest.approx((first + tied - 1.0 + tied - 0.5) / 3, rel=1e-6)


def test_mse_is_the_mean_over_the_documents() -> None:
    assert value("mse", [1.0, -2.0], [3.0, -1.0]) == pytest.approx(2.5, rel=1e-6)


def test_adr_mse_is_the_discounted_difference_of_ranks() -> None:
    half = 1 / (1 + math.exp(-1.0))  # sigmoid of the margin of 1
    # The student ranks the first document at 1 + sigmoid(-1), the teacher at 2.
    expected = ((2 - (2 - half)) ** 2 / math.log2(3) + (1 - (1 + half)) ** 2 / math.log2(2)) / 2
    assert value("adr_mse", [1.0, 0.0], [5.0, 7.0]) == pytest.approx(expected, rel=1e-6)
    assert value("adr_mse", [100.0, 0.0, -100.0], [0.3, 0.2, 0.1]) == pytest.approx(0.0, abs=1e-6)
    # Equal scores of the teacher share a rank of one and a half.
    assert value("adr_mse", [0.0, 0.0], [4.0, 4.0]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["margin_mse", "listwise_kl", "listwise_kl at 2"])
def test_a_student_that_scores_like_its_teacher_up_to_a_constant_has_no_loss(name: str) -> None:
    assert value(name, [1.0, 2.0, -0.5], [11.0, 12.0, 9.5]) == pytest.approx(0.0, abs=1e-6)


def test_listwise_kl_of_known_distributions() -> None:
    teacher, student = [math.log(1), math.log(3)], [math.log(1), math.log(1)]  # (1/4, 3/4) and (1/2, 1/2)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert value("listwise_kl", student, teacher) == pytest.approx(expected, rel=1e-6)
    # At temperature 2, twice the scores give the same distributions; the factor is 2^2.
    twice = value("listwise_kl at 2", [2 * score for score in student], [2 * score for score in teacher])
    assert twice == pytest.approx(4 * expected, rel=1e-6)


def test_listwise_kl_tends_to_the_squared_difference_of_centred_scores() -> None:
    """Hinton et al. (2015), section 2.1: at high temperature KL times T^2 is half the mean of squared differences."""
    student, teacher = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.5, 1.5, -2.0]])
    expected = ((student - teacher) ** 2).mean().item() / 2
    loss = listwise_kl(student, teacher, full(student), temperature=100.0).item()
    assert loss == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_one_value_a_list_in_single_precision(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, generator=generator)
    targets = torch.randint(0, 3, (3, 4), generator=generator).float()
    losses = LOSSES[name](scores, targets, full(scores))
    assert losses.shape == (3,) and losses.dtype == torch.float32
    for row in range(3):
        alone = LOSSES[name](scores[row : row + 1], targets[row : row + 1], full(scores[:1]))
        assert losses[row].item() == pytest.approx(alone.item(), rel=1e-6)
    # Half-precision scores are computed with in fp32.
    rounded = scores.bfloat16()
    assert torch.equal(
        LOSSES[name](rounded, targets, full(scores)), LOSSES[name](rounded.float(), targets, full(scores))
    )


# Gradients


def sample(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, targets and a mask of lists of 5, 3 and 2 documents."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 5, generator=generator)
    targets = torch.randint(0, 3, (3, 5), generator=generator).float()
    targets[:, 0] = 2.0
    return scores, targets, torch.arange(5) < torch.tensor([5, 3, 2])[:, None]


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_agree_with_finite_differences(name: str, seed: int) -> None:
    scores, targets, mask = sample(seed)
    assert torch.autograd.gradcheck(
        lambda values: LOSSES[name](values, targets.double(), mask), scores.double().requires_grad_()
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_padding_gets_no_gradient(name: str) -> None:
    scores, targets, mask = sample(2)
    scores.requires_grad_()
    LOSSES[name](scores, targets, mask).sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()
    assert (scores.grad[~mask] == 0).all()


@pytest.mark.parametrize("name", sorted(LABEL_LOSSES))
def test_a_step_down_the_gradient_raises_the_relevant_document(name: str) -> None:
    scores = torch.zeros(1, 4, requires_grad=True)
    LOSSES[name](scores, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), full(scores)).backward()
    assert scores.grad is not None
    assert scores.grad.argmin().item() == 1 and (scores.grad[0, [0, 2, 3]] > 0).all()


# Invariances

NUMBERS = st.integers(-24, 24).map(lambda quarters: quarters / 4)  # exact, so that a shift makes no ties


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Scores and targets of one list; the targets serve as labels (0 to 3) and as teacher scores."""
    size = draw(st.integers(1, 6))
    return (
        draw(st.lists(NUMBERS, min_size=size, max_size=size)),
        draw(st.lists(st.integers(0, 3).map(float), min_size=size, max_size=size)),
    )


def close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=2e-4, abs_tol=2e-4)


@settings(deadline=None)
@given(example=lists(), shift=st.integers(-20, 20))
def test_shifting_all_scores_of_a_list_changes_nothing(example: tuple[list[float], list[float]], shift: int) -> None:
    scores, targets = example
    for name in SHIFT_INVARIANT:
        moved = [score + shift for score in scores]
        assert close(value(name, moved, targets), value(name, scores, targets)), name
    for name in TEACHER_LOSSES.keys() - {"mse"}:
        assert close(value(name, scores, [target + shift for target in targets]), value(name, scores, targets)), name


def test_bce_is_not_invariant() -> None:
    assert value("bce", [1.0, 1.0], [1, 0]) != value("bce", [3.0, 3.0], [1, 0])


@settings(deadline=None)
@given(example=lists(), data=st.data())
def test_the_order_of_documents_changes_nothing(example: tuple[list[float], list[float]], data: st.DataObject) -> None:
    scores, targets = example
    order = data.draw(st.permutations(range(len(scores))))
    for name in LOSSES:
        permuted = value(name, [scores[index] for index in order], [targets[index] for index in order])
        assert close(permuted, value(name, scores, targets)), name


@settings(deadline=None)
@given(
    example=lists(),
    padding=st.lists(st.tuples(st.floats(-1000, 1000, width=32), st.floats(-1000, 1000, width=32)), max_size=4),
)
def test_padding_changes_nothing_whatever_its_values(
    example: tuple[list[float], list[float]], padding: list[tuple[float, float]]
) -> None:
    scores, targets = example
    mask = torch.tensor([[True] * len(scores) + [False] * len(padding)])
    padded_scores = torch.tensor([[*scores, *(score for score, _ in padding)]], requires_grad=True)
    padded_targets = torch.tensor([[*targets, *(target for _, target in padding)]])
    for name, loss in LOSSES.items():
        padded = loss(padded_scores, padded_targets, mask)
        assert close(padded.item(), value(name, scores, targets)), name
        (gradient,) = torch.autograd.grad(padded.sum(), padded_scores)
        assert torch.isfinite(gradient).all() and (gradient[~mask] == 0).all(), name


@settings(deadline=None)
@given(example=lists())
def test_no_loss_is_negative(example: tuple[list[float], list[float]]) -> None:
    for name in LOSSES:
        assert value(name, *example) >= -1e-6, name


# Lists without information


def check_zero(name: str, scores: Tensor, targets: Tensor, mask: Tensor) -> None:
    scores = scores.clone().requires_grad_()
    loss = LOSSES[name](scores, targets, mask)
    assert loss.tolist() == pytest.approx([0.0] * len(scores), abs=1e-6)
    loss.sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max().item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_a_list_of_one_document_gives_0(name: str) -> None:
    check_zero(name, torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[True]]))
    check_zero(name, torch.tensor([[3.0, 7.0]]), torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]]))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *((name, 0.0) for name in ("listwise_softmax", "infonce", "ranknet", "lambda_loss")),
        *((name, 2.0) for name in ("infonce", "ranknet", "lambda_loss")),
    ],
)
def test_labels_without_information_give_0(name: str, label: float) -> None:
    check_zero(name, torch.tensor([[3.0, -1.0, 2.0]]), torch.full((1, 3), label), torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_list_of_padding_only_gives_0(name: str) -> None:
    check_zero(name, torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_large_scores_stay_finite(name: str) -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = LOSSES[name](scores, torch.tensor([[0.0, 2.0, 1.0]]), full(scores))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and scores.grad is not None and torch.isfinite(scores.grad).all()
