"""Ranking losses: fp32 functions of scores.

All take tensors of shape `(lists, documents)`: the student's raw scores, targets, and a mask that is true where a list
has a document. All return one value a list, shape `(lists,)`, so that the trainer can average exactly over the lists
of an accumulated batch. Padding never changes a value. A list that says nothing (one document; no relevant document)
gives 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MASKED = -1e9  # finite, so that a list of padding only gives no NaN in the gradient


def listwise_softmax(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the labels of a list, scaled to sum to 1, and the softmax of its scores.

    ListNet's top-one loss with labels as the target distribution (Cao et al., ICML 2007); with one relevant document
    it is the negative log-likelihood of that document.
    """
    target = labels.float() * mask
    target = target / target.sum(1, keepdim=True).clamp(min=1e-9)
    return -(target * _log_softmax(scores, mask)).sum(1)


def pointwise_bce(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of every document, mean over the list; labels above 0 count as relevant."""
    each = functional.binary_cross_entropy_with_logits(scores.float(), (labels > 0).float(), reduction="none")
    return _mean(each, mask)


def pairwise_logistic(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss over all pairs in which one document has the higher label: log(1 + exp(-(s_i - s_j))).

    RankNet (Burges et al., ICML 2005).
    """
    better = (labels[:, :, None] > labels[:, None, :]) & _pairs(mask)
    return _mean(functional.softplus(-_margins(scores.float())), better)


def margin_mse(scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Squared difference between the margins of student and teacher, mean over all pairs of the list.

    Margin-MSE (Hofstaetter et al., 2020) over all pairs of documents instead of relevant-negative pairs only.
    """
    difference = scores.float() - teacher_scores.float()
    upper = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).triu(1)
    return _mean(_margins(difference).square(), _pairs(mask) & upper)


def listwise_kl(scores: Tensor, teacher_scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softmax over the list to the student's, times temperature^2.

    Distillation of Hinton et al. (2015) over the documents of a query in place of classes; the factor keeps gradients
    of the same size at every temperature.
    """
    teacher = _log_softmax(teacher_scores.float() / temperature, mask)
    student = _log_softmax(scores.float() / temperature, mask)
    return (teacher.exp() * (teacher - student) * mask).sum(1) * temperature**2


def _log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.log_softmax(scores.float().masked_fill(~mask, MASKED), dim=1)


def _margins(values: Tensor) -> Tensor:
    return values[:, :, None] - values[:, None, :]


def _pairs(mask: Tensor) -> Tensor:
    return mask[:, :, None] & mask[:, None, :]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places where `mask` is true, of everything but the first dimension; 0 where there are none."""
    dimensions = tuple(range(1, values.dim()))
    total = torch.where(mask, values, 0.0).sum(dimensions)
    return total / mask.sum(dimensions).clamp(min=1)
