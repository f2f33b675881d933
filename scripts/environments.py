"""Environments with packages of other projects, created on demand with pip or npm and kept between calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hfcompress" / "clients"
Install = Sequence[Sequence[str]]
"""Packages in the order of installation."""

# torch is installed first and alone, so that no package installs another build.
TORCH = ["torch==2.13.0"]
# No downloads from the Hub, and no access to this project.
APART = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}


def python_environment(home: Path, install: Install) -> str:
    """Path of Python in a virtual environment with these packages; it is created again if they change."""
    python = str(home / ("Scripts" if os.name == "nt" else "bin") / "python")

    def make() -> None:
        venv.create(home, with_pip=True)
        for packages in install:
            run([python, "-m", "pip", "install", "--quiet", *packages])

    _kept(home, install, make)
    return python


def npm_environment(home: Path, install: Install) -> None:
    """Create a folder with npm packages, without running their install scripts."""

    def make() -> None:
        for packages in install:
            run(["npm", "install", "--ignore-scripts", "--no-fund", "--no-audit", *packages], cwd=home)

    _kept(home, install, make)


def run(command: list[str], **settings: Any) -> str:
    """Run a command and return its standard output.

    Raises:
        RuntimeError: The exit code is not 0; the message contains the end of stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, **settings)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _kept(home: Path, install: Install, make: Callable[[], None]) -> None:
    done, wanted = home / ".installed", json.dumps(install)
    if done.is_file() and done.read_text() == wanted:
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    make()
    done.write_text(wanted)
