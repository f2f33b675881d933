"""Losses as functions of scores or features, computed in fp32, or in fp64 for fp64 inputs.

Ranking losses take tensors of shape `(lists, documents)`: the raw scores of the student, targets, and a mask that is
true where a list has a document. They return one value per list, shape `(lists,)`, so that the trainer can average
exactly over the lists of an accumulated batch. Lists without information (a single document, or no relevant document)
give 0. The feature losses `hidden_mse` and `relation_kl` return one value per text pair. Padding never changes a value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MASKED = -1e9  # finite, so that a list of padding alone has no NaN in its gradient


def listwise_softmax(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the labels of a list, normalized to sum to 1, and the softmax of its scores.

    Top-one loss of ListNet with labels as target distribution (Cao et al., ICML 2007). With one relevant document, it
    is the negative log-likelihood of that document.
    """
    target = _precise(labels) * mask
    target = target / target.sum(1, keepdim=True).clamp(min=1e-9)
    return -(target * _log_softmax(scores, mask)).sum(1)


def infonce(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihood of each relevant document among the others, mean over the relevant documents.

    InfoNCE (van den Oord et al., 2018) over the documents of a query. Unlike in `listwise_softmax`, relevant documents
    do not compete with each other: the others are those that are not relevant.
    """
    relevant = (labels > 0) & mask
    scaled = _precise(scores) / temperature
    others = torch.logsumexp(scaled.masked_fill(relevant | ~mask, MASKED), dim=1, keepdim=True)
    return _mean(functional.softplus(others - scaled), relevant)


def bce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the documents of a list; labels above 0 are relevant."""
    scores = _precise(scores)
    return _mean(functional.binary_cross_entropy_with_logits(scores, (labels > 0).to(scores), reduction="none"), mask)


def ranknet(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss log(1 + exp(-(s_i - s_j))), mean over all pairs in which document i has the higher target.

    RankNet (Burges et al., ICML 2005). Targets are labels or teacher scores, of which only the order matters.
    """
    better = (targets[:, :, None] > targets[:, None, :]) & _pairs(mask)
    return _mean(functional.softplus(-_margins(_precise(scores))), better)


def lambda_loss(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """`ranknet` with each pair weighted by the change in nDCG if it were swapped, sum over all pairs.

    LambdaRank in the LambdaLoss framework (Wang et al., CIKM 2018): the weight of a pair is the difference of its gains
    times the difference of its discounts 1 / log2(rank + 1) at the current ranks, divided by the ideal DCG. The gain is
    the grade, as in the reported nDCG. Equal scores share their mean rank; the discounts of a tied pair are those of
    the first and the last rank of the tie.
    """
    scores = _precise(scores)
    gains = torch.where(mask, labels.to(scores), 0.0)
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device).to(scores)
    ideal = (gains.sort(dim=1, descending=True).values / torch.log2(positions + 1)).sum(1).clamp(min=1e-9)
    highest, lowest = _ranks(scores.detach(), mask)
    first, mean, last = (1 / torch.log2(1 + rank) for rank in (highest, (highest + lowest) / 2, lowest))
    discounts = torch.where(_margins(scores) == 0, (first - last)[:, :, None], _margins(mean))
    weights = (_margins(gains) * discounts).abs() / ideal[:, None, None]
    better = (gains[:, :, None] > gains[:, None, :]) & _pairs(mask)
    return torch.where(better, weights * functional.softplus(-_margins(scores)), 0.0).sum((1, 2))


def listmle(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of the order of the targets under the Plackett-Luce model of the scores, list mean.

    ListMLE (Xia et al., ICML 2008). Documents with equal targets compete with each other and with all documents below
    (Breslow's treatment of ties), so that the order of the input does not matter.
    """
    scores = _precise(scores)
    below = (targets[:, None, :] <= targets[:, :, None]) & _pairs(mask)
    rivals = scores[:, None, :].expand(below.shape).masked_fill(~below, MASKED)
    return _mean(torch.logsumexp(rivals, dim=2) - scores, mask)


def margin_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Squared difference between the margins of student and teacher, mean over all pairs of a list.

    Margin-MSE (Hofstaetter et al., 2020) over all pairs of documents instead of relevant-negative pairs only.
    """
    difference = _precise(scores) - teacher_scores
    upper = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).triu(1)
    return _mean(_margins(difference).square(), _pairs(mask) & upper)


def mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Squared difference between the scores of student and teacher, mean over the documents of a list."""
    return _mean((_precise(scores) - teacher_scores).square(), mask)


def listwise_kl(scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) between the softmaxes of a list at a temperature, times temperature^2.

    Distillation of Hinton et al. (2015) with the documents of a query in place of classes. The factor keeps the size of
    the gradients independent of the temperature.
    """
    teacher = _log_softmax(_precise(teacher_scores) / temperature, mask)
    student = _log_softmax(_precise(scores) / temperature, mask)
    return (teacher.exp() * (teacher - student) * mask).sum(1) * temperature**2


def adr_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Squared difference between the ranks of student and teacher, divided by log2(teacher rank + 1), mean over a list.

    ADR-MSE (Schlatt et al., Rank-DistiLLM, 2024). The rank of the student is the smooth 1 + sum_j sigmoid((s_j - s_i) /
    T) over the other documents j (Qin et al., 2010). Equal teacher scores share their mean rank.
    """
    above = torch.sigmoid(-_margins(_precise(scores)) / temperature)
    others = _pairs(mask) & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    smooth = 1 + torch.where(others, above, 0.0).sum(2)
    highest, lowest = _ranks(teacher_scores, mask)
    wanted = (highest + lowest) / 2
    return _mean((wanted - smooth).square() / torch.log2(wanted + 1), mask)


def symmetric_kl(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean of the KL divergences in both directions between the softmaxes of two scorings of a list.

    R-Drop (Wu et al., NeurIPS 2021) over the documents of a query; the scorings are two forward passes with different
    dropout. Both receive gradients.
    """
    return (listwise_kl(first, second, mask) + listwise_kl(second, first, mask)) / 2


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of hidden states, mean over the tokens of a pair, without padding, and over elements.

    Args:
        student: Shape `(pairs, tokens, hidden)`.
        teacher: Shape `(pairs, tokens, hidden)`.
        mask: True where there is a token, `(pairs, tokens)`.

    Returns:
        One value per pair, `(pairs,)`.
    """
    return _mean((_precise(student) - _precise(teacher)).square().mean(2), mask)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """KL(teacher || student) between self-attention relations, mean over relation heads and tokens.

    MiniLMv2 (Wang et al., Findings of ACL 2021, arXiv 2012.15828): queries, keys or values, concatenated over the
    attention heads, are split into relation heads, of which both models have the same number. A relation is the softmax
    over tokens of the scaled dot products of these vectors with each other.

    Args:
        student: Shape `(pairs, tokens, width)`; the width is a multiple of `heads`.
        teacher: Shape `(pairs, tokens, width)`; the width is a multiple of `heads` and may differ from the student's.
        mask: True where there is a token, `(pairs, tokens)`; padding is excluded from relations.
        heads: Number of relation heads.

    Returns:
        One value per pair, `(pairs,)`.
    """
    ours, theirs = (_log_relations(vectors, mask, heads) for vectors in (student, teacher))
    divergence = (theirs.exp() * (theirs - ours)).sum(3)
    return _mean(divergence, mask[:, None, :].expand(divergence.shape))


def by_list(values: Tensor, mask: Tensor) -> Tensor:
    """Arrange values of all pairs, concatenated list by list, as `(lists, documents)`, 0 where `mask` is false."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=mask.device).masked_scatter(mask, values)


def _log_relations(vectors: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Logarithm of the relations, `(pairs, heads, tokens, tokens)`, normalized over the last dimension."""
    with torch.autocast(vectors.device.type, enabled=False):  # autocast would multiply in half precision
        split = _precise(vectors).unflatten(2, (heads, -1)).transpose(1, 2)
        products = split @ split.transpose(2, 3) / math.sqrt(split.shape[3])
        return torch.log_softmax(products.masked_fill(~mask[:, None, None, :], MASKED), dim=3)


def _precise(scores: Tensor) -> Tensor:
    """Scores in fp32; fp64 scores are unchanged."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _ranks(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """First and last rank of each document, from 1, over all orders of tied documents."""
    margins = _margins(scores)
    ahead, equal = ((_pairs(mask) & others).sum(2) for others in (margins < 0, margins == 0))
    return ahead + 1, ahead + equal.clamp(min=1)


def _log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.log_softmax(_precise(scores).masked_fill(~mask, MASKED), dim=1)


def _margins(values: Tensor) -> Tensor:
    return values[:, :, None] - values[:, None, :]


def _pairs(mask: Tensor) -> Tensor:
    return mask[:, :, None] & mask[:, None, :]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all dimensions but the first, where `mask` is true; 0 if it is never true."""
    dimensions = tuple(range(1, values.dim()))
    total = torch.where(mask, values, 0.0).sum(dimensions)
    return total / mask.sum(dimensions).clamp(min=1)
