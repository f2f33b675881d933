"""Time of an OpenVINO graph by kind of operator: matrix products, attention, normalization, and others.

Test pairs are scored in the batches of hfcompress, on one thread, with the performance counters of OpenVINO's CPU
plug-in. An operator that is fused into another one, such as bias and GELU into a product, counts as part of it.

    python scripts/openvino_profile.py out/run --data ../shared/data/selqa
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import openvino

from hfcompress.data.load import load_data
from hfcompress.models.layout import OPENVINO_INT8
from hfcompress.models.load import load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.recipe import DataStep

# Kind of a node, by the prefix of its type.
KINDS = {
    "FullyConnected": "matrix products",
    "MatMul": "matrix products",
    "Subgraph": "attention",
    "ScaledDotProductAttention": "attention",
    "MVN": "normalization",
    "MulAdd": "normalization",
    "Gather": "embeddings",
}
OTHER = "sums, scales, transposes"


def kind(node_type: str) -> str:
    """Kind of a node."""
    return next((name for start, name in KINDS.items() if node_type.startswith(start)), OTHER)


def spent(path: Path, batches: list[dict[str, np.ndarray]]) -> Counter[str]:
    """Seconds by kind of node over all batches, after a warm-up with all of them."""
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    names = {node.any_name for node in request.model_inputs}
    seconds: Counter[str] = Counter()
    for counted in (False, True):
        for batch in batches:
            request.infer({name: value for name, value in batch.items() if name in names})
            if counted:
                for node in request.profiling_info:
                    seconds[kind(node.node_type)] += node.real_time.total_seconds()
    return seconds


def main() -> None:
    """Print the time and share of each kind of node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that holds an OpenVINO graph")
    parser.add_argument("--data", required=True, help="a folder in BEIR's layout, or the name of a built-in set")
    parser.add_argument("--file", default=OPENVINO_INT8, help="the graph in the folder")
    parser.add_argument("--queries", type=int, default=60, help="test queries, each with 15 documents")
    options = parser.parse_args()
    data = load_data(DataStep(sets=[options.data], candidates=15, max_queries={"train": 1, "dev": 1}))
    test = list(data.split("test").candidates.items())[: options.queries]
    pairs = [pair for query, found in test for pair in data.pairs(query, found)]
    path = options.folder / options.file
    ranker = OpenVinoRanker(path, load_tokenizer(str(options.folder)), options=RankerOptions())
    seconds = spent(path, list(ranker.batches(pairs)))
    total = sum(seconds.values())
    print(f"OpenVINO {openvino.__version__}, {len(pairs)} pairs; of one core, for each pair:")
    for name, value in [("all", total), *seconds.most_common()]:
        print(f"{name:<26} {1e6 * value / len(pairs):>7.0f} us {value / total:>6.1%}")


if __name__ == "__main__":
    main()
