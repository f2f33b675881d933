"""A property-based tester of interfaces finds nothing in the OpenAPI schema: no 5xx, no undocumented status or body.

It also checks that invalid values are refused and valid ones are not, that the key is required, and that methods
beyond the schema get 405.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("schemathesis", reason="the package `schemathesis` is not installed")

from serve_process import Server

EXAMPLES = 20  # of each operation, besides those of the phases `examples` and `coverage`
# Deterministic: the same schema gets the same requests, without a seed.
OPTIONS = (
    "--phases", "examples,coverage,fuzzing", "--mode", "all", "--checks", "all", "--continue-on-failure", "--no-color",
    "--generation-deterministic", "--max-examples", str(EXAMPLES),
)  # fmt: skip


@pytest.mark.slow
def test_the_schema_is_kept(start: Callable[..., Server], run_folder: Path, tmp_path: Path) -> None:
    server = start(str(run_folder), "--api-key-env", "RERANK_KEY", RERANK_KEY="secret")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", *OPTIONS]
    command += ["--header", "Authorization: Bearer secret"]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "6 selected / 6 total" in done.stdout
