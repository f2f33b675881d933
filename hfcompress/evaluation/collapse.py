"""Collapse checks: does an artifact still rank, and which parts of the model are sensitive to quantization?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, pairwise
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.errors import CollapseError
from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.quantization.rounding import WEIGHT_STEPS, fake_quantized
from hfcompress.rankers.base import Pair
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.report import Artifact

SATURATED = 0.5  # share of equal neighbouring scores beyond that of the model in fp32
SENSITIVITY_QUERIES = 32  # lists that sensitivities are computed on
MAX_NAMED_PARTS = 4  # in an error message

Rounding = Callable[[nn.Linear | nn.Embedding], AbstractContextManager[None]]
INT8: Rounding = partial(fake_quantized, per_channel=True, steps=WEIGHT_STEPS)


@dataclass(frozen=True)
class PartSensitivity:
    """Sensitivity of the ranking to the quantization of one part of a model.

    Attributes:
        name: Name of the part, e.g. `attention of layer 2`.
        rank_correlation: Spearman's rank correlation with the model in fp32 if this part alone is rounded, mean over
            queries.
    """

    name: str
    rank_correlation: float


def collapse_reason(artifact: Artifact, original: Artifact, least: float) -> str | None:
    """How an artifact has collapsed; None if it has not.

    The reference is the fp32 model that was quantized, not the dense teacher. A student that was pruned and retrained
    may order documents differently and rank them as well; its verdict decides that. Spearman's correlation weights
    documents by how far they move: swaps of near-equal documents, which int8 causes in any list, hardly count. In
    Kendall's tau they would count as much as any other pair.

    Args:
        artifact: The artifact to check.
        original: The fp32 model that it was made from.
        least: Smallest acceptable rank correlation between the two.
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


def check_collapse(
    results: Sequence[Artifact], original: str, least: float, sensitivities: Callable[[Artifact], list[PartSensitivity]]
) -> None:
    """Check that every artifact still ranks.

    Args:
        results: The teacher and all artifacts.
        original: Name of the fp32 model that quantized artifacts were made from.
        least: Smallest acceptable rank correlation between the two.
        sensitivities: Called with a quantized artifact that has collapsed; returns the sensitivities of the model's
            parts, the most sensitive part first.

    Raises:
        CollapseError: An artifact has collapsed. The message names it, and the parts of the model if quantization is
            the cause.
    """
    (reference,) = (artifact for artifact in results if artifact.name == original)
    for artifact in results[1:]:
        if (reason := collapse_reason(artifact, reference, least)) is None:
            continue
        half = artifact.precision in ("fp16", "bf16")
        quantized = artifact.precision != "fp32" and not half
        cause = f". {_cause(sensitivities(artifact), least)}" if quantized else ""
        raise CollapseError(
            f"{artifact.name} ({artifact.path}) has collapsed: {reason}{cause}",
            value=_summary(artifact),
            expected=f"scores that differ, and a rank correlation of {least:g} or more with {original}",
            remedy=(
                "leave it out of quantize.artifacts, change its quantization (per_channel, more bits, another mode or "
                "runtime), or train with recover.quantization_aware; evaluate.min_rank_correlation sets the bound"
                if quantized
                else "leave it out of quantize.artifacts, or use dtype: bfloat16, which has the range of fp32"
                if half
                else "prune less, or recover longer"
            ),
        )


def part_sensitivities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lists: Iterable[Sequence[Pair]],
    rounding: Rounding = INT8,
) -> list[PartSensitivity]:
    """Round one part of a model at a time: the word embeddings, and the attention and FFN of each layer.

    Args:
        model: The model in fp32; it is unchanged afterwards.
        tokenizer: Its tokenizer.
        lists: Pairs of one query each; the first `SENSITIVITY_QUERIES` are scored, and no more are read.
        rounding: Context manager in which a module computes with rounded weights; by default those of int8.

    Returns:
        All parts, the most sensitive one first.
    """
    scored = list(islice(lists, SENSITIVITY_QUERIES))
    pairs = [pair for listed in scored for pair in listed]
    ends = list(accumulate((len(listed) for listed in scored), initial=0))
    ranker = TorchRanker(model, tokenizer)

    def scores() -> list[Any]:
        flat = ranker.score(pairs)
        return [flat[start:end] for start, end in pairwise(ends)]

    exact = scores()
    found = []
    for name, modules in _parts(model).items():
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(rounding(module))
            found.append(PartSensitivity(name, rank_correlation(exact, scores())))
    return sorted(found, key=lambda part: part.rank_correlation)


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


def _summary(artifact: Artifact) -> str:
    figures = [f"nDCG@10 {artifact.quality['ndcg@10']:.4f}", f"{artifact.tied_share:.0%} of neighbours tied"]
    if artifact.stability and artifact.stability.rank_correlation is not None:
        figures.append(f"rank correlation {artifact.stability.rank_correlation:.3f}")
    return ", ".join(figures)


def _cause(parts: Sequence[PartSensitivity], least: float) -> str:
    worst = [part for part in parts if part.rank_correlation < least]
    listed = ", ".join(f"{part.name} ({part.rank_correlation:.3f})" for part in (worst or parts)[:MAX_NAMED_PARTS])
    if worst:
        return f"With one part alone quantized it is lowest for {listed}"
    return f"No part alone quantized is the cause; it is lowest for {listed}"
