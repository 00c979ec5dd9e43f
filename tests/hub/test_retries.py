"""When and how long is waited before something is asked of the Hub again."""

from threading import Event
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from skulk_core.errors import HubError, HubUnreachable, RepoNotFound
from skulk_core.hub.progress import Cancelled
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.retries import MAX_FAILURES, Attempts, retrying

REF = RepoRef("owner/model")
BROKEN = httpx2.ReadError("reset")


class Waits(Event):
    """An event that is waited for in no time, and tells for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Note the time."""
        self.seconds.append(timeout or 0.0)
        return self.is_set()


def answered(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError, **headers: str) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://hub/file")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return kind("x", response=httpx2.Response(status, headers=named, request=request))


def test_broken_connections_are_tried_again_at_once_then_ever_later() -> None:
    waits = Waits()
    attempts = Attempts(REF, waits)
    for _ in range(MAX_FAILURES - 1):
        attempts.failed(BROKEN)
    with pytest.raises(HubUnreachable, match="connection to the Hub broke"):
        attempts.failed(BROKEN)
    assert waits.seconds == [0, 1, 2, 4, 8]


def test_as_long_as_something_arrives_it_goes_on() -> None:
    """On a bad line a large file comes in a thousand pieces."""
    attempts = Attempts(REF, Waits())
    for _ in range(5 * MAX_FAILURES):
        attempts.failed(BROKEN)
        attempts.succeeded()


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (answered(429, retry_after="7"), 7),
        (answered(503, retry_after="0"), 0),
        (answered(429), 1),
        (answered(500), 1),
        (answered(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), 1),
    ],
)
def test_a_busy_server_is_given_the_time_it_asks_for(error: HfHubHTTPError, seconds: float) -> None:
    waits = Waits()
    Attempts(REF, waits).failed(error)
    assert waits.seconds == [seconds]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (answered(404, RepositoryNotFoundError), RepoNotFound),
        (answered(401), RepoNotFound),
        (answered(403), RepoNotFound),
        (answered(416), HubError),
        (answered(429, retry_after="100000"), HubError),
    ],
)
def test_what_waiting_cannot_mend_is_told_at_once(error: HfHubHTTPError, ours: type[HubError]) -> None:
    waits = Waits()
    with pytest.raises(ours):
        Attempts(REF, waits).failed(error)
    assert waits.seconds == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (answered(429, retry_after="60"), ["owner/model: the Hub asks for fewer requests (429); trying again in 60 s"]),
        (answered(503), ["owner/model: the Hub answered with status 503; trying again in 1 s"]),
        (BROKEN, []),
    ],
)
def test_every_wait_is_told(error: Exception, told: list[str]) -> None:
    """Without the client's words, which hold addresses; a first broken connection is not waited for."""
    said: list[str] = []
    Attempts(REF, Waits(), said.append).failed(error)
    assert said == told


def test_ctrl_c_ends_a_wait() -> None:
    waits = Waits()
    waits.set()
    with pytest.raises(Cancelled):
        Attempts(REF, waits).failed(BROKEN)


def test_work_is_tried_until_it_succeeds() -> None:
    errors: list[Any] = [BROKEN, answered(503, retry_after="3"), None]
    waits = Waits()

    def work() -> str:
        if (error := errors.pop(0)) is not None:
            raise error
        return "done"

    assert retrying(work, REF, waits) == "done"
    assert waits.seconds == [0, 3]
