"""Profile `evaluate`: time of the tokenizer, the model, and the rest, which should be below 5% of the total.

    python scripts/evaluate_overhead.py path/to/cross-encoder --baseline path/to/teacher

uses 500 queries with 50 candidates each, generated from words of the tokenizer. Times are CPU seconds of this process,
over all threads, so that other load on the machine does not count. Models run in PyTorch.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfcompress.evaluation.standalone import evaluate_models
from hfcompress.models.load import load_tokenizer
from hfcompress.rankers.base import BatchedRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.quiet import silence_libraries

WORDS_OF_A_DOCUMENT = 40


def write_data(folder: Path, words: list[str], queries: int, candidates: int) -> Path:
    """Write a data folder in BEIR's layout with texts of random words."""
    rng = random.Random(0)
    for name in ("qrels", "bm25"):
        (folder / name).mkdir(parents=True)
    documents = [f"d{number}" for number in range(10 * candidates)]
    ids = [f"q{number}" for number in range(queries)]
    for name, keys, length in (("corpus", documents, WORDS_OF_A_DOCUMENT), ("queries", ids, 6)):
        rows = [{"_id": key, "title": "", "text": " ".join(rng.choices(words, k=length))} for key in keys]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    listed = {query: rng.sample(documents, candidates) for query in ids}
    judged = [f"{query}\t{listed[query][rank]}\t1\n" for query in ids for rank in rng.sample(range(candidates), 2)]
    ranks = [f"{query}\t{key}\t{rank}\n" for query in ids for rank, key in enumerate(listed[query], 1)]
    (folder / "qrels" / "test.tsv").write_text("".join(judged), encoding="utf-8")
    (folder / "bm25" / "test.tsv").write_text("".join(ranks), encoding="utf-8")
    return folder


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Sum the CPU seconds of tokenizer and model over all rankers that score in the block."""
    spent = {"tokenizer": 0.0, "model": 0.0}
    encode, forward = BatchedRanker._encode, TorchRanker.forward

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **settings)
            finally:
                spent[part] += time.process_time() - start

        return call

    def model_timed(self: TorchRanker, batches: Iterator[Any]) -> Iterator[Any]:
        waiting = iter(batches)

        def prepared() -> Iterator[Any]:  # the preparation of a batch does not count for the model
            while True:
                spent["model"] += time.process_time()
                batch = next(waiting, None)
                spent["model"] -= time.process_time()
                if batch is None:
                    return
                yield batch

        spent["model"] -= time.process_time()
        for logits in forward(self, prepared()):
            spent["model"] += time.process_time()
            yield logits
            spent["model"] -= time.process_time()
        spent["model"] += time.process_time()

    BatchedRanker._encode, TorchRanker.forward = timed("tokenizer", encode), model_timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        BatchedRanker._encode, TorchRanker.forward = encode, forward  # type: ignore[method-assign]


def seconds(model: str, baseline: str | None, queries: int = 500, candidates: int = 50) -> dict[str, float]:
    """CPU seconds of one evaluation: `tokenizer`, `model`, `rest`."""
    words = sorted(word for word in load_tokenizer(model).get_vocab() if word.isalpha())
    with tempfile.TemporaryDirectory() as folder, clocked() as spent:
        data = write_data(Path(folder, "words"), words, queries, candidates)
        start = time.process_time()
        evaluate_models(model, baseline, [str(data)], "test", runtime="torch", candidates=candidates, progress=False)
        whole = time.process_time() - start
    return {**spent, "rest": whole - sum(spent.values())}


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--baseline")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=50)
    arguments = parser.parse_args()
    silence_libraries()
    found = seconds(arguments.model, arguments.baseline, arguments.queries, arguments.candidates)
    for part, value in found.items():
        print(f"{part:10} {value:8.2f} s {value / sum(found.values()):7.1%}")


if __name__ == "__main__":
    main()
