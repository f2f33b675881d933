"""Steps of `compress` whose results are figures: measured once, kept for a resumed run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.report import Artifact
from hfcompress.files import write_text
from hfcompress.models import load_model, load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.workspace import Workspace

RESULT = "result.json"
PROBE_PAIRS = 64
ARTIFACTS = TypeAdapter(list[Artifact])


def remembered(workspace: Workspace, name: str, inputs: Any, find: Callable[[], Any]) -> Any:
    """Find something out, or recall what an earlier run found.

    Args:
        workspace: Where it is kept.
        name: Name of the step.
        inputs: What the result depends on, as JSON data; what the clock says does not belong to it.
        find: Finds it out; returns JSON data.
    """

    def work(folder: Path, partial: Path) -> None:
        write_text(folder / RESULT, json.dumps(find()))

    folder, _ = workspace.step(name, inputs, work, None)
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def save_artifacts(folder: Path, artifacts: Sequence[Artifact]) -> None:
    """Write what was measured into the folder of a step."""
    write_text(folder / RESULT, ARTIFACTS.dump_json(list(artifacts)).decode())


def load_artifacts(folder: Path) -> list[Artifact]:
    """Read what `save_artifacts` has written."""
    return ARTIFACTS.validate_json((folder / RESULT).read_bytes())


def pairs_per_second(teacher: str, data: RankingData, split: str, max_length: int, options: RankerOptions) -> float:
    """Speed of the teacher in fp32 PyTorch on a few pairs of the data, tokenization counted."""
    ranker = TorchRanker(
        load_model(teacher, dtype="float32"), load_tokenizer(teacher, max_length), lambda logits: logits, options
    )
    pairs = []
    for query, documents in data.split(split).candidates.items():
        pairs += data.pairs(query, documents)
        if len(pairs) >= PROBE_PAIRS:
            break
    ranker.score(pairs[:8])
    start = time.perf_counter()
    ranker.score(pairs)
    return len(pairs) / (time.perf_counter() - start)
