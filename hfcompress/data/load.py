"""Loading the data sets of a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hfcompress.data.api_search import load_api_search
from hfcompress.data.beir import is_beir, read_beir
from hfcompress.data.draft import Reader, ReadOptions, finish
from hfcompress.data.ir_datasets import IRDS, read_ir_datasets
from hfcompress.data.ranking import RankingData, merge, validate
from hfcompress.data.recommend import load_recommend
from hfcompress.data.tables import HUB, is_saved, read_files, read_hub, read_saved, table_files
from hfcompress.data.trec import is_trec, read_trec
from hfcompress.data.values import mend_texts
from hfcompress.recipe import DataStep

API_SEARCH, RECOMMEND = "api-search", "recommend"
GENERAL_TEXT = "general-text"  # in `recover.also`
BUILT_IN: dict[str, Callable[[Mapping[str, int | None], bool], RankingData]] = {
    API_SEARCH: load_api_search,
    RECOMMEND: load_recommend,
}


def load_data(step: DataStep, progress: bool = True, unlabelled: bool = False) -> RankingData:
    """Load the data sets of a recipe, apply its limits, and merge them.

    Args:
        step: The data sets and their options.
        progress: Show a progress bar.
        unlabelled: Add queries without judgements to the train split; see `load_beir`.

    Raises:
        DataError: A set cannot be used.
        MissingExtraError: A set needs a package that is not installed.
    """
    data = merge([_load(name, step, progress, unlabelled) for name in step.sets])
    return data.with_score_text(step.score_text) if step.score_text else data


def _load(name: str, step: DataStep, progress: bool, unlabelled: bool) -> RankingData:
    limits = step.max_queries.model_dump()
    if name in BUILT_IN:
        return load_built_in(name, limits, step.candidates, progress)
    options = ReadOptions(step.label_threshold, unlabelled)
    draft = reader_of(name)(os.path.expanduser(name), options)
    return finish(draft, limits, step.candidates, step.split_seed, unlabelled)


def load_built_in(name: str, limits: Mapping[str, int | None], candidates: int, progress: bool = True) -> RankingData:
    """Build one of the sets in `BUILT_IN`.

    Args:
        name: Its name.
        limits: Maximum number of queries by split.
        candidates: Maximum number of candidates per query.
        progress: Show progress bars.
    """
    built = BUILT_IN[name](limits, progress)
    queries, corpus, notes = mend_texts(name, built.queries, built.corpus)
    built = replace(built, queries=queries, corpus=corpus, notes=(*built.notes, *notes))
    return validate(built).limited(limits, candidates)


def reader_of(name: str) -> Reader:
    """Return the reader of a source. BEIR's reader reports missing paths and folders of unknown layout."""
    path = Path(name).expanduser()
    if name.startswith(HUB):
        return read_hub
    if name.startswith(IRDS):
        return read_ir_datasets
    if path.is_file():
        return read_files
    if path.is_dir() and not (path / "qrels").is_dir():
        if is_saved(path):
            return read_saved
        if is_trec(path):
            return read_trec
        if table_files(path) and not is_beir(path):
            return read_files
    return read_beir
