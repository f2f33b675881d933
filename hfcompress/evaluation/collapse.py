"""Collapse: an artefact that no longer ranks, and the parts of the model that quantization takes the order from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.architectures import architecture_of, encoder_layers
from hfcompress.errors import CollapseError
from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.evaluation.report import Artifact
from hfcompress.quantization.rounding import WEIGHT_STEPS, rounded
from hfcompress.rankers.base import Pair
from hfcompress.rankers.pytorch import TorchRanker

SATURATED = 0.5  # share of neighbouring scores that are equal, beyond those of the model in fp32
SUSPECTS = 32  # lists on which the parts of a model are tried
NAMED = 4  # parts that an error names

Rounding = Callable[[nn.Linear | nn.Embedding], AbstractContextManager[None]]
INT8: Rounding = partial(rounded, per_channel=True, steps=WEIGHT_STEPS)


@dataclass(frozen=True)
class Suspect:
    """A part of a model, and what is left of the order when it alone is rounded as int8 rounds it.

    Attributes:
        name: Name of the part, e.g. `attention of layer 2`.
        rank_correlation: Spearman's rank correlation with the model in fp32, mean over queries.
    """

    name: str
    rank_correlation: float


def collapse(artifact: Artifact, original: Artifact, least: float) -> str | None:
    """Say how an artefact has collapsed; None if it has not.

    The order is compared with that of the fp32 model which was quantized, not with the dense teacher's: a student that
    was pruned and trained anew may order documents otherwise and rank them as well, which its verdict decides.
    Spearman's correlation goes by how far documents move. Near-equal documents that change places, which int8 does in
    any list, hardly count, while they take as much from Kendall's as any other pair.

    Args:
        artifact: What to judge.
        original: The model in fp32 that it was made from.
        least: Least rank correlation between the two.
    """
    if artifact.tied_share == 1.0:
        return "all documents of a query get the same score"
    if artifact.tied_share - original.tied_share > SATURATED:
        return (
            f"its scores are saturated: {artifact.tied_share:.0%} of the neighbours in a ranking have equal scores, "
            f"and {original.tied_share:.0%} with {original.name}"
        )
    found = artifact.stability.rank_correlation if artifact.stability else None
    if found is not None and found < least:
        return f"its rank correlation with {original.name} is {found:.3f}"
    return None


def refuse_collapse(
    results: Sequence[Artifact], original: str, least: float, find: Callable[[Artifact], list[Suspect]]
) -> None:
    """Check that every artefact still ranks.

    Args:
        results: The teacher and all artefacts.
        original: Name of the model in fp32 from which quantized artefacts were made.
        least: Least rank correlation between the two.
        find: Called with a quantized artefact that has collapsed; returns the parts of the model, worst first.

    Raises:
        CollapseError: One does not; names it, and the parts of the model where quantization is the cause.
    """
    (reference,) = (artifact for artifact in results if artifact.name == original)
    for artifact in results[1:]:
        if (reason := collapse(artifact, reference, least)) is None:
            continue
        quantized = artifact.precision != "fp32"
        blame = f". {_blame(find(artifact), least)}" if quantized else ""
        raise CollapseError(
            f"{artifact.name} ({artifact.path}) has collapsed: {reason}{blame}",
            value=_figures(artifact),
            expected=f"scores that differ, and a rank correlation of {least:g} or more with {original}",
            remedy=(
                "leave it out of quantize.artifacts, quantize otherwise (per_channel, more bits, another mode or "
                "runtime), or train with recover.quantization_aware; evaluate.min_rank_correlation moves the bound"
                if quantized
                else "prune less, or recover longer"
            ),
        )


def suspects(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lists: Sequence[Sequence[Pair]],
    rounding: Rounding = INT8,
) -> list[Suspect]:
    """Round one part of a model at a time as int8 does: the word embeddings, and attention and FFN of each layer.

    Args:
        model: The model in fp32; it is as before afterwards.
        tokenizer: Its tokenizer.
        lists: Pairs of one query each; the first `SUSPECTS` are scored.
        rounding: Lets a module compute with rounded weights for a block; by default as in int8.

    Returns:
        All parts, the one that costs most first.
    """
    lists = lists[:SUSPECTS]
    pairs = [pair for listed in lists for pair in listed]
    ends = list(accumulate((len(listed) for listed in lists), initial=0))
    ranker = TorchRanker(model, tokenizer, lambda logits: logits)

    def scores() -> list[Any]:
        flat = ranker.score(pairs)
        return [flat[start:end] for start, end in pairwise(ends)]

    exact = scores()
    found = []
    for name, modules in _parts(model).items():
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(rounding(module))
            found.append(Suspect(name, rank_correlation(exact, scores())))
    return sorted(found, key=lambda suspect: suspect.rank_correlation)


def _parts(model: PreTrainedModel) -> dict[str, list[nn.Linear | nn.Embedding]]:
    row = architecture_of(model.config)
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    parts: dict[str, list[nn.Linear | nn.Embedding]] = {"word embeddings": [embeddings]}
    for number, layer in enumerate(encoder_layers(model)):
        linear = {path: module for path, module in layer.named_modules() if isinstance(module, nn.Linear)}
        ffn = {path: linear.pop(path) for path in (row.ffn_in, row.ffn_out) if path in linear}
        parts[f"attention of layer {number}"] = list(linear.values())
        parts[f"FFN of layer {number}"] = list(ffn.values())
    return {name: modules for name, modules in parts.items() if modules}


def _figures(artifact: Artifact) -> str:
    figures = [f"nDCG@10 {artifact.quality['ndcg@10']:.4f}", f"{artifact.tied_share:.0%} of neighbours tied"]
    if artifact.stability and artifact.stability.rank_correlation is not None:
        figures.append(f"rank correlation {artifact.stability.rank_correlation:.3f}")
    return ", ".join(figures)


def _blame(found: Sequence[Suspect], least: float) -> str:
    worst = [suspect for suspect in found if suspect.rank_correlation < least]
    listed = ", ".join(f"{part.name} ({part.rank_correlation:.3f})" for part in (worst or found)[:NAMED])
    if worst:
        return f"With one part alone quantized it is lowest for {listed}"
    return f"No part alone quantized is the cause; it is lowest for {listed}"
