"""Peak memory and minutes of pruning, export and int8 for the shapes of well-known rerankers, with random weights.

    python scripts/large_models.py --data ../shared/data/drcd --out out/large --shape xlm-roberta-base

prunes to half of the MACs with `hfcompress prune --vocabulary corpus --no-measure`, and quantizes the result for ONNX
Runtime (dynamic int8) and OpenVINO, each in a process of its own, whose peak memory is printed. The tokenizer has the
characters of the data, and made-up words up to the size of the vocabulary.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from hfcompress.data.load import load_data
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig, QuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.recipe import DataStep
from hfcompress.steps.inputs import calibration_pairs
from hfcompress.utils.quiet import silence_libraries

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
COMMON: dict[str, Any] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "num_labels": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {
        "model_type": "xlm-roberta", "vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1,
    },
    "bert-large": {
        "model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "modernbert-base": {"model_type": "modernbert", "cls_token_id": 0, "sep_token_id": 2},
    "deberta-v3-base": {
        "model_type": "deberta-v2", "vocab_size": 128_100, "type_vocab_size": 0, "relative_attention": True,
        "max_relative_positions": -1, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
    },
}  # fmt: skip
MAX_LENGTH = 128


def write_model(shape: str, sets: list[str], folder: Path) -> None:
    """Write a checkpoint with random weights and a tokenizer for the data."""
    config = AutoConfig.for_model(**SHAPES[shape], **COMMON)
    data = load_data(DataStep(sets=sets, candidates=20, max_queries={"dev": 1, "test": 1}))
    counts = Counter(letter for document in data.corpus.values() for letter in document.content)
    letters = [letter for letter, _ in counts.most_common() if not letter.isspace()]
    fillers = (f"word{number}" for number in range(config.vocab_size))
    entries = [*SPECIAL, *letters, *fillers][: config.vocab_size]
    tokenizer = Tokenizer(models.Unigram([(token, -10.0) for token in entries], unk_id=SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", sep_token="</s>", cls_token="<s>",
        unk_token="<unk>", pad_token="<pad>", mask_token="<mask>", model_max_length=MAX_LENGTH,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    print(f"{shape}: {model.num_parameters() / 1e6:.0f} M parameters, {len(entries):,} tokens", flush=True)
    save_checkpoint(folder, model, fast, "torch.nn.modules.activation.Sigmoid", MAX_LENGTH)


def quantize(source: Path, sets: list[str], folder: Path) -> None:
    """Export a checkpoint, and quantize it."""
    data = load_data(DataStep(sets=sets, candidates=20, max_queries={"train": 16, "dev": 1, "test": 1}))
    configs: list[QuantizationConfig] = [DynamicQuantizationConfig()]
    configs += [OpenVINOQuantizationConfig()] if is_available() else []
    RankerQuantizer.from_pretrained(source, MAX_LENGTH).quantize(folder, configs, calibration_pairs(data, 64))


def measured(title: str, command: list[str]) -> None:
    """Run a command, and print its peak memory and duration."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{title} failed with status {os.waitstatus_to_exitcode(status)}")
    minutes = (time.perf_counter() - start) / 60
    print(f"  {title}: {minutes:.1f} minutes, peak of {usage.ru_maxrss * 1024 / 1e9:.1f} GB", flush=True)


def main() -> None:
    """Measure the shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the models")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: all; may be repeated")
    parser.add_argument("--step", choices=["write", "quantize"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    silence_libraries()
    sets = [part for name in options.data for part in ("--data", name)]
    for shape in options.shape or SHAPES:
        folder = options.out / shape
        if options.step == "write":
            write_model(shape, options.data, folder / "dense")
        elif options.step == "quantize":
            quantize(folder / "pruned", options.data, folder / "int8")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            own = [sys.executable, __file__, *sets, "--out", str(options.out), "--shape", shape, "--step"]
            prune = [sys.executable, "-m", "hfcompress", "prune", str(folder / "dense"), *sets, "--quiet"]
            prune += ["--out", str(folder / "pruned"), "--target-macs", "0.5", "--vocabulary", "corpus", "--no-measure"]
            measured("write", [*own, "write"])
            measured("prune", prune)
            measured("export and int8", [*own, "quantize"])
            for name in ("dense", "pruned", "int8/onnx", "int8/openvino"):
                files = [path for path in (folder / name).glob("*") if path.is_file()]
                sizes = ", ".join(
                    f"{path.name} {path.stat().st_size / 1e6:.0f}" for path in files if path.stat().st_size > 1e6
                )
                print(f"  {name}, MB: {sizes}", flush=True)


if __name__ == "__main__":
    main()
