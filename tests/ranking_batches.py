"""Batches of lists as pico models of every family take them, and random plans: inputs of importance and search."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from conftest import FFN, HEADS, LAYERS
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.lists import RankingCollator, model_inputs, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import pruned_copy

WITHOUT_TOKEN_TYPES = {"distilbert", "modernbert", "mpnet"}
FULL = PruningPlan.full(LAYERS, HEADS, FFN)


def batches_for(
    family: str,
    data: RankingData,
    tokenizer: PreTrainedTokenizerFast,
    queries: int = 8,
    per_batch: int = 4,
    documents: int = 8,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """Lists of train queries, with documents of different length, of which the second list of a batch has one less."""
    collate = RankingCollator(tokenizer, 32)
    rows = list(training_lists(data, documents, 2, seed, queries=queries))
    for row in rows:
        row["documents"] = [" ".join(text.split()[: 8 - n % 4]) for n, text in enumerate(row["documents"])]
    for row in rows[1::per_batch] if per_batch > 1 else ():
        row["documents"], row["labels"] = row["documents"][:-1], row["labels"][:-1]
    batches = [collate(rows[start : start + per_batch]) for start in range(0, len(rows), per_batch)]
    for batch in batches if family in WITHOUT_TOKEN_TYPES else ():
        del batch["token_type_ids"]
    return batches


def random_plan(
    rng: random.Random, dropped: float = 0.2, current: PruningPlan = FULL, widths: Sequence[int] | None = None
) -> PruningPlan:
    """A plan of any shape within `current`; widths at random, or as far as there are so many neurons from `widths`."""
    while True:
        layers = []
        for layer in current.layers:
            heads = sorted(rng.sample(layer.heads, rng.randint(0, len(layer.heads))))
            width = min(rng.choice(widths), len(layer.ffn)) if widths else rng.randint(0, len(layer.ffn))
            ffn = sorted(rng.sample(layer.ffn, width))
            if rng.random() >= dropped:
                layers.append(LayerPlan(layer.layer, tuple(heads), tuple(ffn)))
        if any(layer.heads for layer in layers):
            return PruningPlan(current.layers_of, current.heads_of, current.ffn_of, tuple(layers))


@torch.inference_mode()
def hidden_error(
    model: PreTrainedModel, plan: PruningPlan, weights: dict[str, Tensor], batches: list[dict[str, Tensor]]
) -> float:
    """Squared error of the pruned model's hidden states, relative to the dense ones', mean over layers and batches."""
    student = pruned_copy(model, plan, weights)
    errors = []
    for batch in batches:
        inputs, real = model_inputs(batch), batch["attention_mask"].bool()
        dense = model(**inputs, output_hidden_states=True).hidden_states
        pruned = student(**inputs, output_hidden_states=True).hidden_states
        for number, layer in enumerate(plan.layers, 1):
            wanted, found = dense[layer.layer + 1][real], pruned[number][real]
            errors.append(((wanted - found).square().sum() / wanted.square().sum()).item())
    return sum(errors) / len(errors)
