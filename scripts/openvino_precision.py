"""Errors of the scores of an OpenVINO graph by precision and batch size, the reason why hfcompress sets fp32.

Every pair is scored for each precision and batch size with plain OpenVINO. The reference is the same graph in fp32, one
pair at a time. On a CPU without bf16, both precisions give the same results.

    python scripts/openvino_precision.py out/run --data ../shared/data/selqa
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openvino
from transformers import PreTrainedTokenizerFast

from hfcompress.data.load import load_data
from hfcompress.models.layout import OPENVINO_INT8
from hfcompress.models.load import load_tokenizer
from hfcompress.rankers.base import Pair
from hfcompress.recipe import DataStep

PRECISIONS = ("f32", "bf16")


def scores(path: Path, tokenizer: PreTrainedTokenizerFast, pairs: list[Pair], precision: str, batch: int) -> np.ndarray:
    """Logits of the pairs in batches of neighbours, shape `(pairs,)`."""
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    names = {node.any_name for node in model.inputs}
    found = []
    for start in range(0, len(pairs), batch):
        queries, documents = zip(*pairs[start : start + batch], strict=True)
        features = tokenizer(list(queries), list(documents), padding=True, truncation=True, return_tensors="np")
        result = model({name: value for name, value in features.items() if name in names})
        found.append(result[0][:, 0].copy())
    return np.concatenate(found)


def main() -> None:
    """Print a row for each precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that holds an OpenVINO graph")
    parser.add_argument("--data", required=True, help="a folder in BEIR's layout, or the name of a built-in set")
    parser.add_argument("--file", default=OPENVINO_INT8, help="the graph in the folder")
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16, 32])
    options = parser.parse_args()
    data = load_data(DataStep(sets=[options.data], candidates=15, max_queries={"train": 1, "dev": 1}))
    test = data.split("test").candidates.items()
    pairs = [pair for query, found in test for pair in data.pairs(query, found)][: options.pairs]
    path, tokenizer = options.folder / options.file, load_tokenizer(str(options.folder))
    expected = scores(path, tokenizer, pairs, "f32", 1)
    print(f"OpenVINO {openvino.__version__}, {len(pairs)} pairs, standard deviation of the scores {expected.std():.2f}")
    print(f"{'precision':>9} {'batch':>6} {'mean error':>11} {'largest':>8} {'over 1':>7}")
    for precision in PRECISIONS:
        for batch in options.batches:
            errors = np.abs(scores(path, tokenizer, pairs, precision, batch) - expected)
            row = f"{errors.mean():>11.3f} {errors.max():>8.2f} {(errors > 1).mean():>7.1%}"
            print(f"{precision:>9} {batch:>6} {row}")


if __name__ == "__main__":
    main()
