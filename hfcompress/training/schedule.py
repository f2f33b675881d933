"""The schedule along which things go while a model trains."""

from __future__ import annotations


def cubic_share(step: int, steps: int, begin: float, end: float) -> float:
    """Share of what is to go that is gone in a step: 1 - (1 - t)^3 (Zhu and Gupta, 2017).

    Args:
        step: The optimizer step, the first of which is 0.
        steps: Steps of the training.
        begin: Share of all steps at which t is 0.
        end: Share of all steps from which t is 1; with `end` equal to `begin` all of it goes at once.
    """
    done = step / steps
    if done >= end:
        return 1.0
    return 1 - (1 - max(done - begin, 0.0) / (end - begin)) ** 3
