"""`hfcompress serve`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated, Any, cast

import typer

from hfcompress.cli import long_documents as long
from hfcompress.cli import options
from hfcompress.cli.compare import check_runtime
from hfcompress.cli.terminal import start, step_lines
from hfcompress.errors import DataError, MissingExtraError

PACKAGES = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")


@long.with_long_documents
def serve(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Folders of runs, or any cross-encoders: DIR or NAME=DIR. Repeatable."),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    runtime: Annotated[
        str, typer.Option(help="auto (the fastest of each folder), torch, onnxruntime or openvino.")
    ] = "auto",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with a key that clients must send as a bearer token.")
    ] = None,
    *,
    reading: long.LongDocuments,
    teacher: Annotated[
        bool, typer.Option(help="Also serve the teacher that a run keeps in its folder, for the first page.")
    ] = True,
    cache_mb: Annotated[
        int, typer.Option(min=0, help="Memory for tokenized documents of each model, in 10^6 bytes; 0 for none.")
    ] = 64,
    max_texts: Annotated[int, typer.Option(min=1, help="Documents of a request.")] = 1000,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens that the runtime gets at a time.")] = 4096,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="Time that a batch with room waits for requests being tokenized.")
    ] = 2,
    queue_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that wait at most; then requests are refused with status 429.")
    ] = 131072,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Serve models over HTTP, as text-embeddings-inference, Cohere, Jina and Infinity do. Its first page compares them.

    SIGTERM and Ctrl-C stop it after the requests in progress, with exit code 0. It loads a model again on SIGHUP, or
    when the folder, or the folder that a link leads to, has changed.

    Example: hfcompress serve out/quickstart --port 8080
    """
    check_runtime(None if runtime == "auto" else runtime)
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise MissingExtraError(missing[0].replace("_", "-"), "serve", "hfcompress serve")
    from hfcompress.serve.models import Models, ModelSource, sources_of
    from hfcompress.serve.server import listen
    from hfcompress.serve.server import serve as run_server
    from hfcompress.serve.settings import ServeSettings

    console = start()
    settings = ServeSettings(
        batch_tokens=batch_tokens,
        max_wait=max_wait_ms / 1000,
        queue_tokens=queue_tokens,
        max_texts=max_texts,
        api_key=_key(api_key_env),
    )
    chosen = None if runtime == "auto" else cast(Any, runtime)
    common = ModelSource("", "", chosen, device, threads, cache_mb * 10**6, reading)
    sources = sources_of(folders, common, teacher)
    with step_lines(console, quiet), listen(host, port) as listening:
        run_server(Models(sources, settings), listening)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key.strip():
        raise DataError(
            "The environment variable of the key is not set",
            value=variable,
            expected="a variable with the key that clients must send",
            remedy=f"set it: export {variable}=..., or leave out --api-key-env",
        )
    return key.strip()
