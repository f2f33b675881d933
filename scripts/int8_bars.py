"""int8 of a cross-encoder and of its pruned versions: speed-up over fp32 PyTorch, loss of nDCG@10, and size.

Every model is quantized to dynamic and static int8 for ONNX Runtime and to int8 for OpenVINO, calibrated on train
queries of the data set. All artifacts are evaluated in turns with the unpruned model in fp32 PyTorch (batches sorted by
length under a token budget, tokenization included). The loss is relative to the same model in fp32. `--pruned FOLDER
SPEED` sets the speed-up that its OpenVINO int8 has to reach. `--max-loss LOSS` uses mixed precision for ONNX Runtime,
with this bound on the calibration loss.

    python scripts/int8_bars.py out/teacher/.hfcompress/teacher --max-length 128 \\
        --data ../shared/data/selqa --data ../shared/data/scifact \\
        --pruned out/family/speedup-2 6.9 --pruned out/family/speedup-4 9.3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from int8_options import add_options, data_sets

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.results import evaluate_candidates
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import MixedPrecisionConfig, QuantizationConfig, config_for
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.recipe import EvaluateStep
from hfcompress.steps.inputs import calibration_pairs, ranking_pairs
from hfcompress.utils.quiet import silence_libraries

# Bars: speed-up over fp32 PyTorch, and largest loss of nDCG@10 relative to the same model in fp32.
UNPRUNED = {"onnxruntime dynamic": (2.8, 0.005), "onnxruntime static": (2.8, 0.005), "openvino static": (4.3, 0.002)}
PRUNED_LOSS = 0.003


def kind(config: QuantizationConfig) -> str:
    """Name of a kind of int8."""
    return f"{config.runtime} {config.mode}"


def candidates_of(
    name: str,
    model: str,
    folder: Path,
    configs: list[QuantizationConfig],
    data: RankingData,
    options: argparse.Namespace,
) -> list[Candidate]:
    """Quantize a model; returns it in fp32 PyTorch, and its int8 graphs."""
    pairs = ranking_pairs(data) if options.max_loss else calibration_pairs(data, options.calibration)
    RankerQuantizer.from_pretrained(model, options.max_length).quantize(folder, configs, pairs)
    exact = Candidate(name, str(folder), "model.safetensors", "torch", "fp32")
    graphs = [
        Candidate(f"{name}, {kind(config)}", str(folder), graph_file(config), config.runtime, config.precision, name)  # type: ignore[arg-type]
        for config in configs
    ]
    return [exact, *graphs]


def measure_set(options: argparse.Namespace, data: RankingData, work: Path) -> None:
    """Quantize, evaluate and print the results on one data set."""
    onnx: list[QuantizationConfig] = [config_for(), config_for(mode="static")]
    if options.max_loss:
        onnx = [MixedPrecisionConfig(options.max_loss, mode) for mode in ("dynamic", "static")]
    configs = [*onnx, config_for("openvino")]
    models = [("unpruned", options.model, None), *((Path(name).name, name, bar) for name, bar in options.pruned)]
    candidates: list[Candidate] = []
    bars: dict[str, tuple[float | None, float]] = {}
    for number, (name, model, bar) in enumerate(models):
        candidates += candidates_of(name, model, work / str(number), configs, data, options)
        for config in configs:
            title = f"{name}, {kind(config)}"
            if bar is None:
                bars[title] = UNPRUNED[kind(config)]
            else:
                bars[title] = (float(bar) if config.runtime == "openvino" else None, PRUNED_LOSS)
    step = EvaluateStep(
        rounds=options.rounds,
        threads=options.threads,
        latency_queries=options.latency_queries,
        single_thread_queries=0,
        cold_start=False,
    )
    measured = evaluate_candidates(candidates, data, step, max_length=options.max_length, split=options.split)
    results = [each.artifact for each in measured]
    found = {artifact.name: artifact for artifact in results}
    queries = len(results[0].per_query)
    print(f"\n{data.name}: {queries} {options.split} queries, {options.rounds} rounds in turns, ", end="")
    print(f"{results[0].latency.threads} threads; loss against the same model in fp32")
    print(f"{'':32} {'docs/s':>8} {'x fp32':>7} {'bar':>6} {'nDCG@10':>8} {'loss':>8} {'bar':>6} {'MB':>6}  ok")
    for candidate in candidates:
        artifact = found[candidate.name]
        speed, loss_bar = bars.get(candidate.name, (None, None))
        quality = artifact.quality["ndcg@10"]
        loss = found[candidate.made_from].quality["ndcg@10"] - quality if candidate.made_from else None
        fine = (speed is None or artifact.speedup >= speed) and (loss_bar is None or (loss or 0.0) <= loss_bar)
        print(
            f"{candidate.name[-32:]:32} {artifact.latency.docs_per_second:8.1f} {artifact.speedup:7.2f} "
            f"{'' if speed is None else f'{speed:.1f}':>6} {quality:8.4f} {'' if loss is None else f'{loss:+.4f}':>8} "
            f"{'' if loss_bar is None else f'{loss_bar:.3f}':>6} {artifact.size_bytes / 1e6:6.1f}  "
            f"{'' if loss_bar is None else 'yes' if fine else 'NO'}"
        )


def main() -> None:
    """Evaluate on every data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--pruned", nargs=2, action="append", default=[], metavar=("FOLDER", "SPEED"))
    parser.add_argument("--max-loss", type=float, help="largest calibration loss, by layers that stay in fp32")
    parser.add_argument("--latency-queries", type=int, default=5)
    options = parser.parse_args()
    silence_libraries()
    for data in data_sets(options):
        with tempfile.TemporaryDirectory() as work:
            measure_set(options, data, Path(work))


if __name__ == "__main__":
    main()
