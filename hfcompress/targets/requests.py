"""Requests to a search engine as text that its console takes: method and path on a line, then the JSON body."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request.

    Attributes:
        method: HTTP method.
        path: Path with a leading slash.
        body: JSON body; None for none.
        comment: What it does, on the line above.
    """

    method: str
    path: str
    body: dict[str, Any] | None
    comment: str


def console_text(requests: Sequence[Request]) -> str:
    """The requests in the syntax of the consoles of OpenSearch Dashboards and Kibana."""
    parts = []
    for method, path, body, comment in requests:
        content = "" if body is None else json.dumps(body, indent=2, ensure_ascii=False) + "\n"
        parts.append(f"# {comment}\n{method} {path}\n{content}")
    return "\n".join(parts)
