"""Whether teacher and student look at the same words of a pair: gradient x input, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.ranking import RankingData, stable_hash
from hfcompress.evaluation.explain import moves
from hfcompress.evaluation.explanation import Explanation, SaliencyAgreement, SteadySaliency
from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.evaluation.report import Artifact
from hfcompress.rankers.base import Pair

TOP_WORDS = 5
FEWEST_WORDS = 3  # a correlation of two is always 1 or -1
WORDS = re.compile(r"\w+")

Word = tuple[int, int]
"""0 for the query or 1 for the document, and the place of the word in it."""


@dataclass(frozen=True)
class Reader:
    """A model in PyTorch with its tokenizer, whose `model_max_length` is the longest input."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def with_saliency(
    explanation: Explanation,
    data: RankingData,
    split: str,
    teacher: Reader,
    student: Reader,
    artifacts: Sequence[Artifact],
) -> Explanation:
    """Add saliency agreement on the first relevant document of each moved query, and of as many that did not move.

    Args:
        explanation: What `explain` returned.
        data: The data.
        split: The split that was measured.
        teacher: The teacher.
        student: The student in PyTorch, whatever runtime the explained artefact runs on.
        artifacts: What was measured; the teacher first.
    """
    moved = [
        query.model_copy(
            update={"saliency": _agreement(teacher, student, data, query.query, query.documents[0].document)}
        )
        if query.documents
        else query
        for query in explanation.moved
    ]
    steady = [
        found
        for query, document in _steady(data, split, explanation, artifacts)
        if (found := _agreement(teacher, student, data, query, document))
    ]
    summary = SteadySaliency(
        queries=len(steady),
        correlation=float(np.mean([each.correlation for each in steady])),
        overlap=float(np.mean([each.overlap for each in steady])),
    ) if steady else None  # fmt: skip
    return explanation.model_copy(update={"moved": moved, "steady_saliency": summary})


def word_weights(reader: Reader, pair: Pair) -> dict[Word, float]:
    """Gradient x input of the score with respect to the word embeddings, summed over the tokens of each word.

    How much the score would change, to first order, if the word's embedding went to zero (Shrikumar et al., 2016,
    arXiv:1605.01713; Denil et al., 2014, arXiv:1412.6815).

    Returns:
        Weights of the words that the model reads: runs of letters and digits, however the tokenizer cuts them.
    """
    encoded = reader.tokenizer(*pair, truncation=True, return_offsets_mapping=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with _embedded(reader.model) as embeddings:
        scores = reader.model(**encoded).logits
    (gradient,) = torch.autograd.grad(scores.sum(), embeddings)
    weights = (gradient * embeddings[0].detach()).sum(-1)[0].tolist()
    places = [_word_of_characters(text) for text in pair]
    words: dict[Word, float] = {}
    for part, (start, end), weight in zip(encoded.sequence_ids(0), offsets, weights, strict=True):
        inside = [] if part is None else [place for place in places[part][start:end] if place >= 0]
        if part is not None and inside:
            words[part, inside[0]] = words.get((part, inside[0]), 0.0) + weight
    return words


def agreement_of(ours: Mapping[Word, float], theirs: Mapping[Word, float]) -> tuple[float, float] | None:
    """Rank correlation of the words' weights, and overlap of the words of largest absolute weight.

    Args:
        ours: Weights by word.
        theirs: Weights by word of another model; words that only one of the two has do not count.

    Returns:
        None where fewer than 3 words are left.
    """
    words = sorted(ours.keys() & theirs.keys())
    if len(words) < FEWEST_WORDS:
        return None
    top, other = (
        set(sorted(words, key=lambda word: (-abs(weights[word]), word))[:TOP_WORDS]) for weights in (ours, theirs)
    )
    correlation = rank_correlation([[ours[word] for word in words]], [[theirs[word] for word in words]])
    return correlation, len(top & other) / len(top)


def _agreement(
    teacher: Reader, student: Reader, data: RankingData, query: str, document: str
) -> SaliencyAgreement | None:
    (pair,) = data.pairs(query, [document])
    ours, theirs = word_weights(teacher, pair), word_weights(student, pair)
    found = agreement_of(ours, theirs)
    if found is None:
        return None
    words = len(ours.keys() & theirs.keys())
    return SaliencyAgreement(document=document, words=words, correlation=found[0], overlap=found[1])


def _steady(
    data: RankingData, split: str, explanation: Explanation, artifacts: Sequence[Artifact]
) -> list[tuple[str, str]]:
    """Queries with the same quality before and after, each with its first relevant candidate; as many as moved."""
    chosen = data.split(split)
    before = artifacts[0].per_query
    (after,) = [artifact.per_query for artifact in artifacts[1:] if artifact.name == explanation.artifact]
    losses, gains = moves(before, after)
    found = []
    for query in before.keys() & after.keys() - {*losses, *gains}:
        grades = chosen.qrels[query]
        documents = [document for document in chosen.candidates.get(query, []) if grades.get(document, 0) > 0]
        if documents:
            found.append((query, max(documents, key=lambda document: grades[document])))
    return sorted(found, key=lambda pair: stable_hash(pair[0]))[: len(explanation.moved)]


@contextmanager
def _embedded(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect the word embeddings of the forward passes inside the block, as places where a gradient can be taken."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _word_of_characters(text: str) -> list[int]:
    """For each character the number of its word, -1 outside words."""
    places = [-1] * len(text)
    for number, match in enumerate(WORDS.finditer(text)):
        places[match.start() : match.end()] = [number] * (match.end() - match.start())
    return places
