"""Errors that a user can cause.

Each error states the value received, what was expected and the remedy, and has the exit code of the command line.
"""

from __future__ import annotations

from typing import Any


class HfCompressError(Exception):
    """Base class of all errors of hfcompress.

    Args:
        problem: What is wrong, as a short sentence without a full stop.
        value: The value received, shown with `repr`; None if the sentence contains it.
        expected: What would be accepted.
        remedy: What the user can do.
    """

    exit_code = 2

    def __init__(self, problem: str, *, value: Any = None, expected: str, remedy: str):
        self.problem = problem
        self.value = value
        self.expected = expected
        self.remedy = remedy
        got = "" if value is None else f" Got: {_shorten(value)}."
        super().__init__(f"{problem}.{got} Expected: {expected}. Remedy: {remedy}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle errors of worker processes; the default way calls `__init__` with the message alone."""
        value = None if self.value is None else str(self.value)  # any object, which may have no pickle
        return _restored, (type(self), str(self), {**vars(self), "value": value})


def _restored(kind: type[HfCompressError], message: str, fields: dict[str, Any]) -> HfCompressError:
    error = kind.__new__(kind, message)
    vars(error).update(fields)
    return error


class RecipeError(HfCompressError):
    """The recipe cannot be run: unknown key, wrong type, contradictory settings."""


class DataError(HfCompressError):
    """Queries, documents, relevance judgements or candidates cannot be used."""


class ModelError(HfCompressError):
    """The model cannot be compressed or used for ranking."""


class DeviceError(HfCompressError):
    """There is no such device on this machine, or it cannot do what is asked of it."""


class PlanError(HfCompressError):
    """The pruning plan or budget keeps nothing, or does not fit the model."""


class CollapseError(HfCompressError):
    """The scores of a compressed model collapse to ties, or rank documents differently from the model before."""


class OutputError(HfCompressError):
    """The output folder is in use for something else, or incomplete."""


class AddressError(HfCompressError):
    """The server cannot listen on this address."""


class ClusterError(HfCompressError):
    """A Ray cluster cannot be reached, has no room for a worker, or its nodes differ from this machine."""


class HubError(HfCompressError):
    """The Hub refuses a request, or would refuse it. Other arguments are those of `HfCompressError`.

    Args:
        status: HTTP status of the response; None if there was none.
    """

    def __init__(self, problem: str, *, value: Any = None, expected: str, remedy: str, status: int | None = None):
        self.status = status
        super().__init__(problem, value=value, expected=expected, remedy=remedy)


class HubUnavailableError(HubError):
    """The Hub cannot be reached or is busy; the same command may succeed later. Other arguments: see `HubError`.

    Args:
        retry_after: Seconds to wait before the next request, if the Hub names them.
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
    """An optional package is needed and not installed.

    Args:
        package: The missing package.
        extra: The extra of hfcompress that installs it.
        purpose: What needs it, as the subject of a sentence.
    """

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            expected=f"an environment with hfcompress[{extra}]",
            remedy=f"run: pip install 'hfcompress[{extra}]'",
        )


def _shorten(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
