"""Trying again what the network or a busy server made fail, with growing waits that Ctrl-C ends."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from skulk_core.errors import HubError
from skulk_core.hub.client_errors import CLIENT_ERRORS, translate, why_unreachable
from skulk_core.hub.progress import Cancelled
from skulk_core.hub.refs import RepoRef

_R = TypeVar("_R")

OnWait = Callable[[str], None]  # told of a wait, in a sentence for a person

MAX_FAILURES = 6  # in a row, without a byte between them
_FIRST_WAIT_S = 1.0
_MAX_WAIT_S = 30.0
_LONGEST_ASKED_S = 900.0

_BUSY = (408, 429, 500, 502, 503, 504)
_TRANSIENT = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)


def _silent(_: str) -> None:
    """Tell nobody."""


class Attempts:
    """Failures in a row of one piece of work. Raises what cannot be tried again as one of our errors.

    `on_wait` is told of every wait before it begins.
    """

    def __init__(self, ref: RepoRef, cancel: Event, on_wait: OnWait = _silent) -> None:
        self._ref, self._cancel, self._on_wait = ref, cancel, on_wait
        self._num_failures = 0

    def succeeded(self) -> None:
        """Something arrived: the next failure is a first one."""
        self._num_failures = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt: not at all after a first broken connection, else longer each time.

        Raises the translated error if trying again cannot help or has not, `Cancelled` if the work was given up.
        """
        self._num_failures += 1
        if not _is_transient(error) or self._num_failures >= MAX_FAILURES:
            raise translate(error, self._ref) from error
        wait_s = min(_FIRST_WAIT_S * 2 ** (self._num_failures - 2), _MAX_WAIT_S) if self._num_failures > 1 else 0.0
        if isinstance(error, HfHubHTTPError):
            asked_s = _retry_after_s(error.response)
            if asked_s is not None and asked_s > _LONGEST_ASKED_S:
                raise HubError(self._ref.repo, f"the Hub asks to come back in {asked_s / 60:.0f} minutes") from error
            wait_s = max(wait_s, _FIRST_WAIT_S) if asked_s is None else asked_s
        if wait_s and not self._cancel.is_set():
            self._on_wait(f"{self._ref.repo}: {_why(error)}; trying again in {wait_s:.0f} s")
        if self._cancel.wait(wait_s):
            raise Cancelled


def retrying(work: Callable[[], _R], ref: RepoRef, cancel: Event, on_wait: OnWait = _silent) -> _R:
    """What `work` returns, tried again while that can help. Raises our errors."""
    attempts = Attempts(ref, cancel, on_wait)
    while True:
        try:
            return work()
        except CLIENT_ERRORS as error:
            attempts.failed(error)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _BUSY
    return isinstance(error, _TRANSIENT)


def _why(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError) and error.response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
        return "the Hub asks for fewer requests (429)"
    return why_unreachable(error)


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Seconds that the server asks to wait; a date is taken for no answer."""
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isdigit() else None
