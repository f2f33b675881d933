"""Limits of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """What the server accepts, and how it batches.

    Attributes:
        batch_tokens: Tokens that are passed to the runtime at a time, with the pairs of all waiting requests.
        max_wait: Seconds that a batch with room waits for requests that are being tokenized.
        queue_tokens: Tokens that wait at most; further requests are refused with status 429. A single request is
            accepted if nothing waits.
        max_texts: Documents of a request.
        max_bytes: Size of the body of a request.
        max_tokens: Tokens of all pairs of a request, after truncation.
        max_body_bytes: Size of all bodies that are held at a time; further requests are refused with status 429.
        header_seconds: Time for a client to send the headers, from the start of the connection or from the response
            before; then the connection is closed.
        body_seconds: Time for a client to send the body.
        poll_seconds: Time between two looks at the folders of the models.
        api_key: Key that clients must send; None for none.
    """

    batch_tokens: int = 4096
    max_wait: float = 0.002
    queue_tokens: int = 131072
    max_texts: int = 1000
    max_bytes: int = 8 << 20
    max_tokens: int = 1 << 19
    max_body_bytes: int = 64 << 20
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    poll_seconds: float = 2.0
    api_key: str | None = None
