"""Servers in processes of their own, for scripts that ask them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 600.0


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        process: Its process.
        url: Its address.
        port: Its port on the loopback.
        log: File with all that it printed.
    """

    process: subprocess.Popen[bytes]
    url: str
    port: int
    log: Path


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[Served]:
    """Run a server until the end of the block.

    Args:
        command: Its command; it prints `on http://HOST:PORT` when it accepts requests.
        **environment: Variables of its environment besides those of this process.

    Raises:
        RuntimeError: It ended, or did not start in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.txt")
        # A file rather than a pipe, which a server that prints much would fill.
        with log.open("wb") as stream:
            variables = {**os.environ, **environment}
            with subprocess.Popen(command, env=variables, stdout=stream, stderr=subprocess.STDOUT) as process:
                try:
                    url = _address(process, log)
                    yield Served(process, url, int(url.rpartition(":")[2]), log)
                finally:
                    process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        ended = process.poll() is not None
        printed = log.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"on (http://\S+)\s", printed):
            return found[1]
        if ended:
            raise RuntimeError(f"the server ended: {printed[-3000:]}")
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start within {START_SECONDS:g} s: {printed[-3000:]}")


def serve_command(name: str, *options: str, teacher: bool = False) -> list[str]:
    """Command of `hfcompress serve` for a folder, or `NAME=FOLDER`, on a free port.

    Args:
        name: The folder.
        *options: More options of the command.
        teacher: Also serve the teacher in the folder.
    """
    also = [] if teacher else ["--no-teacher"]
    return [sys.executable, "-m", "hfcompress", "serve", name, "--port", "0", *also, *options]
