"""Time of int8 graphs whose attention has one product for queries, keys and values, against the usual three.

    python scripts/merged_projections.py path/to/cross-encoder --heads 0.33 --ffn 0.25

cuts the model to shares of its heads and FFN neurons (by magnitude), exports it with the usual projections and with
merged ones (all layers but the last, whose queries are those of the first token alone), quantizes both for ONNX Runtime
(dynamic) and OpenVINO, and times them in turns on one thread. The scores of both must agree.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.models.architectures import architecture_of, encoder_layers, projection
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.modeling_hfcompress import NoHeads
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.importance.scores import magnitude
from hfcompress.pruning.search.explicit import plan_for_shares
from hfcompress.quantization.artifacts import write_graphs
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import PruneStep
from hfcompress.utils.quiet import silence_libraries

FILES = {"ONNX Runtime dynamic int8": ONNX_INT8, "OpenVINO int8": OPENVINO_INT8}
SCORE_TOLERANCE = 0.01  # int8 rounds the inputs of one product and of three with scales that can differ


class Merged(nn.Module):
    """One product with the rows of several linear layers that have the same input."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        self.linear = nn.Linear(layers[0].in_features, sum(self.sizes))
        self.linear.weight.data = torch.cat([layer.weight.data for layer in layers])
        self.linear.bias.data = torch.cat([layer.bias.data for layer in layers])
        self.parts: tuple[torch.Tensor, ...] = ()


class Part(nn.Module):
    """The place of one of the layers; that of the first one computes all of them."""

    def __init__(self, merged: Merged, number: int) -> None:
        super().__init__()
        self.number = number
        self.merged = [merged]  # in a list: a submodule of one place only
        if number == 0:
            self.layer = merged

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The rows of this layer; shape `(batch, tokens, out_features)`."""
        merged = self.merged[0]
        if self.number == 0:
            merged.parts = merged.linear(hidden).split(merged.sizes, -1)
        return merged.parts[self.number]


def merge(model: PreTrainedModel) -> None:
    """Merge the projections of all layers but the last, in place."""
    row = architecture_of(model.config)
    for layer in list(encoder_layers(model))[:-1]:
        paths = [row.query, row.key, row.value]
        if len(set(paths)) == 1:
            raise SystemExit(f"error: {row.model_type} has one product for queries, keys and values already")
        if isinstance(layer.get_submodule(row.attention), NoHeads):
            continue
        merged = Merged([linear for path in paths if (linear := projection(layer, path)) is not None])
        for number, path in enumerate(paths):
            layer.set_submodule(path, Part(merged, number))


def random_pairs(tokenizer: PreTrainedTokenizerBase, count: int, words: int) -> list[tuple[str, str]]:
    """Pairs of a short query and a document of random words."""
    rng = random.Random(0)
    known = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 3)
    return [(" ".join(rng.choices(known, k=6)), " ".join(rng.choices(known, k=words))) for _ in range(count)]


def milliseconds(folders: list[Path], file: str, pairs: list[tuple[str, str]], rounds: int) -> list[float]:
    """Median time of each folder's ranker, which take turns; their scores must agree."""
    rankers = [load_ranker(folder, file=file, options=RankerOptions(threads=1)) for folder in folders]
    found = [ranker.score(pairs) for ranker in rankers]
    np.testing.assert_allclose(found[1], found[0], atol=SCORE_TOLERANCE)
    times: list[list[float]] = [[] for _ in rankers]
    for _ in range(rounds):
        for ranker, spent in zip(rankers, times, strict=True):
            start = time.perf_counter()
            ranker.score(pairs)
            spent.append(time.perf_counter() - start)
    return [1000 * float(np.median(spent)) for spent in times]


def main() -> None:
    """Export both forms, time them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a cross-encoder")
    parser.add_argument("--heads", type=float, default=0.33, help="share of heads to keep")
    parser.add_argument("--ffn", type=float, default=0.25, help="share of FFN neurons to keep")
    parser.add_argument("--words", type=int, nargs="+", default=[20, 60, 150], help="words of a document")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()

    silence_libraries()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = load_tokenizer(options.model)
    model = load_model(options.model)
    shares = PruneStep(heads=options.heads, ffn=options.ffn)
    model = apply_plan(model, plan_for_shares(magnitude(model), current_plan(model), shares)).eval()
    configs = [DynamicQuantizationConfig(), OpenVINOQuantizationConfig()]
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("three", "merged")]
        for folder in folders:
            if folder.name == "merged":
                merge(model)
            tokenizer.save_pretrained(folder)
            model.config.save_pretrained(folder)
            calibration = random_pairs(tokenizer, 64, max(options.words))
            write_graphs(folder, model, tokenizer, configs, pairs=calibration, progress=False)
        print("| | words | three products, ms | one, ms | one / three |\n| --- | ---: | ---: | ---: | ---: |")
        for name, file in FILES.items():
            for words in options.words:
                pairs = random_pairs(tokenizer, 8, words)
                three, one = milliseconds(folders, file, pairs, options.rounds)
                print(f"| {name} | {words} | {three:.1f} | {one:.1f} | {one / three:.2f} |")


if __name__ == "__main__":
    main()
