"""What huggingface_hub raises → the errors of this project.

Messages are written here, never taken over from the client or the server: theirs may quote addresses and headers.
"""

import json

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from skulk_core.errors import FileError, HubError, HubUnreachable, RepoNotFound, RevisionNotFound, SkulkError
from skulk_core.hub.refs import RepoRef

# Everything a download may raise: the client's own errors are OSErrors, hf_xet has RuntimeErrors of its own, and an
# answer that is not a Hub's (a login page of the network) fails as JSON.
CLIENT_ERRORS = (OSError, httpx2.TransportError, RuntimeError, json.JSONDecodeError)
CONNECTION_ERRORS = (httpx2.TransportError, json.JSONDecodeError)

_NOT_CACHED = "and it is not complete in the cache"


def translate(error: Exception, ref: RepoRef) -> SkulkError:
    """The error of ours that says what `error` means for a download of `ref`."""
    match error:
        case GatedRepoError():
            return RepoNotFound(ref.repo, "gated: this login has not been granted access to it")
        case DisabledRepoError():
            return HubError(ref.repo, "disabled by the Hub")
        case RevisionNotFoundError():
            return RevisionNotFound(ref.repo, ref.revision)
        case RepositoryNotFoundError():
            return RepoNotFound(
                ref.repo, "no such repository on the Hub, or it is private and this login may not read it"
            )
        case HfHubHTTPError():
            return _translate_status(error.response.status_code, ref)
        case LocalEntryNotFoundError():
            return HubUnreachable(ref.repo, f"{why_unreachable(error.__cause__)}, {_NOT_CACHED}")
        case httpx2.TransportError() | json.JSONDecodeError() | ConnectionError() | TimeoutError():
            return HubUnreachable(ref.repo, f"{why_unreachable(error)}, {_NOT_CACHED}")
        case OSError(errno=int()):
            return FileError(error.filename or constants.HF_HUB_CACHE, error.strerror or str(error))
        case _:
            return HubError(ref.repo, "a file did not arrive whole; running again fetches it anew")


def _translate_status(status: int, ref: RepoRef) -> SkulkError:
    if status == 401:
        return RepoNotFound(ref.repo, "the Hub refused the login (401): its token is wrong or has expired")
    if status == 403:
        return RepoNotFound(ref.repo, "this login may not read it (403)")
    return HubError(ref.repo, f"the Hub answered with status {status}")


def why_unreachable(error: BaseException | None) -> str:
    """What kept the Hub from answering, without the client's words: those hold addresses, and signatures in them."""
    match error:
        case OfflineModeIsEnabled():
            return "offline mode is on (HF_HUB_OFFLINE)"
        case HfHubHTTPError():
            return f"the Hub answered with status {error.response.status_code}"
        case FileMetadataError() | json.JSONDecodeError():
            return "what answered is not a Hub (HF_ENDPOINT, proxy or firewall)"
        case httpx2.TimeoutException() | TimeoutError():
            return "the Hub did not answer in time"
        case httpx2.RemoteProtocolError() | httpx2.ReadError():
            return "the connection to the Hub broke"
        case _:
            return "no connection to the Hub"
