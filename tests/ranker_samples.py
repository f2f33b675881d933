"""Every ranker of the package, found by introspection, and requests for it. A new one fails until it is added here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from conftest import WORDS

import hfcompress.rankers
from hfcompress.data.document import Document
from hfcompress.rankers.base import Pair, Ranker, RankerOptions
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.load import Runtime, load_ranker

THREADS = 2


def ranker_classes() -> set[str]:
    """Names of all concrete classes in `hfcompress.rankers` that have the methods of a ranker."""
    found = set()
    for module in pkgutil.iter_modules(hfcompress.rankers.__path__, "hfcompress.rankers."):
        for name, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            methods = callable(getattr(thing, "score", None)) and callable(getattr(thing, "rank", None))
            if methods and thing is not Ranker and not inspect.isabstract(thing):
                found.add(name)
    return found


def _bm25(folder: Path) -> Ranker:
    texts = {document for query, documents in requests() for document in documents}
    return Bm25Ranker({str(number): Document("", text) for number, text in enumerate(sorted(texts))})


def _loaded(runtime: Runtime) -> Callable[[Path], Ranker]:
    return lambda folder: load_ranker(folder, runtime, options=RankerOptions(THREADS, batch_tokens=256))


# By the name of the class.
RANKERS: dict[str, Callable[[Path], Ranker]] = {
    "TorchRanker": _loaded("torch"),
    "OnnxRuntimeRanker": _loaded("onnxruntime"),
    "OpenVinoRanker": _loaded("openvino"),
    "Bm25Ranker": _bm25,
}
RUNTIMES = get_args(Runtime)


def requests(count: int = 12) -> list[tuple[str, list[str]]]:
    """Queries with ragged lists of documents; a third of the queries and some documents exceed the maximum length."""
    rng = random.Random(0)

    def text(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    found = []
    for number in range(count):
        query = " ".join(rng.choices(WORDS, k=40 + number)) if number % 3 == 0 else text(6)
        found.append((query, [text(8 if other % 4 else 60) for other in range(1 + (number * 7) % 23)]))
    return found


def pairs_of(query: str, documents: list[str]) -> list[Pair]:
    return [(query, document) for document in documents]
