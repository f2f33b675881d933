"""What the command line lets through of what libraries say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from hfcompress.quiet import _NOISY_LOGGERS, silence_libraries

LOGGERS = ("", "hfcompress", "datasets", "huggingface_hub", *_NOISY_LOGGERS)
OURS = compile("import warnings; warnings.warn('of ours')", "ranker.py", "exec")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:  # what a command line of another test has set
        logging.getLogger(name).setLevel(logging.NOTSET)
    with warnings.catch_warnings():
        yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def heard(caplog: pytest.LogCaptureFixture) -> set[str]:
    with warnings.catch_warnings(record=True) as caught:
        for name in ("hfcompress.rankers.base", "transformers.trainer", "datasets", "torch.onnx", "nobody.knows"):
            caplog.handler.setLevel(logging.NOTSET)
            logging.getLogger(name).warning("a warning of %s", name)
            logging.getLogger(name).error("an error of %s", name)
        warnings.warn("of a library", UserWarning, stacklevel=1)
        exec(OURS, {"__name__": "hfcompress.rankers.base"})
    return {record.getMessage() for record in caplog.records} | {str(each.message) for each in caught}


def test_only_errors_and_our_own_warnings_are_heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HFCOMPRESS_DEBUG", raising=False)
    silence_libraries()
    said = heard(caplog)
    assert "a warning of hfcompress.rankers.base" in said and "of ours" in said
    assert not {"a warning of torch.onnx", "a warning of nobody.knows", "a warning of datasets", "of a library"} & said
    assert {"an error of torch.onnx", "an error of nobody.knows"} <= said


def test_debugging_lets_everything_through(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFCOMPRESS_DEBUG", "1")
    warnings.simplefilter("always")
    silence_libraries()
    assert {"a warning of torch.onnx", "a warning of nobody.knows", "of a library", "of ours"} <= heard(caplog)
