"""Display of what hfcompress logs: progress messages are INFO records of the `hfcompress` logger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from hfcompress.utils.progress import between_bars
from hfcompress.utils.text import duration

ROOT = logging.getLogger("hfcompress")


class LineHandler(logging.Handler):
    """Passes the message of each INFO record to a function, above progress bars.

    Args:
        write: Called with each message.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write
        self.addFilter(lambda record: record.levelno < logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message."""
        with between_bars():
            self.write(record.getMessage())


@contextmanager
def lines_to(write: Callable[[str], None]) -> Iterator[None]:
    """Pass INFO messages of hfcompress to `write` during the block; warnings go to stderr as usual.

    Handlers of the root logger, which some libraries install, do not repeat them.
    """
    level, propagate = ROOT.level, ROOT.propagate
    handlers = [LineHandler(write), logging.StreamHandler()]
    handlers[1].setLevel(logging.WARNING)
    for handler in handlers:
        ROOT.addHandler(handler)
    ROOT.setLevel(logging.INFO)
    ROOT.propagate = False
    try:
        yield
    finally:
        ROOT.setLevel(level)
        ROOT.propagate = propagate
        for handler in handlers:
            ROOT.removeHandler(handler)


@contextmanager
def timed(name: str, logger: logging.Logger) -> Iterator[None]:
    """Log the duration of the block, unless it raises."""
    start = time.perf_counter()
    yield
    logger.info("%s: done in %s", name, duration(time.perf_counter() - start))


@cache
def warn_once(logger: logging.Logger, message: str) -> None:
    """Log a warning once, since a run opens the same model many times."""
    logger.warning(message)
