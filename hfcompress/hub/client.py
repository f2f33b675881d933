"""The client of huggingface_hub with retries where they are safe, and with errors that contain no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from time import sleep
from typing import TypeVar

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from hfcompress.errors import HfCompressError, HubError, HubUnavailableError
from hfcompress.hub.leaks import redact

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry, unless the Hub sends Retry-After
LONGEST_WAIT = 120.0  # seconds; no retry if the Hub asks for a longer wait
BUSY = (408, 429, 500, 502, 503, 504)
CONFLICT = (409, 412)

_AGAIN = "run the same command again later: it uploads nothing twice and makes one commit"
_LOGIN = "set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens), or run: hf auth login"


class Hub:
    """A client of the Hub.

    Attributes:
        api: The client of huggingface_hub.
        token: Token from the environment or from huggingface_hub's store; None if there is none.
    """

    def __init__(self) -> None:
        self.token: str | None = None
        self.token = self.once("read the token", get_token)
        self.api = HfApi(token=self.token or False, library_name="hfcompress", library_version=version("hfcompress"))

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Call the client, with retries while the Hub is busy. For idempotent calls.

        Args:
            what: Purpose of the call, for error messages.
            call: The call.

        Raises:
            HubError: The Hub rejected the request.
            HubUnavailableError: The Hub cannot be reached or stays busy.
        """
        for wait in WAITS:
            try:
                return self.once(what, call)
            except HubUnavailableError as busy:
                pause(busy, wait)
        return self.once(what, call)

    def once(self, what: str, call: Callable[[], T]) -> T:
        """Call the client once. For calls that must not be repeated, or that the client retries itself.

        Raises:
            HubError: The Hub rejected the request.
            HubUnavailableError: The Hub cannot be reached or is busy.
        """
        try:
            return call()
        except HfCompressError:
            raise
        except Exception as error:
            fault = error
        # Raised here, without a context: a traceback of the client's error would show its messages and requests.
        raise _translated(what, fault, self.token or "")


def pause(busy: HubUnavailableError, wait: float) -> None:
    """Wait before a retry: as long as the Hub asks for, otherwise `wait` seconds.

    Raises:
        HubUnavailableError: `busy` itself, if the Hub asks for more than two minutes.
    """
    if busy.retry_after is not None and busy.retry_after > LONGEST_WAIT:
        raise busy
    sleep(wait if busy.retry_after is None else busy.retry_after)


def _translated(what: str, fault: Exception, token: str) -> HubError:
    """Convert an error of the client."""
    chain = list(_causes(fault))
    text = redact(str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__, token)
    for error in chain:
        if isinstance(error, OfflineModeIsEnabled):
            return HubError(
                f"Cannot {what} in offline mode",
                expected="a network",
                remedy="unset HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE",
            )
        if isinstance(error, HfHubHTTPError):
            reply = redact(error.server_message or str(error).strip(), token)
            return _answered(what, error.response.status_code, " ".join(reply.split()), error.response.headers)
        if isinstance(error, ConnectionError | TimeoutError) or _is_transport(error):
            return HubUnavailableError(
                f"Cannot {what}: the Hub cannot be reached, or the connection was cut",
                value=redact(str(error), token) or type(error).__name__,
                expected="a stable connection",
                remedy=f"check the network; {_AGAIN}",
            )
    return HubError(
        f"Cannot {what}",
        value=f"{type(fault).__name__}: {text}",
        expected="an answer that huggingface_hub understands",
        remedy="correct what it names, or report this",
    )


def _answered(what: str, status: int, reply: str, headers: Mapping[str, str]) -> HubError:
    got = f"HTTP {status}: {reply}" if reply else f"HTTP {status}"
    problem = f"Cannot {what}"
    if status in BUSY:
        return HubUnavailableError(
            f"{problem}: the Hub is busy",
            value=got,
            expected="an answer",
            remedy=_AGAIN,
            status=status,
            retry_after=_retry_after(headers),
        )
    if status == 401:
        expected, remedy = "a token that the Hub accepts", _LOGIN
    elif status == 403:
        expected = "a token with write access"
        remedy = f"ask for write access, propose the files with --create-pr, or {_LOGIN}"
    elif status == 404:
        expected = "an existing repository and revision that the token can access"
        remedy = "check --repo-id and --revision, and the owner of the token"
    elif status in CONFLICT:
        expected = "a repository that does not change during the push"
        remedy = "check the changes with a dry run, then run the same command again"
    else:
        expected, remedy = "a request that the Hub accepts", "correct what the Hub names"
    return HubError(problem, value=got, expected=expected, remedy=remedy, status=status)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: uploads in threads wrap the original error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_transport(error: BaseException) -> bool:
    """Whether it is a transport error of the HTTP library, whichever one the client uses."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    return float(value) if value.isdigit() else None
