"""Peak memory and minutes of pruning, export and int8 for the shapes of well-known rerankers, with random weights.

    python scripts/large_models.py --data ../shared/data/drcd --out out/large --shape xlm-roberta-base

runs `hfcompress prune --target-macs 0.5 --vocabulary corpus`, which also exports the model before and after pruning and
times both, and then quantizes the result for ONNX Runtime (dynamic int8) and OpenVINO. Each of the two has a process of
its own, whose peak memory is measured; the exit code is 1 if one takes more than `--limit-gb`. The tokenizer has the
characters of the data, and made-up words up to the size of the vocabulary. Shapes are measured one after the other; one
that was measured in this folder before, with the same settings, is not measured again. `--shape tiny` tries the script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
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
    "tiny": {"model_type": "bert", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
    "deberta-v3-base": {
        "model_type": "deberta-v2", "vocab_size": 128_100, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "type_vocab_size": 0, "relative_attention": True,
        "max_relative_positions": -1, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
    },
}  # fmt: skip
MAX_LENGTH = 128


def write_model(shape: str, sets: list[str], folder: Path) -> None:
    """Write a checkpoint with random weights and a tokenizer for the data, in `dense` of the folder."""
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
    save_checkpoint(folder / "dense", model, fast, "torch.nn.modules.activation.Sigmoid", MAX_LENGTH)


def quantize(folder: Path, sets: list[str]) -> None:
    """Export the pruned checkpoint of the folder, and quantize it."""
    data = load_data(DataStep(sets=sets, candidates=20, max_queries={"train": 16, "dev": 1, "test": 1}))
    configs: list[QuantizationConfig] = [DynamicQuantizationConfig()]
    configs += [OpenVINOQuantizationConfig()] if is_available() else []
    quantizer = RankerQuantizer.from_pretrained(folder / "pruned", MAX_LENGTH)
    quantizer.quantize(folder / "int8", configs, calibration_pairs(data, 64))


@dataclass(frozen=True)
class Phase:
    """A measured process: its duration, the time of all cores, and the peak of its resident memory."""

    minutes: float
    cpu_minutes: float
    peak_gb: float


def measured(title: str, command: list[str]) -> Phase:
    """Run a command, and print its peak memory and duration."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{title} failed with status {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, see getrusage(2)
    cpu = (usage.ru_utime + usage.ru_stime) / 60
    phase = Phase((time.perf_counter() - start) / 60, cpu, usage.ru_maxrss * unit / 1e9)
    print(
        f"  {title}: {phase.minutes:.1f} minutes ({cpu:.1f} of all cores), peak of {phase.peak_gb:.1f} GB", flush=True
    )
    return phase


def row(shape: str, folder: Path, prune: Phase, export: Phase) -> str:
    """The figures of a shape as a row of a Markdown table."""
    (pruned,) = json.loads((folder / "pruned" / "family.json").read_text())
    dense, fp32, onnx, openvino = (
        sum(path.stat().st_size for path in (folder / part).glob(pattern)) / 1e6
        for part, pattern in (
            ("dense", "*.safetensors"), ("pruned", "*.safetensors"), ("int8/onnx", "model_q*.onnx"),
            ("int8/openvino", "*qint8*.bin"),
        )
    )  # fmt: skip
    tokens = [json.loads((folder / part / "config.json").read_text())["vocab_size"] for part in ("dense", "pruned")]
    cells = [shape, f"{dense / 4:.0f} -> {pruned['parameters'] / 1e6:.0f}", f"{tokens[0]:,} -> {tokens[1]:,}"]
    cells += [f"{phase.peak_gb:.1f} | {phase.minutes:.0f} ({phase.cpu_minutes:.0f})" for phase in (prune, export)]
    cells += [f"{dense:.0f} -> {fp32:.0f}", f"{onnx:.0f}", f"{openvino:.0f}"]
    return f"| {' | '.join(cells)} |"


HEADER = """
| shape | M weights | tokens | GB, prune | min (CPU) | GB, export, int8 | min (CPU) | MB, fp32 | ONNX int8 | OpenVINO |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def measure(shape: str, data: list[str], out: Path, calibration_queries: int) -> tuple[str, float]:
    """Write, prune and quantize a shape, if that was not done before; gives its row, and its peak memory in GB."""
    folder, settings = out / shape, {"data": data, "calibration_queries": calibration_queries}
    if (record := folder / "measured.json").is_file():
        found = json.loads(record.read_text())
        if found["settings"] == settings:
            print(f"{shape}: kept from an earlier call", flush=True)
            return found["row"], found["peak_gb"]
    shutil.rmtree(folder, ignore_errors=True)
    sets = [part for name in data for part in ("--data", name)]
    own = [sys.executable, __file__, *sets, "--out", str(out), "--shape", shape, "--step"]
    command = [sys.executable, "-m", "hfcompress", "prune", str(folder / "dense"), *sets, "--quiet"]
    command += ["--out", str(folder / "pruned"), "--target-macs", "0.5", "--vocabulary", "corpus"]
    measured("write", [*own, "write"])
    pruned = measured("prune", [*command, "--calibration-queries", str(calibration_queries)])
    exported = measured("export and int8", [*own, "quantize"])
    cells, peak = row(shape, folder, pruned, exported), max(pruned.peak_gb, exported.peak_gb)
    record.write_text(json.dumps({"settings": settings, "row": cells, "peak_gb": peak}))
    return cells, peak


def main() -> None:
    """Measure the shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="a folder in BEIR's layout; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the models")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: all but tiny; may be repeated")
    parser.add_argument("--limit-gb", type=float, default=12.0, help="memory that no process may exceed")
    parser.add_argument("--calibration-queries", type=int, default=64, help="as for hfcompress prune")
    parser.add_argument("--step", choices=["write", "quantize"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    silence_libraries()
    shapes, data, out = options.shape or [name for name in SHAPES if name != "tiny"], options.data, options.out
    if options.step:
        folder = out / shapes[0]
        if options.step == "write":
            write_model(shapes[0], data, folder)
        else:
            quantize(folder, data)
        return
    measured_shapes = [measure(shape, data, out, options.calibration_queries) for shape in shapes]
    print(HEADER, *(cells for cells, _ in measured_shapes), sep="\n")
    peaks = {shape: peak for shape, (_, peak) in zip(shapes, measured_shapes, strict=True)}
    if above := [f"{shape} ({peak:.1f} GB)" for shape, peak in peaks.items() if peak > options.limit_gb]:
        sys.exit(f"above {options.limit_gb:g} GB: {', '.join(above)}")


if __name__ == "__main__":
    main()
