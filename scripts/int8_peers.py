"""Compare our int8 with that of sentence-transformers (OpenVINO) and of optimum-onnx (dynamic), for one unpruned model.

Each peer runs in its own process and virtual environment, which is created on demand (pip) and kept. All score the
same pairs in turns with the same number of threads, tokenization included, and are calibrated on the same texts.
Nothing is downloaded from the Hub.

    python scripts/int8_peers.py path/to/cross-encoder --data ../shared/data/selqa --max-length 128
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environments import APART, CACHE, TORCH, python_environment
from int8_options import add_options, data_sets

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.benchmark import benchmark
from hfcompress.evaluation.metrics import means, per_query
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.models.load import resolve
from hfcompress.quantization.config import config_for
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.steps.inputs import calibration_pairs
from hfcompress.utils.files import size_of
from hfcompress.utils.machine import cpu_target, thread_count
from hfcompress.utils.quiet import silence_libraries

HERE = Path(__file__).parent / "peers"
CHECKPOINT = ("*.json", "*.safetensors", "*.txt", "*.model")  # files for a peer: none of our graphs


@dataclass(frozen=True)
class Peer:
    """The int8 of another project.

    Attributes:
        script: Its script in scripts/peers.
        environment: Name of its environment.
        install: Packages, in the order of their installation.
        ours: Our file that it is compared with.
    """

    script: str
    environment: str
    install: tuple[list[str], ...]
    ours: str


PEERS = {
    "sentence-transformers OpenVINO int8": Peer(
        "sentence_transformers_openvino.py",
        "sentence-transformers-openvino",
        (
            TORCH,
            ["transformers==4.57.*", "optimum-intel[openvino]==1.27.*", "sentence-transformers==5.1.*", "datasets"],
        ),
        OPENVINO_INT8,
    ),
    "optimum-onnx dynamic int8": Peer(
        "optimum_onnx_dynamic.py",
        "transformers-4",
        (TORCH, ["transformers==4.57.*", "optimum-onnx[onnxruntime]==0.1.0", "sentence-transformers==5.1.*"]),
        ONNX_INT8,
    ),
}


OURS = {OPENVINO_INT8: "hfcompress OpenVINO int8", ONNX_INT8: "hfcompress dynamic int8"}


class PeerRanker:
    """A peer as a ranker for `benchmark`; its process receives indices of pairs and returns scores.

    Args:
        command: Command of the peer's script.
        request: First request; `pairs` are all pairs that can be scored later.
        batch: Pairs in each of its batches, as a figure only.
    """

    def __init__(self, command: list[str], request: dict[str, Any], batch: int = 32) -> None:
        self.threads, self.batch_tokens = request["threads"], batch * request["max_length"]
        self._indices = {pair: index for index, pair in enumerate(request["pairs"])}
        environment = {**os.environ, **APART, "OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.files = [Path(path) for path in self._ask(request)["files"]]

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """Raw logits."""
        return np.array(self._ask([self._indices[pair] for pair in pairs]), dtype=np.float32)

    def close(self) -> None:
        """End the process."""
        self._to.close()
        self._process.wait()
        self._from.close()
        self._log.close()

    def _ask(self, content: object) -> Any:
        try:
            self._to.write(json.dumps(content) + "\n")
            self._to.flush()
            answer = self._from.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"The peer ended: {self._log.read()[-3000:]}")
        return json.loads(answer)


def checkpoint_copy(model: str, folder: Path) -> str:
    """Copy the files of the checkpoint into a new folder."""
    folder.mkdir(parents=True)
    for pattern in CHECKPOINT:
        for path in Path(resolve(model)).glob(pattern):
            shutil.copy(path, folder)
    return str(folder)


def compare(options: argparse.Namespace, data: RankingData, work: Path) -> None:
    """Quantize, evaluate and print the results on one data set."""
    threads = thread_count(options.threads)
    calibration = calibration_pairs(data, options.calibration)
    quantizer = RankerQuantizer.from_pretrained(options.model, options.max_length)
    ours = work / "ours"
    quantizer.quantize(ours, [config_for(), config_for("openvino")], calibration, progress=False)
    split = data.split(options.split)
    candidates = {query: found for query, found in split.candidates.items() if found}
    request: dict[str, Any] = {
        "texts": [f"{query} {document}" for query, document in calibration],
        "pairs": list(dict.fromkeys(pair for query, found in candidates.items() for pair in data.pairs(query, found))),
        "threads": threads,
        "max_length": quantizer.tokenizer.model_max_length,
        "target": cpu_target(),
    }
    names = options.peer or list(PEERS)
    peers: dict[str, PeerRanker] = {}
    try:
        for name in names:
            peer = PEERS[name]
            python = python_environment(options.work / peer.environment, peer.install)
            folder = checkpoint_copy(options.model, work / peer.environment / "model")
            command = [python, str(HERE / peer.script)]
            peers[name] = PeerRanker(command, {**request, "folder": folder, "work": str(work / peer.environment)})
        own = {"fp32 PyTorch": None, **{PEERS[name].ours: PEERS[name].ours for name in names}}
        settings = RankerOptions(threads)
        rankers = {
            name: load_ranker(ours, "torch" if file is None else None, file, options.max_length, settings)
            for name, file in own.items()
        }
        measured = dict(
            zip(
                [*rankers, *peers],
                benchmark(
                    [*rankers.values(), *peers.values()],  # type: ignore[list-item]
                    data,
                    options.split,
                    rounds=options.rounds,
                    latency_queries=1,
                ),
                strict=True,
            )
        )
    finally:
        for running in peers.values():
            running.close()
    exact = measured["fp32 PyTorch"]
    print(f"\n{data.name}: {len(request['pairs'])} pairs, {threads} threads, {options.rounds} rounds in turns")
    print(f"{'':38} {'docs/s':>8} {'x fp32':>7} {'nDCG@10':>8} {'MB':>7}")
    for name, found in measured.items():
        quality = means(per_query(split.qrels, found.run(candidates), data.relevant_from))["ndcg@10"]
        files = peers[name].files if name in peers else _files(ours, own[name])
        speed = sum(found.round_documents) / sum(found.round_seconds)
        title, size = OURS.get(name, name), size_of(files) / 1e6
        print(f"{title:38} {speed:8.1f} {found.speedup_over(exact):7.2f} {quality:8.4f} {size:7.1f}")
    for name in peers:
        ratio = measured[PEERS[name].ours].speedup_over(measured[name])
        print(f"{OURS[PEERS[name].ours]} is {ratio:.2f}x as fast as {name} (median of paired rounds)")


def _files(folder: Path, file: str | None) -> list[Path]:
    if file is None:
        return [folder / "model.safetensors"]
    path = folder / file
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def main() -> None:
    """Compare on every data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only this one; repeatable")
    parser.add_argument("--work", type=Path, default=CACHE, help=f"where the environments are ({CACHE})")
    options = parser.parse_args()
    silence_libraries()
    for data in data_sets(options):
        with tempfile.TemporaryDirectory() as work:
            compare(options, data, Path(work))


if __name__ == "__main__":
    main()
