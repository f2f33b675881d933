"""Importance without a weight update: magnitude of the weights, and Fisher information of the ranking loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hfcompress.data.lists import model_inputs
from hfcompress.errors import DataError
from hfcompress.losses import listwise_softmax
from hfcompress.models.architectures import architecture_of, encoder_layers, head_size, projection
from hfcompress.models.hooks import evaluation_mode
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.importance.gates import gated
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.importance.margins import require_finite
from hfcompress.utils.device import moved
from hfcompress.utils.progress import progress_bar


def magnitude(model: PreTrainedModel) -> Importance:
    """Squared norm of the weights: W_O columns and value rows of a head, W_2 column and W_1 row of a neuron.

    A baseline that needs no data and ignores activations.
    """
    model = unwrapped(model)
    architecture = architecture_of(model.config)
    # Blocks of rows to count: the last one of a projection, which has the values if it is fused; all of an FFN.
    values, everything = slice(-1, None), slice(None)
    heads: list[Tensor] = []
    ffn: list[Tensor] = []
    for layer in encoder_layers(model):
        for found, (inner, outer), blocks, width in (
            (heads, (architecture.value, architecture.attention_output), values, head_size(model.config)),
            (ffn, (architecture.ffn_in, architecture.ffn_out), everything, 1),
        ):
            last = projection(layer, outer)
            first = projection(layer, inner) if last else None
            if first is None or last is None:
                found.append(torch.zeros(0))
                continue
            columns = last.weight.detach().float().square().sum(0)
            rows = first.weight.detach().float().square().sum(1).reshape(-1, len(columns))
            found.append((rows[blocks].sum(0) + columns).reshape(-1, width).sum(1).cpu())
    return Importance.additive("magnitude", heads, ffn)


def fisher(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], progress: bool = True) -> Importance:
    """Diagonal of the empirical Fisher information of a gate on each head and neuron, under the listwise ranking loss.

    The squared gradients of each query's loss with respect to the gates, averaged over queries. To second order, half
    of it is the increase of the loss if the gate closes. Fisher information of mask variables: Kwon et al., "A Fast
    Post-Training Pruning Framework for Transformers", NeurIPS 2022. The loss here is the softmax cross-entropy over the
    documents of a query, so importance is the effect on their order.

    Args:
        model: A sequence-classification model.
        batches: Batches of `RankingCollator`, each with one query.
        progress: Show a progress bar.

    Raises:
        DataError: There is no batch, or a score is not finite.
    """
    model = unwrapped(model)
    queries = 0
    with evaluation_mode(model, frozen=True), gated(model, requires_grad=True) as gates:
        totals = [torch.zeros_like(gate) for gate in gates.all()]
        used = [gate for gate in gates.all() if gate.numel()]
        for batch in progress_bar(batches, desc="fisher importance", unit="query", disable=not progress, leave=False):
            batch = moved(batch, model.device)
            scores = model(**model_inputs(batch)).logits.T
            require_finite(scores)
            loss = listwise_softmax(scores, batch["labels"], batch["list_mask"]).sum()
            gradients = iter(torch.autograd.grad(loss, used))
            for total in totals:
                if total.numel():
                    total += next(gradients).square()
            queries += 1
    if not queries:
        raise DataError(
            "There are no calibration queries",
            expected="at least one query with a relevant document",
            remedy="check the train split, or use importance: magnitude",
        )
    values = [(total / queries).cpu() for total in totals]
    return Importance.additive("fisher", values[: len(gates.heads)], values[len(gates.heads) :])
