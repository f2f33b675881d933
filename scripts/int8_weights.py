"""Dynamic int8 of ONNX Runtime with weights of 8 or 7 bits, and one scale for each output channel or each matrix.

CPUs without VNNI add products of 8-bit numbers in 16 bits, which overflow unless weights have 7 bits. Where they do not
overflow, integer sums are exact and the same on every CPU, so a CPU with VNNI shows what 7 bits cost elsewhere:

    python scripts/int8_weights.py TEACHER --data ../shared/data/selqa --data ../shared/data/googleq

prints the difference of nDCG@10 to the model in fp32 PyTorch, on dev.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from hfcompress.data.load import load_data
from hfcompress.evaluation.metrics import PRIMARY_METRIC, split_values
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization.config import DynamicQuantizationConfig
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep
from hfcompress.utils.quiet import silence_libraries


def main() -> None:
    """Quantize in each way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a cross-encoder")
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; may be repeated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--dev", type=int, default=250, help="dev queries per data set")
    parser.add_argument("--candidates", type=int, default=10, help="ranked documents per dev query")
    options = parser.parse_args()
    silence_libraries()
    data = load_data(DataStep(sets=options.data, candidates=options.candidates, max_queries={"dev": options.dev}))
    model, tokenizer = load_model(options.model, dtype="float32"), load_tokenizer(options.model, options.max_length)
    exact = split_values(TorchRanker(model.eval(), tokenizer), data, "dev")
    print(f"{'weights':8} {'scales':12} {'difference':>10} {'(s.e.)':>8}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, (per_channel, reduce_range) in enumerate(product((True, False), (False, True))):
            config = DynamicQuantizationConfig(per_channel, reduce_range)
            graph = onnx_backend.quantize(onnx_backend.export_onnx(model, tokenizer), config, [])
            path = onnx_backend.save_onnx(graph, Path(folder) / f"{number}.onnx")
            values = split_values(OnnxRuntimeRanker(path, tokenizer), data, "dev")
            differences = np.array(
                [row[PRIMARY_METRIC] - exact[query][PRIMARY_METRIC] for query, row in values.items()]
            )
            scales, bits = "per channel" if per_channel else "per matrix", 7 if reduce_range else 8
            error = differences.std() / len(differences) ** 0.5
            print(f"{bits} bits   {scales:12} {differences.mean():+10.4f} {error:8.4f}", flush=True)


if __name__ == "__main__":
    main()
