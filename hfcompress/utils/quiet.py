"""Silence notices of other libraries; `HFCOMPRESS_DEBUG=1` shows them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

DEBUG_VARIABLE = "HFCOMPRESS_DEBUG"
_NOISY_LOGGERS = (
    "transformers", "torch", "torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "nncf", "bm25s", "root",
)  # fmt: skip


def debugging() -> bool:
    """Whether `HFCOMPRESS_DEBUG` asks for the notices of other libraries."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log messages below ERROR, and stdout during the block."""
    if debugging():
        yield
        return
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def silence_libraries() -> None:
    """Disable notices and progress bars of other libraries, for the command line.

    Errors are still shown, and so are warnings of hfcompress.
    """
    if debugging():
        return
    import bm25s  # noqa: F401 - like torch, sets the levels of its loggers when it is imported
    import datasets
    import huggingface_hub
    import torch  # noqa: F401
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    for name in _NOISY_LOGGERS:  # including root, from which loggers without a level inherit
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("hfcompress").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", module=r"hfcompress(\.|$)")
