"""Cold start and memory of a ranker, measured in a process that begins with nothing."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hfcompress.evaluation.speed import ColdStart
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.rankers.onnxruntime import SLOW_FUSIONS

logger = logging.getLogger(__name__)

SECONDS = 180  # after which a start is given up
ROOT = Path(__file__).parents[2]


def measure_cold_start(
    ranker: BatchedRanker, folder: str, runtime: str, file: str | None, pairs: Sequence[Pair]
) -> ColdStart | None:
    """Start a process that loads the model and scores one query.

    Args:
        ranker: The same model, already loaded: its tokenizer, threads and batches are used.
        folder: Folder or name of the model.
        runtime: `torch`, `onnxruntime` or `openvino`.
        file: The graph or the packed weights in the folder; None for the checkpoint's own weights.
        pairs: A query with each of its candidates.

    Returns:
        The figures; None, with a warning, if the process failed: a run that has come this far is not given up for it.
    """
    request = {
        "folder": folder,
        "runtime": runtime,
        "file": file,
        "max_length": ranker.tokenizer.model_max_length,
        "pad_id": ranker.tokenizer.pad_token_id,
        "pad_token": ranker.tokenizer.pad_token,
        "threads": ranker.threads,
        "batch_tokens": ranker.batch_tokens,
        "disabled_optimizers": list(SLOW_FUSIONS),
        "pairs": list(pairs),
    }
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "hfcompress.evaluation.first_query"],
            input=json.dumps(request),
            env={**os.environ, "PYTHONPATH": search_path, "HF_HUB_OFFLINE": "1"},  # all was downloaded for `ranker`
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        logger.warning(
            "The cold start of %s in %s was not measured: %s", file or folder, runtime, said[-1] if said else error
        )
        return None
    return ColdStart.model_validate(json.loads(ended.stdout.splitlines()[-1])["figures"])
