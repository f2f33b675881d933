"""Every error that a user can cause.

Each error says what was found, what was expected and what to do about it, and carries the exit code with which the
command line ends.
"""

from __future__ import annotations

from typing import Any


class HfCompressError(Exception):
    """Base of all errors that hfcompress raises about its input.

    Args:
        problem: What is wrong, as a short sentence without a full stop.
        value: The value received; shown with `repr`. Leave it out where the sentence already holds it.
        expected: What would have been accepted.
        remedy: What the user can do next.
    """

    exit_code = 2

    def __init__(self, problem: str, *, value: Any = None, expected: str, remedy: str):
        self.problem = problem
        self.value = value
        self.expected = expected
        self.remedy = remedy
        got = "" if value is None else f" Got: {_shorten(value)}."
        super().__init__(f"{problem}.{got} Expected: {expected}. Remedy: {remedy}.")


class RecipeError(HfCompressError):
    """A recipe that cannot be run: unknown key, wrong type, contradictory settings."""


class DataError(HfCompressError):
    """Queries, documents, judgements or candidates that cannot be used."""


class ModelError(HfCompressError):
    """A model that hfcompress cannot compress or rank with."""


class PlanError(HfCompressError):
    """A pruning plan or budget that leaves nothing, or does not fit the model."""


class CollapseError(HfCompressError):
    """A model whose scores no longer tell documents apart, or order them otherwise than the model it was made of."""


class OutputError(HfCompressError):
    """An output folder that is in use for something else, or incomplete."""


class HubError(HfCompressError):
    """Something that the Hub refuses, or that was not asked of it because it would.

    Args:
        problem: As for `HfCompressError`.
        value: As for `HfCompressError`.
        expected: As for `HfCompressError`.
        remedy: As for `HfCompressError`.
        status: HTTP status of the answer; None where there was no answer.
    """

    def __init__(self, problem: str, *, value: Any = None, expected: str, remedy: str, status: int | None = None):
        self.status = status
        super().__init__(problem, value=value, expected=expected, remedy=remedy)


class HubUnavailableError(HubError):
    """A Hub that cannot be reached or is busy: nothing to mend, the same command may succeed later.

    Args:
        problem: As for `HfCompressError`.
        value: As for `HfCompressError`.
        expected: As for `HfCompressError`.
        remedy: As for `HfCompressError`.
        status: As for `HubError`.
        retry_after: Seconds that the Hub asks to be left alone.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        value: Any = None,
        expected: str,
        remedy: str,
        status: int | None = None,
        retry_after: float | None = None,
    ):
        self.retry_after = retry_after
        super().__init__(problem, value=value, expected=expected, remedy=remedy, status=status)


class MissingExtraError(HfCompressError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            expected=f"an environment with hfcompress[{extra}]",
            remedy=f"run: pip install 'hfcompress[{extra}]'",
        )


def _shorten(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
