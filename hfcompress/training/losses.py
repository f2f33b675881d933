"""Losses: functions of scores or features, computed in fp32, or in fp64 where these are.

Ranking losses take tensors of shape `(lists, documents)`: the student's raw scores, targets, and a mask that is true
where a list has a document. They return one value a list, shape `(lists,)`, so that the trainer can average exactly
over the lists of an accumulated batch. A list that says nothing (one document; no relevant document) gives 0.
Feature losses, `hidden_mse` and `relation_kl`, do the same for a pair of texts and its tokens. Padding never changes a
value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MASKED = -1e9  # finite, so that a list of padding only gives no NaN in the gradient


def listwise_softmax(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the labels of a list, scaled to sum to 1, and the softmax of its scores.

    ListNet's top-one loss with labels as the target distribution (Cao et al., ICML 2007); with one relevant document
    it is the negative log-likelihood of that document.
    """
    target = _precise(labels) * mask
    target = target / target.sum(1, keepdim=True).clamp(min=1e-9)
    return -(target * _log_softmax(scores, mask)).sum(1)


def infonce(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative log-likelihood of each relevant document against all that are not, mean over the relevant ones.

    InfoNCE (van den Oord et al., 2018) over the documents of a query; unlike in `listwise_softmax`, relevant documents
    do not compete with each other.
    """
    relevant = (labels > 0) & mask
    scaled = _precise(scores) / temperature
    others = torch.logsumexp(scaled.masked_fill(relevant | ~mask, MASKED), dim=1, keepdim=True)
    return _mean(functional.softplus(others - scaled), relevant)


def bce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of every document, mean over the list; labels above 0 count as relevant."""
    scores = _precise(scores)
    return _mean(functional.binary_cross_entropy_with_logits(scores, (labels > 0).to(scores), reduction="none"), mask)


def ranknet(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss over all pairs in which one document has the higher target: log(1 + exp(-(s_i - s_j))).

    RankNet (Burges et al., ICML 2005); targets are labels or a teacher's scores, of which only the order counts.
    """
    better = (targets[:, :, None] > targets[:, None, :]) & _pairs(mask)
    return _mean(functional.softplus(-_margins(_precise(scores))), better)


def lambda_loss(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """`ranknet` with each pair weighted by what swapping it would change in nDCG, sum over all pairs.

    LambdaRank in the LambdaLoss framework (Wang et al., CIKM 2018): the weight of a pair is the difference of gains
    times that of the discounts 1 / log2(rank + 1) at the present ranks, over the ideal DCG. The gain is the grade
    itself, as in the nDCG that this project reports. Equal scores share their mean rank, and a pair of them weighs what
    lies between the first and the last rank that they may have.
    """
    scores = _precise(scores)
    gains = torch.where(mask, labels.to(scores), 0.0)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device).to(scores)
    ideal = (gains.sort(dim=1, descending=True).values / torch.log2(places + 1)).sum(1).clamp(min=1e-9)
    highest, lowest = _ranks(scores.detach(), mask)
    first, mean, last = (1 / torch.log2(1 + rank) for rank in (highest, (highest + lowest) / 2, lowest))
    discounts = torch.where(_margins(scores) == 0, (first - last)[:, :, None], _margins(mean))
    weights = (_margins(gains) * discounts).abs() / ideal[:, None, None]
    better = (gains[:, :, None] > gains[:, None, :]) & _pairs(mask)
    return torch.where(better, weights * functional.softplus(-_margins(scores)), 0.0).sum((1, 2))


def listmle(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of the targets' order under the Plackett-Luce model of the scores, mean over the list.

    ListMLE (Xia et al., ICML 2008). Documents with equal targets compete with each other and with all below them
    (Breslow's treatment of ties), so that the order in which they are listed does not count.
    """
    scores = _precise(scores)
    below = (targets[:, None, :] <= targets[:, :, None]) & _pairs(mask)
    rivals = scores[:, None, :].expand(below.shape).masked_fill(~below, MASKED)
    return _mean(torch.logsumexp(rivals, dim=2) - scores, mask)


def margin_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Squared difference between the margins of student and teacher, mean over all pairs of the list.

    Margin-MSE (Hofstaetter et al., 2020) over all pairs of documents instead of relevant-negative pairs only.
    """
    difference = _precise(scores) - teacher_scores
    upper = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).triu(1)
    return _mean(_margins(difference).square(), _pairs(mask) & upper)


def mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Squared difference between the scores of student and teacher, mean over the list."""
    return _mean((_precise(scores) - teacher_scores).square(), mask)


def listwise_kl(scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softmax over the list to the student's, times temperature^2.

    Distillation of Hinton et al. (2015) over the documents of a query in place of classes; the factor keeps gradients
    of the same size at every temperature.
    """
    teacher = _log_softmax(_precise(teacher_scores) / temperature, mask)
    student = _log_softmax(_precise(scores) / temperature, mask)
    return (teacher.exp() * (teacher - student) * mask).sum(1) * temperature**2


def adr_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Squared difference between the ranks of student and teacher, discounted by log2(rank + 1), mean over the list.

    ADR-MSE (Schlatt et al., Rank-DistiLLM, 2024). A student's rank is the smooth 1 + sum_j sigmoid((s_j - s_i) / T)
    over the other documents j (Qin et al., 2010); equal scores of the teacher share their mean rank.
    """
    above = torch.sigmoid(-_margins(_precise(scores)) / temperature)
    others = _pairs(mask) & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    smooth = 1 + torch.where(others, above, 0.0).sum(2)
    highest, lowest = _ranks(teacher_scores, mask)
    wanted = (highest + lowest) / 2
    return _mean((wanted - smooth).square() / torch.log2(wanted + 1), mask)


def symmetric_kl(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean of the Kullback-Leibler divergences in both directions between the softmaxes of two scorings of a list.

    R-Drop (Wu et al., NeurIPS 2021) over the documents of a query, the scorings being two passes that differ in
    dropout. Gradients go into both.
    """
    return (listwise_kl(first, second, mask) + listwise_kl(second, first, mask)) / 2


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of hidden states, mean over the real tokens of a pair and their elements.

    Args:
        student: Shape `(pairs, tokens, hidden)`.
        teacher: The same.
        mask: True where there is a token, `(pairs, tokens)`.

    Returns:
        One value a pair, `(pairs,)`.
    """
    return _mean((_precise(student) - _precise(teacher)).square().mean(2), mask)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Divergence from the teacher's self-attention relations to the student's, mean over relation heads and tokens.

    MiniLMv2 (Wang et al., Findings of ACL 2021, arXiv 2012.15828): queries, keys or values, concatenated over the
    attention heads, are split anew into relation heads, so that both sides have equally many; a relation is the softmax
    over the tokens of the scaled dot products of these vectors with themselves.

    Args:
        student: Shape `(pairs, tokens, width)`; the width is a multiple of `heads`.
        teacher: Shape `(pairs, tokens, width)`; the width is another multiple of `heads`, or the same.
        mask: True where there is a token, `(pairs, tokens)`; the others neither have relations nor appear in any.
        heads: Number of relation heads.

    Returns:
        One value a pair, `(pairs,)`.
    """
    ours, theirs = (_log_relations(vectors, mask, heads) for vectors in (student, teacher))
    divergence = (theirs.exp() * (theirs - ours)).sum(3)
    return _mean(divergence, mask[:, None, :].expand(divergence.shape))


def by_list(values: Tensor, mask: Tensor) -> Tensor:
    """Values of all pairs, list by list in one row, as lists `(lists, documents)` with 0 where `mask` is false."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=mask.device).masked_scatter(mask, values)


def _log_relations(vectors: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Logarithm of the relations, `(pairs, heads, tokens, tokens)`, whose last dimension is normalized."""
    with torch.autocast(vectors.device.type, enabled=False):  # it would multiply in half precision
        split = _precise(vectors).unflatten(2, (heads, -1)).transpose(1, 2)
        products = split @ split.transpose(2, 3) / math.sqrt(split.shape[3])
        return torch.log_softmax(products.masked_fill(~mask[:, None, None, :], MASKED), dim=3)


def _precise(scores: Tensor) -> Tensor:
    """Scores in fp32, or in fp64 where they are."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _ranks(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """First and last rank, from 1, that each document may have among those with equal scores."""
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
    """Mean over the places where `mask` is true, of everything but the first dimension; 0 where there are none."""
    dimensions = tuple(range(1, values.dim()))
    total = torch.where(mask, values, 0.0).sum(dimensions)
    return total / mask.sum(dimensions).clamp(min=1)
