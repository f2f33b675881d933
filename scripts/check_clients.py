"""Load the output of hfcompress with clients of other projects, and compare their rankings of 20 documents.

Each client runs in its own environment, which is created on demand (pip, npm) and kept; nothing is downloaded from the
Hub. The ranking must be that of the checkpoint in fp32 PyTorch, except for documents whose scores are closer than the
error of the file itself. The clients are in scripts/clients/.

    python scripts/check_clients.py out/quickstart
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from environments import APART, CACHE, TORCH, npm_environment, python_environment, run

from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8
from hfcompress.rankers.load import load_ranker

HERE = Path(__file__).parent / "clients"
DECIDED = 0.5  # minimum share of document pairs whose scores are far enough apart for their order to count
ROUNDING = 1e-3  # difference between versions of kernels, in standard deviations of the scores

TRANSFORMERS_4 = ["transformers==4.57.*", "optimum-onnx[onnxruntime]==0.1.0", "sentence-transformers==5.1.*"]


@dataclass(frozen=True)
class Client:
    """A client of another project.

    Attributes:
        script: Script that reads folder, file, query and documents as JSON and prints the scores as JSON.
        environment: Name of the environment; clients may share one.
        install: Packages in the order of installation.
        files: Graphs to test it with.
    """

    script: str
    environment: str
    install: tuple[list[str], ...]
    files: tuple[str, ...] = (ONNX_FP32, ONNX_INT8)


CLIENTS = {
    "optimum-onnx": Client("optimum_onnx.py", "transformers-4", (TORCH, TRANSFORMERS_4)),
    "sentence-transformers": Client("sentence_transformers_onnx.py", "transformers-4", (TORCH, TRANSFORMERS_4)),
    "fastembed": Client("fastembed_custom.py", "fastembed", (["fastembed==0.9.*"],)),
    "flashrank": Client("flashrank_folder.py", "flashrank", (["FlashRank==0.2.*"],)),
    "transformers.js": Client("transformers_js.mjs", "npm", (["@huggingface/transformers@4"],), (ONNX_INT8,)),
}

QUERY = "sort a list in place"
DOCUMENTS = [
    "list.sort sorts the list in ascending order and returns None.",
    "sorted returns a new list with all items from an iterable in ascending order.",
    "list.reverse reverses the items of a list in place.",
    "list.append adds an item to the end of the list.",
    "heapq.heapify transforms a list into a heap, in place, in linear time.",
    "bisect.insort inserts an item into a sorted list and keeps it sorted.",
    "random.shuffle shuffles a mutable sequence in place.",
    "tuple.count returns how often a value occurs.",
    "dict.items gives a view of the keys and values of a dictionary.",
    "str.join concatenates the strings of an iterable.",
    "os.path.join joins path components with the separator of the system.",
    "socket.create_connection connects to a TCP service on the internet.",
    "json.dumps serializes an object to a JSON formatted string, with optional indentation and sorted keys.",
    "math.sqrt returns the square root of a number.",
    "threading.Lock creates a lock that only one thread can hold at a time.",
    "datetime.now returns the current local date and time.",
    "csv.DictReader maps the rows of a CSV file to dictionaries.",
    "re.compile compiles a pattern into a regular expression object, which can be used for matching.",
    "functools.cmp_to_key turns a comparison function into a key function for sorting.",
    "operator.itemgetter makes a function that fetches an item, often the key by which rows are sorted.",
]


def disorder(reference: np.ndarray, scores: np.ndarray, tolerance: float) -> tuple[int, float]:
    """Count pairs of documents in the wrong order.

    Args:
        reference: Scores in fp32.
        scores: Scores of the client; any increasing function of the logits.
        tolerance: Maximum error of the scores of the file.

    Returns:
        Number of pairs that differ by more than twice the tolerance and have the wrong order, and the share of all
        pairs that differ by that much.
    """
    apart = [(i, j) for i, j in permutations(range(len(reference)), 2) if reference[i] - reference[j] > 2 * tolerance]
    wrong = sum(bool(scores[i] < scores[j]) for i, j in apart)
    return wrong, 2 * len(apart) / (len(reference) * (len(reference) - 1))


def own_tolerance(folder: Path, file: str, reference: np.ndarray) -> float:
    """Error of the file itself on ONNX Runtime: for single pairs, and for one batch as in the clients."""
    ranker = load_ranker(folder, "onnxruntime", file)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    scores = [ranker.score_in_batches(pairs, size) for size in (1, len(pairs))]
    return max(float(np.abs(found - reference).max()) for found in scores) + ROUNDING * float(reference.std())


def prepare(client: Client, work: Path) -> list[str]:
    """Create or reuse the environment of a client, and return the command that runs the client."""
    home, script = work / client.environment, HERE / client.script
    if client.environment != "npm":
        return [python_environment(home, client.install), str(script)]
    npm_environment(home, client.install)
    shutil.copy(script, home)  # node searches for packages next to the script
    return ["node", str(home / script.name)]


def ask(command: list[str], folder: Path, file: str) -> np.ndarray:
    """Scores of a client for the documents."""
    request = {"folder": str(folder), "file": file, "query": QUERY, "documents": DOCUMENTS}
    printed = run(command, input=json.dumps(request), env={**os.environ, **APART})
    return np.array(json.loads(printed.splitlines()[-1]))


def check(name: str, folder: Path, work: Path, reference: np.ndarray) -> bool:
    """Test one client with all its files, print a row for each, and return whether all are right."""
    fine = True
    client = CLIENTS[name]
    for file in client.files:
        try:
            scores = ask(prepare(client, work), folder, file)
            if scores.shape != reference.shape:
                raise ValueError(f"scores of shape {scores.shape} for {len(reference)} documents")
        except (OSError, RuntimeError, ValueError) as error:
            print(f"{name:22} {file:28} FAILS: {error}")
            fine = False
            continue
        wrong, decided = disorder(reference, scores, own_tolerance(folder, file, reference))
        right = not wrong and decided >= DECIDED
        kept = rank_correlation([reference.tolist()], [scores.tolist()])
        print(f"{name:22} {file:28} {'ok' if right else 'FAILS':6} {wrong:5} {decided:8.0%} {kept:12.4f}")
        fine &= right
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that `hfcompress run` wrote, with onnx/")
    parser.add_argument("--work", type=Path, default=CACHE, help=f"folder of the environments ({CACHE})")
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="only this one; repeatable")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if missing := [file for file in ("config.json", ONNX_FP32, ONNX_INT8) if not (folder / file).is_file()]:
        parser.error(f"{folder} has no {', '.join(missing)}: name a folder that `hfcompress run` has finished")
    reference = load_ranker(folder, "torch").score([(QUERY, document) for document in DOCUMENTS])
    print(f"{'client':22} {'file':28} {'order':6} {'wrong':>5} {'decided':>8} {'rank corr.':>12}")
    results = [check(name, folder, arguments.work, reference) for name in arguments.client or CLIENTS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
