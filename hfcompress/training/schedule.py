"""Pruning schedule of a training."""

from __future__ import annotations


def cubic_share(step: int, steps: int, begin: float, end: float) -> float:
    """Pruned share at a step, relative to the final amount: 1 - (1 - t)^3 (Zhu and Gupta, 2017).

    Args:
        step: The optimizer step, the first of which is 0.
        steps: Number of steps of the training.
        begin: Share of all steps at which t is 0.
        end: Share of all steps from which t is 1; if equal to `begin`, all is pruned at once.
    """
    done = step / steps
    if done >= end:
        return 1.0
    return 1 - (1 - max(done - begin, 0.0) / (end - begin)) ** 3
