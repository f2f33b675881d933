"""Saliency agreement: do teacher and student use the same words of a pair? Measured by gradient x input per word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from hfcompress.data.ranking import RankingData, stable_hash
from hfcompress.evaluation.explain import changed_queries
from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.models.hooks import hooks
from hfcompress.models.prompts import encode_pairs, prompts_of
from hfcompress.rankers.base import Pair
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.explanation import Explanation, MeanSaliencyAgreement, SaliencyAgreement
from hfcompress.report.report import Artifact
from hfcompress.utils.device import moved

TOP_WORDS = 5
MIN_WORDS = 3  # a correlation of two is always 1 or -1
WORDS = re.compile(r"\w+")

Word = tuple[int, int]
"""0 for the query or 1 for the document, and the index of the word in it."""


def add_saliency(
    explanation: Explanation,
    data: RankingData,
    split: str,
    teacher: TorchRanker,
    student: TorchRanker,
    artifacts: Sequence[Artifact],
) -> Explanation:
    """Add saliency agreement on the first relevant document of each changed query, and of as many unchanged ones.

    Args:
        explanation: The result of `explain`.
        data: The data.
        split: The evaluated split.
        teacher: The teacher.
        student: The student in PyTorch, whatever the runtime of the explained artifact.
        artifacts: Evaluated artifacts, the teacher first.
    """
    moved = [
        query.model_copy(
            update={"saliency": _agreement(teacher, student, data, query.query, query.documents[0].document)}
        )
        if query.documents
        else query
        for query in explanation.moved
    ]
    unchanged = [
        found
        for query, document in _unchanged(data, split, explanation, artifacts)
        if (found := _agreement(teacher, student, data, query, document))
    ]
    summary = MeanSaliencyAgreement(
        queries=len(unchanged),
        correlation=float(np.mean([each.correlation for each in unchanged])),
        overlap=float(np.mean([each.overlap for each in unchanged])),
    ) if unchanged else None  # fmt: skip
    return explanation.model_copy(update={"moved": moved, "steady_saliency": summary})


def word_saliency(ranker: TorchRanker, pair: Pair) -> dict[Word, float]:
    """Gradient x input of the score with respect to the word embeddings, summed over the tokens of each word.

    To first order, the change of the score if the word's embedding became zero (Shrikumar et al., 2016,
    arXiv:1605.01713; Denil et al., 2014, arXiv:1412.6815).

    Returns:
        Saliency of each word that the model reads. Words are runs of letters and digits, whatever their tokenization.
    """
    settings = {"truncation": True, "return_offsets_mapping": True, "return_tensors": "pt"}
    encoded = encode_pairs(ranker.tokenizer, [pair[0]], [pair[1]], **settings)
    prompt = prompts_of(ranker.tokenizer).text
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with _embedded(ranker.model) as embeddings:
        scores = ranker.model(**moved(encoded, ranker.model.device)).logits
    (gradient,) = torch.autograd.grad(scores.sum(), embeddings)
    saliencies = (gradient * embeddings[0].detach()).sum(-1)[0].tolist()
    word_indices = [_word_of_characters(text) for text in pair]
    word_indices[0] = [-1] * len(prompt) + list(word_indices[0])  # words of the prompt are not counted
    words: dict[Word, float] = {}
    for part, (start, end), saliency in zip(encoded.sequence_ids(0), offsets, saliencies, strict=True):
        inside = [] if part is None else [index for index in word_indices[part][start:end] if index >= 0]
        if part is not None and inside:
            words[part, inside[0]] = words.get((part, inside[0]), 0.0) + saliency
    return words


def saliency_agreement(teacher: Mapping[Word, float], student: Mapping[Word, float]) -> tuple[float, float] | None:
    """Rank correlation of the words' saliencies, and overlap of the words with the largest absolute saliency.

    Args:
        teacher: Saliency of each word.
        student: Saliency of each word in another model; words that only one of the two has are ignored.

    Returns:
        None with fewer than 3 words in common.
    """
    words = sorted(teacher.keys() & student.keys())
    if len(words) < MIN_WORDS:
        return None
    top, other = (
        set(sorted(words, key=lambda word: (-abs(saliency[word]), word))[:TOP_WORDS]) for saliency in (teacher, student)
    )
    correlation = rank_correlation([[teacher[word] for word in words]], [[student[word] for word in words]])
    return correlation, len(top & other) / len(top)


def _agreement(
    teacher: TorchRanker, student: TorchRanker, data: RankingData, query: str, document: str
) -> SaliencyAgreement | None:
    (pair,) = data.pairs(query, [document])
    of_teacher, of_student = word_saliency(teacher, pair), word_saliency(student, pair)
    found = saliency_agreement(of_teacher, of_student)
    if found is None:
        return None
    words = len(of_teacher.keys() & of_student.keys())
    return SaliencyAgreement(document=document, words=words, correlation=found[0], overlap=found[1])


def _unchanged(
    data: RankingData, split: str, explanation: Explanation, artifacts: Sequence[Artifact]
) -> list[tuple[str, str]]:
    """Queries of equal quality before and after, each with its first relevant candidate; as many as in `moved`."""
    chosen = data.split(split)
    before = artifacts[0].per_query
    (after,) = [artifact.per_query for artifact in artifacts[1:] if artifact.name == explanation.artifact]
    losses, gains = changed_queries(before, after)
    found = []
    for query in before.keys() & after.keys() - {*losses, *gains}:
        grades = chosen.qrels[query]
        documents = [document for document in chosen.candidates.get(query, []) if grades.get(document, 0) > 0]
        if documents:
            found.append((query, max(documents, key=lambda document: grades[document])))
    return sorted(found, key=lambda pair: stable_hash(pair[0]))[: len(explanation.moved)]


@contextmanager
def _embedded(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect the word embeddings of the forward passes in the block, as leaf tensors that require gradients."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1]

    with hooks([model.get_input_embeddings().register_forward_hook(keep)]):
        yield found


def _word_of_characters(text: str) -> list[int]:
    """Index of the word of each character, -1 outside words."""
    indices = [-1] * len(text)
    for number, match in enumerate(WORDS.finditer(text)):
        indices[match.start() : match.end()] = [number] * (match.end() - match.start())
    return indices
