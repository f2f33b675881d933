"""What rankers do in a process that was forked from the one that loaded them.

A fork copies memory but no threads. A runtime whose thread pool was started before waits forever for threads that do
not exist in the child, and a lock that was held stays locked.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Protocol
from weakref import WeakSet

import torch

from hfcompress.errors import ModelError


class _AfterFork(Protocol):
    def after_fork(self) -> None: ...


_rankers: WeakSet[_AfterFork] = WeakSet()
_uses: set[tuple[str, int]] = set()  # runtimes, each with a process that had a ranker: this one, or one it comes from


def record_use(runtime: str) -> None:
    """Record that this process has a ranker in a runtime whose threads do not survive a fork."""
    _uses.add((runtime, os.getpid()))


def used_before_fork(runtime: str) -> bool:
    """Whether this process was forked from one that had a ranker in this runtime."""
    return any(name == runtime and process != os.getpid() for name, process in _uses)


def limit_threads_after_fork() -> None:
    """After a fork let PyTorch compute with one thread, as a DataLoader does in its workers, also while it loads."""
    if used_before_fork("torch"):
        torch.set_num_threads(1)


def adapt_after_fork(ranker: _AfterFork) -> None:
    """Call `ranker.after_fork()` in each process that is forked from this one, before any other code runs there."""
    _register()
    _rankers.add(ranker)


def unusable_after_fork(why: str) -> ModelError:
    """The error for a ranker that cannot work in a forked process.

    Args:
        why: The cause, as a sentence without a full stop.
    """
    return ModelError(
        f"This ranker cannot be used in a forked process: {why}",
        expected="a ranker that is loaded in the process that uses it",
        remedy="load it in each worker and not before the fork (gunicorn: without --preload), or start processes with "
        "multiprocessing.get_context('spawn')",
    )


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for ranker in list(_rankers):
        ranker.after_fork()
