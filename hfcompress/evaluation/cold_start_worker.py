"""Worker process of `hfcompress.evaluation.cold_start`: loads a ranker, scores one query, prints time and memory.

Graphs are loaded with their runtime and `tokenizers` alone, as in the code of the model card, so that the results are
those of a deployment. This module must therefore import nothing else at its top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Scorer = Callable[[list[list[str]]], Iterator[Any]]


def main() -> None:
    """Read a request as JSON from standard input, and print scores and figures as JSON."""
    request = json.load(sys.stdin)
    start = time.perf_counter()
    load = _pytorch() if request["runtime"] == "torch" else _graph(request["runtime"])
    imported = time.perf_counter()
    score = load(request)
    loaded = time.perf_counter()
    scores = [float(value) for batch in score(request["pairs"]) for value in batch]
    scored = time.perf_counter()
    figures = {
        "import_seconds": imported - start,
        "load_seconds": loaded - imported,
        "first_query_seconds": scored - loaded,
        "peak_memory_bytes": peak_memory(),
    }
    print(json.dumps({"scores": scores, "figures": figures}))


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None if the system does not report it.

    `getrusage` will not do: on Linux its maximum includes the memory of the parent process.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = [line.split() for line in status.read_text(encoding="ascii").splitlines()]
    found = [int(line[1]) * 1024 for line in lines if line and line[0] == "VmHWM:"]
    return found[0] if found else None


def _pytorch() -> Callable[[dict[str, Any]], Scorer]:
    from hfcompress.rankers.base import RankerOptions
    from hfcompress.rankers.load import load_ranker

    def load(request: dict[str, Any]) -> Scorer:
        options = RankerOptions(request["threads"], request["batch_tokens"])
        ranker = load_ranker(request["folder"], "torch", request["file"], request["max_length"], options)
        return lambda pairs: iter([ranker.score([(query, document) for query, document in pairs])])

    return load


def _graph(runtime: str) -> Callable[[dict[str, Any]], Scorer]:
    import numpy as np
    from tokenizers import Tokenizer

    open_graph = _onnxruntime() if runtime == "onnxruntime" else _openvino()

    def load(request: dict[str, Any]) -> Scorer:
        tokenizer = Tokenizer.from_file(str(Path(request["folder"], "tokenizer.json")))
        tokenizer.enable_truncation(max_length=request["max_length"])
        tokenizer.enable_padding(pad_id=request["pad_id"], pad_token=request["pad_token"])
        names, compute = open_graph(request)
        size = max(1, request["batch_tokens"] // request["max_length"])

        def score(pairs: list[list[str]]) -> Iterator[Any]:
            for start in range(0, len(pairs), size):
                encodings = tokenizer.encode_batch([tuple(pair) for pair in pairs[start : start + size]])
                features = {
                    "input_ids": [encoding.ids for encoding in encodings],
                    "attention_mask": [encoding.attention_mask for encoding in encodings],
                    "token_type_ids": [encoding.type_ids for encoding in encodings],
                }
                yield compute({name: np.array(features[name], dtype=np.int64) for name in names}).reshape(-1)

        return score

    return load


def _onnxruntime() -> Callable[[dict[str, Any]], tuple[list[str], Callable[[dict[str, Any]], Any]]]:
    import onnxruntime

    def open_graph(request: dict[str, Any]) -> tuple[list[str], Callable[[dict[str, Any]], Any]]:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = request["threads"]
        path = str(Path(request["folder"], request["file"]))
        fusions = request["disabled_optimizers"]
        session = onnxruntime.InferenceSession(
            path, settings, providers=["CPUExecutionProvider"], disabled_optimizers=fusions
        )
        return [node.name for node in session.get_inputs()], lambda inputs: session.run(None, inputs)[0]

    return open_graph


def _openvino() -> Callable[[dict[str, Any]], tuple[list[str], Callable[[dict[str, Any]], Any]]]:
    import openvino

    def open_graph(request: dict[str, Any]) -> tuple[list[str], Callable[[dict[str, Any]], Any]]:
        path = str(Path(request["folder"], request["file"]))
        settings = {"INFERENCE_NUM_THREADS": request["threads"], "INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(path, "CPU", settings)
        return [node.any_name for node in model.inputs], lambda inputs: model(inputs)[0]

    return open_graph


if __name__ == "__main__":
    main()
