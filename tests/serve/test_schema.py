"""A property-based tester of interfaces finds nothing in the OpenAPI schema: no 5xx, no undocumented status or body."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="the package `schemathesis` is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from serve_process import Server  # noqa: E402

EXAMPLES = 100  # of each operation


@pytest.mark.slow
def test_the_schema_is_kept(start: Callable[..., Server], run_folder: Path) -> None:
    server = start(str(run_folder))
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    assert {each.path for each in operations} >= {"/rerank", "/v1/rerank", "/v2/rerank", "/info", "/metrics"}
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate()

        check()
