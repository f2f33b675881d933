"""The command line shows errors of libraries, and hides their notices."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from hfcompress.utils.quiet import silence_libraries

LOGGERS = ("", "hfcompress", "datasets", "huggingface_hub", "transformers", "torch", "torch.onnx")
LOGGERS += ("torch.export", "torch.fx", "onnxscript", "onnx_ir", "nncf", "bm25s")
OURS = compile("import warnings; warnings.warn('of ours')", "ranker.py", "exec")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:  # a command line in another test may have set it
        logging.getLogger(name).setLevel(logging.NOTSET)
    with warnings.catch_warnings():
        yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def shown(caplog: pytest.LogCaptureFixture) -> set[str]:
    with warnings.catch_warnings(record=True) as caught:
        for name in (
            "hfcompress.rankers.base",
            "transformers.trainer",
            "datasets",
            "torch.onnx",
            "bm25s",
            "nobody.knows",
        ):
            caplog.handler.setLevel(logging.NOTSET)
            logging.getLogger(name).warning("a warning of %s", name)
            logging.getLogger(name).error("an error of %s", name)
        warnings.warn("of a library", UserWarning, stacklevel=1)
        exec(OURS, {"__name__": "hfcompress.rankers.base"})
    return {record.getMessage() for record in caplog.records} | {str(each.message) for each in caught}


def test_only_errors_and_our_own_warnings_are_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HFCOMPRESS_DEBUG", raising=False)
    silence_libraries()
    messages = shown(caplog)
    assert "a warning of hfcompress.rankers.base" in messages and "of ours" in messages
    assert not messages & {f"a warning of {name}" for name in ("torch.onnx", "bm25s", "nobody.knows", "datasets")}
    assert "of a library" not in messages
    assert {"an error of torch.onnx", "an error of nobody.knows"} <= messages


def test_debugging_lets_everything_through(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFCOMPRESS_DEBUG", "1")
    warnings.simplefilter("always")
    silence_libraries()
    assert {"a warning of torch.onnx", "a warning of nobody.knows", "of a library", "of ours"} <= shown(caplog)
