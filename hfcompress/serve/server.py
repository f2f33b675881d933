"""Runs the application on uvicorn, until a signal stops it."""

from __future__ import annotations

import logging
import signal
import socket

import uvicorn

from hfcompress.errors import AddressError
from hfcompress.serve.app import create_app
from hfcompress.serve.connection import timed_protocol
from hfcompress.serve.models import Models

logger = logging.getLogger(__name__)

STOP_SECONDS = 30  # for requests in progress, after a signal


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, before models are loaded for it.

    Args:
        host: Name or address; with `:` it is one of IPv6.
        port: The port; 0 for any free one.

    Raises:
        AddressError: That is impossible, for example since another program listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise AddressError(
            "The server cannot listen on this address",
            value=f"{host}:{port}: {error}",
            expected="an address of this machine, and a port that no other program uses",
            remedy="choose another --port or --host",
        ) from error


def serve(models: Models, listening: socket.socket) -> None:
    """Serve models until SIGINT or SIGTERM; requests in progress are answered. SIGHUP loads the models again.

    Args:
        models: The models.
        listening: Socket from `listen`.
    """
    config = uvicorn.Config(
        create_app(models), http=timed_protocol(models.settings.header_seconds), ws="none", log_level="warning",
        access_log=False, timeout_graceful_shutdown=STOP_SECONDS, server_header=False,
    )  # fmt: skip
    if hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, lambda number, frame: models.ask_to_reload())
    host, port = listening.getsockname()[:2]
    names = ", ".join(_described(models))
    logger.info(f"serving {names} on http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again after all requests were answered
        logger.info("stopped")


def _described(models: Models) -> list[str]:
    return [f"{model.source.name} ({model.candidate.runtime}, {model.candidate.precision})" for model in models.all()]
