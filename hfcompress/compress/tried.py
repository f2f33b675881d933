"""What was tried, what was found, and what is on the front of quality and speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from hfcompress.files import write_text

Stage = Literal["teacher", "int8", "one-shot", "short recovery", "full recovery"]


class Tried(BaseModel):
    """One thing that was tried.

    Attributes:
        name: What it is, e.g. `2x, openvino int8-static`.
        stage: How far it was taken.
        ratio: Speed-up by pruning that was asked for; 1 for the unpruned model.
        ndcg: Mean nDCG@10 on dev, by which is chosen; for what was run in the end, on test.
        loss: How much lower that is than the teacher's.
        speedup: Measured speed-up over the teacher in fp32 PyTorch; None where it was not exported.
        p50_ms: Median time of one query with its candidates; None where it was not exported.
        megabytes: Size of a deployment, in 10^6 bytes; None where it was not exported.
        seconds: What trying it took.
        decision: What followed from it, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    stage: Stage
    ratio: float
    ndcg: float
    loss: float
    speedup: float | None
    p50_ms: float | None
    megabytes: float | None
    seconds: float
    decision: str = ""


_LIST = TypeAdapter(list[Tried])


def front(tried: Sequence[Tried]) -> list[Tried]:
    """What nothing else beats in both loss and latency, the fastest first; what has no latency is left out.

    It goes by the loss against the teacher on the same queries: nDCG@10 on dev and on test are not alike.
    """
    timed = sorted((each for each in tried if each.p50_ms is not None), key=lambda each: (each.p50_ms, each.loss))
    best: list[Tried] = []
    for each in timed:
        if not best or each.loss < best[-1].loss:
            best.append(each)
    return best


def ranked(tried: Sequence[Tried], max_loss: float) -> list[Tried]:
    """What was tried, the most useful first: within the loss by speed, then the others by loss."""
    return sorted(
        tried, key=lambda each: (each.loss > max_loss, -(each.speedup or 0.0) if each.loss <= max_loss else each.loss)
    )


def save(tried: Sequence[Tried], path: Path) -> None:
    """Write what was tried as JSON."""
    write_text(path, _LIST.dump_json(list(tried), indent=2).decode() + "\n")


def load(path: Path) -> list[Tried]:
    """Read what `save` has written."""
    return _LIST.validate_json(path.read_text(encoding="utf-8"))
