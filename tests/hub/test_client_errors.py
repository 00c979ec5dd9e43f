"""Failures of a download that a Hub on loopback cannot cause."""

import errno
from pathlib import Path

import httpx2
import pytest

from skulk_core.errors import FileError, HubError, HubUnreachable
from skulk_core.hub.client_errors import CLIENT_ERRORS, translate
from skulk_core.hub.refs import RepoRef

REF = RepoRef("owner/tiny")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_disk_is_named_by_its_path(number: int) -> None:
    error = translate(OSError(number, "as the system says", "/cache/blobs/x"), REF)
    assert isinstance(error, FileError)
    assert error.path == Path("/cache/blobs/x")
    assert error.reason == "as the system says"


@pytest.mark.parametrize(
    "raised",
    [OSError("Consistency check failed: file should be of size 9"), RuntimeError("xet: reconstruction failed")],
)
def test_a_file_that_arrived_in_part_can_be_fetched_again(raised: Exception) -> None:
    assert isinstance(raised, CLIENT_ERRORS)
    error = translate(raised, REF)
    assert type(error) is HubError
    assert "running again fetches it anew" in str(error)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (httpx2.ConnectTimeout("10 s"), "did not answer in time"),
        (httpx2.ReadError("reset"), "the connection to the Hub broke"),
        (httpx2.ProxyError("407"), "no connection to the Hub"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "no connection to the Hub"),
    ],
)
def test_the_network(raised: Exception, reason: str) -> None:
    assert isinstance(raised, CLIENT_ERRORS)
    error = translate(raised, REF)
    assert isinstance(error, HubUnreachable)
    assert reason in error.reason
