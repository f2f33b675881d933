"""Pickling and copying of rankers by the call that loaded them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

from hfcompress.models.load import model_fingerprint
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.fork import limit_threads_after_fork

P = ParamSpec("P")


def reloadable(load: Callable[P, BatchedRanker]) -> Callable[P, BatchedRanker]:
    """Decorate a function that loads a ranker by its argument `name`, so that pickles and copies call it again."""

    @wraps(load)
    def loading(*args: P.args, **kwargs: P.kwargs) -> BatchedRanker:
        limit_threads_after_fork()
        ranker = load(*args, **kwargs)
        bound = inspect.signature(load).bind(*args, **kwargs)
        bound.apply_defaults()
        name = str(bound.arguments["name"])
        if Path(name).is_dir():
            name = str(Path(name).absolute())  # a worker may have another working directory
        call = partial(loading, **{**bound.arguments, "name": name})
        ranker.reload = partial(_reduced, call, name, getattr(ranker, "path", None))
        return ranker

    return loading


def _reduced(call: partial[BatchedRanker], name: str, graph: Path | None) -> tuple[Any, ...]:
    """What `__reduce__` returns. The fingerprint makes caches, such as that of `Dataset.map`, notice new weights."""
    return _loaded, (call, model_fingerprint(name, str(graph.absolute()) if graph else None))


def _loaded(call: partial[BatchedRanker], fingerprint: str) -> BatchedRanker:
    return call()
