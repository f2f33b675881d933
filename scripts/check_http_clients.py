"""Ask `hfcompress serve` for a ranking of 20 documents, with clients that speak to other rerankers over HTTP.

Each client runs in an environment of its own, which is created on demand with pip and kept. Order and scores must be
those of the ranker that is served. The clients are in scripts/http_clients/.

    python scripts/check_http_clients.py out/quickstart
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from check_clients import DOCUMENTS, QUERY
from environments import APART, CACHE, python_environment, run
from served import running, serve_command

from hfcompress.rankers.load import load_ranker

HERE = Path(__file__).parent / "http_clients"
MODEL = "compressed"
TOLERANCE = 1e-3  # of scores after the sigmoid: int8 of a batch of 20 and of other batches
CLIENTS = {
    "cohere": ("cohere_sdk.py", ["cohere==5.*"]),
    "LangChain": ("langchain_cohere_rerank.py", ["langchain-cohere==0.6.*"]),
    "LlamaIndex": (
        "llama_index_rerank.py",
        ["llama-index-postprocessor-tei-rerank==0.6.*", "llama-index-postprocessor-cohere-rerank==0.10.*"],
    ),
    "rerankers": ("rerankers_api.py", ["rerankers==0.10.*", "requests"]),
}


def fault(ranking: list[tuple[int, float]], scores: np.ndarray, tolerance: float = TOLERANCE) -> str | None:
    """What is wrong with a ranking, as pairs of index and score from the best to the worst; None if nothing is.

    Args:
        ranking: The ranking of a client.
        scores: Scores of the ranker, by index.
        tolerance: Maximum difference of a score.
    """
    if sorted(index for index, _ in ranking) != list(range(len(scores))):
        return f"{len(ranking)} of {len(scores)} documents, or one twice"
    values = [score for _, score in ranking]
    if values != sorted(values, reverse=True):
        return "not sorted by score"
    worst = max(abs(score - scores[index]) for index, score in ranking)
    return f"a score differs by {worst:.2g}" if worst > tolerance else None


def check(name: str, address: str, scores: np.ndarray, work: Path) -> bool:
    """Test a client with each of its forms, print a row for each, and return whether all are right."""
    script, packages = CLIENTS[name]
    asked = {"url": address, "model": MODEL, "query": QUERY, "documents": DOCUMENTS}
    python = python_environment(work / name.lower(), (packages,))
    try:
        printed = run([python, str(HERE / script)], input=json.dumps(asked), env={**os.environ, **APART})
    except (OSError, RuntimeError) as error:
        print(f"{name:12} FAILS: {error}")
        return False
    rankings = [json.loads(line) for line in printed.splitlines() if line.startswith("[[")]
    faults = [fault(ranking, scores) for ranking in rankings]
    for number, found in enumerate(faults, 1):
        print(f"{name:12} {number} {f'FAILS: {found}' if found else 'ok'}")
    return bool(faults) and not any(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that `hfcompress run` wrote")
    parser.add_argument("--work", type=Path, default=CACHE, help=f"folder of the environments ({CACHE})")
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="only this one; repeatable")
    arguments = parser.parse_args()
    logits = load_ranker(arguments.folder).score([(QUERY, document) for document in DOCUMENTS])
    with running(serve_command(f"{MODEL}={arguments.folder.resolve()}")) as served:
        results = [
            check(name, served.url, 1 / (1 + np.exp(-logits)), arguments.work) for name in arguments.client or CLIENTS
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
