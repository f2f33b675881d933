"""Cold start and memory of a ranker, measured in a fresh process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hfcompress.models.prompts import prompts_of
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.rankers.onnxruntime import SLOW_FUSIONS
from hfcompress.report.speed import ColdStart

logger = logging.getLogger(__name__)

TIMEOUT = 180  # seconds
ROOT = Path(__file__).parents[2]


def measure_cold_start(
    ranker: BatchedRanker, folder: str, runtime: str, file: str | None, pairs: Sequence[Pair]
) -> ColdStart | None:
    """Start a process that loads the model and scores one query.

    Args:
        ranker: The loaded model; the process uses the same tokenizer, threads and batches.
        folder: Folder or name of the model.
        runtime: `torch`, `onnxruntime` or `openvino`.
        file: The graph or the packed weights in the folder; None for the checkpoint's own weights.
        pairs: A query with each of its candidates.

    Returns:
        Times and memory; None, with a warning, if the process failed: a run does not fail because of it.
    """
    # The worker computes graphs without hfcompress, which prepends the prompt.
    prompt = "" if runtime == "torch" else prompts_of(ranker.tokenizer).text
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
        "pairs": [(prompt + query, document) for query, document in pairs],
    }
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "hfcompress.evaluation.cold_start_worker"],
            input=json.dumps(request),
            env={**os.environ, "PYTHONPATH": search_path, "HF_HUB_OFFLINE": "1"},  # `ranker` has downloaded all
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    except subprocess.SubprocessError as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        logger.warning(
            "The cold start of %s in %s was not measured: %s", file or folder, runtime, lines[-1] if lines else error
        )
        return None
    return ColdStart.model_validate(json.loads(ended.stdout.splitlines()[-1])["figures"])
