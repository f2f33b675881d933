"""Scores of models: each pair once, by the fastest runtime that agrees with PyTorch, and kept for whoever asks next."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.score_store import ScoreStore, pair_keys
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.load import load_config, resolve
from hfcompress.quantization.exact import ExactSample, FirstTokenRanker, faster_graph, fp32_graph
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.load import load_ranker, ranking_tokenizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.device import CPU
from hfcompress.utils.progress import progress_bar

logger = logging.getLogger(__name__)

PARTS = 8  # of a split; an interruption loses the scores of one
FEWEST_PAIRS = 512  # for which faster rankers are looked for; the search itself scores `SAMPLE` pairs a few times
SAMPLE = 32  # pairs on which rankers are compared
# Time of scoring in PyTorch from which on a graph pays. One thread: MiniLM-L6 is exported in 6 to 9 seconds, and its
# graph saves a tenth to a fifth of the time (scripts/score_times.py); both grow with the number of layers.
EXPORT_PAYS_SECONDS = 8.0  # for each layer
OPENING_PAYS_SECONDS = 5.0
ACCELERATOR_TOKENS = 65536  # of a batch that is not timed; a few thousand leave a GPU idle most of the time


class Fp32Scorer:
    """Scores pairs with a model in fp32: a `Ranker` without `rank`, for many pairs and one thread at a time.

    Scores that the store has are not computed again. Others are computed in PyTorch or, where there are many, by what
    agrees with it to 1e-4 and is faster: the last layer computed for one token only, or an fp32 graph. That graph is
    the folder's own, or exported into a temporary folder that exists as long as the scorer. On an accelerator PyTorch
    goes on, in batches of `ACCELERATOR_TOKENS` or more.

    Args:
        model: A folder, a Hub id, or `package:NAME/FOLDER`.
        max_length: Longest input in tokens; by default the tokenizer's.
        file: Packed weights in the folder; by default the checkpoint's own.
        options: How to use the machine, and to read long documents; the model is loaded onto `options.device`.
        reference: The model in PyTorch, if it is loaded already; otherwise it is loaded when a score is missing.

    Attributes:
        name: Name in messages.
        computed: Number of pairs that were computed, not read from the store.
    """

    def __init__(
        self,
        model: str,
        max_length: int | None = None,
        file: str | None = None,
        options: RankerOptions | None = None,
        reference: TorchRanker | None = None,
    ):
        self.name = model
        self.computed = 0
        options = options or RankerOptions()
        if options.device != CPU:
            options = replace(options, batch_tokens=max(options.batch_tokens, ACCELERATOR_TOKENS))
        self._load = lambda: reference or load_ranker(model, "torch", file, max_length, options)
        tokenizer = reference.tokenizer if reference else ranking_tokenizer(model, load_config(model), max_length)
        long_documents = reference.long_documents if reference else options.long_documents
        self._store = ScoreStore.of_model(model, tokenizer.model_max_length, file, long_documents)
        self._known: dict[bytes, float] = {}
        self._asked: set[bytes] = set()
        self._graph = None if file else fp32_graph(Path(resolve(model)))
        self._reference: TorchRanker | None = None
        self._ranker: BatchedRanker | None = None  # the fastest so far
        self._sample: ExactSample | None = None
        self._seconds = 0.0  # of the fastest so far for the sample
        self._graph_tried = False

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, shape `(len(pairs),)`, float32; empty for no pairs."""
        keys = pair_keys(pairs)
        missing = self._missing(keys, pairs)
        self._choose(missing)
        if rest := {key: pair for key, pair in missing.items() if key not in self._known}:
            self._keep(rest, cast(BatchedRanker, self._ranker).score(list(rest.values())))
        return np.array([self._known[key] for key in keys], dtype=np.float32)

    def add(self, pairs: Sequence[Pair], scores: Sequence[float]) -> None:
        """Take over scores that the model in PyTorch has computed elsewhere; those that are known stay as they are."""
        keys = pair_keys(pairs)
        missing = self._missing(keys, pairs)
        found = {key: score for key, score in zip(keys, scores, strict=True) if key in missing}
        self._known |= found
        self._store.put(found)

    def prepare(self, pairs: Sequence[Pair]) -> None:
        """Choose how to compute the scores of pairs that will be asked for in parts."""
        self._choose(self._missing(pair_keys(pairs), pairs))

    def _missing(self, keys: Sequence[bytes], pairs: Sequence[Pair]) -> dict[bytes, Pair]:
        """The pairs whose score is not known, each once; the store is asked for each pair once."""
        new = set(keys) - self._asked
        self._known |= self._store.get(new)
        self._asked |= new
        return {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}

    def _choose(self, missing: dict[bytes, Pair]) -> None:
        """Choose the fastest ranker for the pairs that are missing, counting those that were computed before."""
        if self._graph_tried or not missing:
            return
        if self._reference is None:
            self._reference = cast(TorchRanker, self._load())
            self._ranker = self._reference
        total = self.computed + len(missing)
        if total < FEWEST_PAIRS:
            return
        if self._sample is None:
            self._compare_in_pytorch(missing)
        assert self._sample is not None
        if self._reference.model.device.type != CPU:  # graphs run on the CPU
            self._graph_tried = True
            return
        expected = total * self._sample.seconds / len(self._sample.pairs)
        pays = OPENING_PAYS_SECONDS if self._graph else EXPORT_PAYS_SECONDS * len(encoder_layers(self._reference.model))
        if expected < pays:
            return
        self._graph_tried = True
        folder = Path(tempfile.mkdtemp(prefix="hfcompress-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._ranker = faster_graph(self._reference, self._sample, self._seconds, self._graph, folder) or self._ranker

    def _compare_in_pytorch(self, missing: dict[bytes, Pair]) -> None:
        """Score a sample, long pairs included, in PyTorch, and with the last layer computed for one token."""
        assert self._reference is not None
        ordered = sorted(missing, key=lambda key: sum(map(len, missing[key])))
        chosen = {
            ordered[index]: missing[ordered[index]] for index in np.linspace(0, len(ordered) - 1, SAMPLE, dtype=int)
        }
        self._reference.score(list(chosen.values())[:2])  # warm-up
        self._sample = ExactSample.of(self._reference, list(chosen.values()))
        self._keep(chosen, self._sample.scores)
        quick = FirstTokenRanker(self._reference)
        seconds = self._sample.faster(quick, self._sample.seconds)
        self._seconds = seconds or self._sample.seconds
        if seconds:
            self._ranker = quick

    def _keep(self, pairs: dict[bytes, Pair], scores: np.ndarray) -> None:
        found = dict(zip(pairs, scores.tolist(), strict=True))
        self.computed += len(found)
        self._known |= found
        self._store.put(found)


def split_scores(
    candidate: Candidate,
    data: RankingData,
    split: str,
    *,
    max_length: int | None,
    options: RankerOptions | None = None,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Score all candidates of a split with a model, see `query_scores`.

    Args:
        candidate: The model.
        data: The data as the model reads it: with `with_score_text` for a model with `score_text`.
        split: The split, whose queries may lack labels.
        max_length: Longest input in tokens; None for the tokenizer's.
        options: How to use the machine.
        progress: Show a progress bar.

    Returns:
        Raw scores, `{query id: [score of each candidate]}`.
    """
    pairs = {query: data.pairs(query, documents) for query, documents in data.splits[split].candidates.items()}
    return query_scores(candidate, pairs, max_length=max_length, options=options, progress=progress)


def query_scores(
    candidate: Candidate,
    pairs: Mapping[str, Sequence[Pair]],
    *,
    max_length: int | None,
    options: RankerOptions | None = None,
    ranker: BatchedRanker | None = None,
    computed: Mapping[str, Sequence[float]] | None = None,
    parts: int = PARTS,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Score pairs with a model: in fp32 with a `Fp32Scorer`, otherwise with the model's own graph.

    Args:
        candidate: The model.
        pairs: Pairs of each query, by its id.
        max_length: Longest input in tokens; None for the tokenizer's.
        options: How to use the machine.
        ranker: The model, if it is loaded already. It is not used for scores in fp32 if `options` name another device.
        computed: Scores of some of the queries by `ranker`, which are not computed again in fp32.
        parts: Parts in which the queries are scored: each n-th query together, as in `benchmark`. Scores of dynamic
            int8 depend on them.
        progress: Show a progress bar.

    Returns:
        Raw scores, `{query id: [score of each pair]}`, in the order of `pairs`.
    """
    scorer: Fp32Scorer | BatchedRanker
    if candidate.is_exact:
        here = isinstance(ranker, TorchRanker) and ranker.model.device == torch.device(
            (options or RankerOptions()).device
        )
        reference = cast(TorchRanker, ranker) if here else None
        scorer = Fp32Scorer(candidate.folder, max_length, candidate.file, options, reference)
        for query, own_scores in (computed or {}).items():
            scorer.add(pairs[query], own_scores)
        scorer.prepare([pair for own in pairs.values() for pair in own])
    else:
        scorer = ranker or candidate.ranker(max_length, options or RankerOptions())
    queries, scores, total = list(pairs), {}, sum(map(len, pairs.values()))
    title = f"scores of {candidate.name}"
    with progress_bar(total=total, desc=title, unit="doc", disable=not progress, leave=False) as bar:
        for start in range(min(parts, len(queries))):
            part = queries[start::parts]
            flat = iter(scorer.score([pair for query in part for pair in pairs[query]]).tolist())
            scores.update({query: [next(flat) for _ in pairs[query]] for query in part})
            bar.update(sum(len(pairs[query]) for query in part))
    if isinstance(scorer, Fp32Scorer) and scorer.computed < total:
        logger.info(f"{title}: {total - scorer.computed:,} of {total:,} are known already")
    return {query: scores[query] for query in queries}
