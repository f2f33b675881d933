"""Scores of heads and FFN neurons: magnitude of weights, and Fisher information of the ranking loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hfcompress.architectures import architecture_of, encoder_layers, head_size, projection
from hfcompress.errors import DataError
from hfcompress.importance.gates import gated
from hfcompress.importance.importance import Importance
from hfcompress.importance.margins import require_finite
from hfcompress.progress import progress_bar
from hfcompress.training.losses import listwise_softmax
from hfcompress.training.trainer import RANKING_COLUMNS


def magnitude(model: PreTrainedModel) -> Importance:
    """Squared norm of a structure's weights: W_O columns and value rows of a head, W_2 column and W_1 row of a neuron.

    The baseline: needs no data, and does not know what the activations are.
    """
    architecture = architecture_of(model.config)
    # Blocks of rows that count: the last of a projection, which holds the values where it is fused; all of an FFN.
    values, everything = slice(-1, None), slice(None)
    heads: list[Tensor] = []
    ffn: list[Tensor] = []
    for layer in encoder_layers(model):
        for store, (inner, outer), blocks, width in (
            (heads, (architecture.value, architecture.attention_output), values, head_size(model.config)),
            (ffn, (architecture.ffn_in, architecture.ffn_out), everything, 1),
        ):
            last = projection(layer, outer)
            first = projection(layer, inner) if last else None
            if first is None or last is None:
                store.append(torch.zeros(0))
                continue
            columns = last.weight.detach().float().square().sum(0)
            rows = first.weight.detach().float().square().sum(1).reshape(-1, len(columns))
            store.append((rows[blocks].sum(0) + columns).reshape(-1, width).sum(1))
    return Importance.additive("magnitude", heads, ffn)


def fisher(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], progress: bool = True) -> Importance:
    """Diagonal of the empirical Fisher information of a gate on each structure, under the listwise ranking loss.

    For each query the gradient of its loss with respect to the gates is squared, and the squares are averaged over
    the queries: to second order, half of it is the rise of the loss when the gate closes. Fisher information of mask
    variables: Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022; here the loss is
    the softmax cross-entropy over the documents of a query, so that a structure counts for the order it makes.

    Args:
        model: A sequence-classification model.
        batches: Batches of `RankingCollator`, each with the list of one query.
        progress: Show a progress bar.

    Raises:
        DataError: There is no batch, or a score is not finite.
    """
    training = model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    queries = 0
    try:
        model.requires_grad_(False)
        with gated(model, requires_grad=True) as gates:
            totals = [torch.zeros_like(gate) for gate in gates.all()]
            used = [gate for gate in gates.all() if gate.numel()]
            for batch in progress_bar(
                batches, desc="fisher importance", unit="query", disable=not progress, leave=False
            ):
                inputs = {name: value for name, value in batch.items() if name not in RANKING_COLUMNS}
                scores = model(**inputs).logits.T
                require_finite(scores)
                loss = listwise_softmax(scores, batch["labels"], batch["list_mask"]).sum()
                gradients = iter(torch.autograd.grad(loss, used))
                for total in totals:
                    if total.numel():
                        total += next(gradients).square()
                queries += 1
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
    if not queries:
        raise DataError(
            "There are no calibration queries",
            expected="at least one query with a relevant document",
            remedy="check the train split, or use importance: magnitude",
        )
    values = [total / queries for total in totals]
    return Importance.additive("fisher", values[: len(gates.heads)], values[len(gates.heads) :])
