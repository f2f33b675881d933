"""Lines about steps: who shows them, and how long a step took."""

from __future__ import annotations

import logging

import pytest

from hfcompress.utils.log import LineHandler, lines_to, timed

LOGGER = logging.getLogger("hfcompress.test")


def test_only_a_step_that_ends_well_is_logged_as_done() -> None:
    lines: list[str] = []
    with lines_to(lines.append):
        with timed("search", LOGGER):
            assert not lines
        with pytest.raises(ValueError, match="no"), timed("timing", LOGGER):
            raise ValueError("no")
    assert lines == ["search: done in 0.0 s"]


def test_lines_are_shown_in_the_block_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    LOGGER.info("before")
    with lines_to(lines.append):
        LOGGER.info("a %s", "step")
        LOGGER.warning("careful")
        LOGGER.debug("detail")
    LOGGER.info("after")
    assert lines == ["a step"]
    assert capsys.readouterr().err == "careful\n"
    assert not logging.getLogger("hfcompress").handlers


def test_a_root_handler_does_not_repeat_the_lines() -> None:
    """Some libraries install one when they are imported."""
    repeated: list[str] = []
    root = LineHandler(repeated.append)
    logging.getLogger().addHandler(root)
    try:
        with lines_to(lambda line: None):
            LOGGER.info("a step")
    finally:
        logging.getLogger().removeHandler(root)
    assert not repeated
