"""Steps of `compress` whose results are measurements: taken once, kept for a resumed run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hfcompress.data.ranking import RankingData
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.report import Artifact
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.files import write_text

RESULT = "result.json"
PROBE_PAIRS = 64
ARTIFACTS = TypeAdapter(list[Artifact])


def cached_value(workspace: Workspace, name: str, inputs: Any, compute: Callable[[], Any]) -> Any:
    """Compute a value, or return the one that an earlier run computed.

    Args:
        workspace: Keeps the value.
        name: Name of the step.
        inputs: What the value depends on, as JSON data; timings are no inputs.
        compute: Computes the value, JSON data.
    """

    def work(folder: Path, partial: Path) -> None:
        write_text(folder / RESULT, json.dumps(compute()))

    folder = workspace.step(name, inputs, work, None).path
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def save_artifacts(folder: Path, artifacts: Sequence[Artifact]) -> None:
    """Write measurements into the folder of a step."""
    write_text(folder / RESULT, ARTIFACTS.dump_json(list(artifacts)).decode())


def load_artifacts(folder: Path) -> list[Artifact]:
    """Read measurements that `save_artifacts` has written."""
    return ARTIFACTS.validate_json((folder / RESULT).read_bytes())


def pairs_per_second(teacher: str, data: RankingData, split: str, max_length: int, options: RankerOptions) -> float:
    """Speed of the teacher in fp32 PyTorch on a few pairs of the data, tokenization counted."""
    model = load_model(teacher, dtype="float32", device=options.device)
    ranker = TorchRanker(model, load_tokenizer(teacher, max_length), options=options)
    pairs = []
    for query, documents in data.split(split).candidates.items():
        pairs += data.pairs(query, documents)
        if len(pairs) >= PROBE_PAIRS:
            break
    ranker.score(pairs[:8])
    start = time.perf_counter()
    ranker.score(pairs)
    return len(pairs) / (time.perf_counter() - start)
