"""From the names in a recipe to ranking data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hfcompress.data.api_search import load_api_search
from hfcompress.data.beir import load_beir
from hfcompress.data.draft import Draft, finish
from hfcompress.data.irds import IRDS, read_irds
from hfcompress.data.ranking import RankingData, check, merge
from hfcompress.data.recommend import load_recommend
from hfcompress.data.score_text import with_score_text
from hfcompress.data.tables import HUB, is_saved, read_files, read_hub, read_saved, table_files
from hfcompress.data.trec import is_trec, read_trec
from hfcompress.errors import DataError
from hfcompress.recipe import DataStep

API_SEARCH, RECOMMEND = "api-search", "recommend"
BUILT_IN: dict[str, Callable[[Mapping[str, int | None], bool], RankingData]] = {
    API_SEARCH: load_api_search,
    RECOMMEND: load_recommend,
}


def load_data(step: DataStep, progress: bool = True, unlabelled: bool = False) -> RankingData:
    """Load, limit and join the data sets of a recipe.

    Args:
        step: What to load.
        progress: Show a progress bar.
        unlabelled: Take queries without judgements for train queries; see `load_beir` and `finish`.

    Raises:
        DataError: A set cannot be used.
        MissingExtraError: A set needs a package that is not installed.
    """
    limits = step.max_queries.model_dump()
    data = merge([_load(name, step, limits, progress, unlabelled) for name in step.sets])
    return with_score_text(data, step.score_text) if step.score_text else data


def _load(name: str, step: DataStep, limits: Mapping[str, int | None], progress: bool, unlabelled: bool) -> RankingData:
    if name in BUILT_IN:
        return check(BUILT_IN[name](limits, progress)).limited(limits, step.candidates)
    path = Path(name).expanduser()
    if not name.startswith((HUB, IRDS)) and _is_beir(path):
        data = load_beir(path, step.candidates, unlabelled, step.split_seed, limits)
        return data.limited(limits, step.candidates)
    draft = _read(name, path, step.label_threshold)
    return finish(draft, limits, step.candidates, step.split_seed, unlabelled)


def _is_beir(path: Path) -> bool:
    """Whether a folder is in BEIR's layout, or in none, which BEIR's reader then says."""
    if (path / "qrels").is_dir() or not path.exists():
        return True
    if path.is_file() or is_saved(path) or is_trec(path):
        return False
    return any(path.glob("corpus.jsonl*")) or any(path.glob("queries.jsonl*")) or not table_files(path)


def _read(name: str, path: Path, threshold: float | None) -> Draft:
    if name.startswith(HUB):
        return read_hub(name, threshold)
    if name.startswith(IRDS):
        return read_irds(name)
    if path.is_dir() and is_saved(path):
        return read_saved(path, threshold)
    if path.is_dir() and is_trec(path):
        return read_trec(path)
    if table_files(path):
        return read_files(path, threshold)
    raise DataError(
        "This is no file with data",
        value=str(path),
        expected="a file in CSV, TSV, JSON, JSON lines or Parquet, or a folder",
        remedy="check the path",
    )
