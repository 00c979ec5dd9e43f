"""What huggingface_hub raises while publishing → the errors of this project, naming repository and permission."""

import json
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from skulk_core.errors import (
    FileError,
    HubBusy,
    HubError,
    HubUnreachable,
    LoginError,
    PermissionDenied,
    PublishConflict,
    RepoNotFound,
    SkulkError,
)

# A break on the way, or an answer that is not a Hub's: the same question may be answered the next time.
BUSY = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, json.JSONDecodeError)

_METADATA = "Invalid metadata in README.md."  # how the client begins what the Hub says against a card


@dataclass(frozen=True)
class Need:
    """What was to be done with `repo`, and the permission that it needs; both for a person."""

    repo: str
    doing: str
    permission: str


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def translate(error: BaseException, need: Need) -> SkulkError:
    """The error of ours that says what `error` means for what was to be done."""
    repo, doing = need.repo, need.doing
    match error:
        case LocalTokenNotFoundError():
            return LoginError(repo, "nobody is logged in to the Hub")
        case OfflineModeIsEnabled():
            return HubUnreachable(repo, "offline mode is on (HF_HUB_OFFLINE)")
        case LocalEntryNotFoundError() if error.__cause__ is not None:  # how a download says that it got no answer
            return translate(error.__cause__, need)
        case DisabledRepoError():
            return HubError(repo, "disabled by the Hub")
        case HfHubHTTPError():
            return _translate_status(error.response.status_code, need)
        case json.JSONDecodeError():
            return HubBusy(repo, f"cannot {doing}: what answered is not a Hub (HF_ENDPOINT, proxy or firewall)")
        case httpx2.LocalProtocolError() | UnicodeError():
            return LoginError(repo, "the login's token holds characters that no token has")
        case httpx2.ConnectError():
            return HubBusy(repo, f"cannot {doing}: no connection to the Hub")
        case httpx2.TimeoutException():
            return HubBusy(repo, f"cannot {doing}: the Hub did not answer in time")
        case httpx2.TransportError():
            return HubBusy(repo, f"cannot {doing}: the connection to the Hub broke")
        case RuntimeError() if error.__cause__ is not None:  # what the client says of an upload that failed
            return translate(error.__cause__, need)
        case RuntimeError():
            return HubBusy(repo, f"cannot {doing}: the upload broke off")
        case ValueError() if said := _against_card(str(error)):
            return HubError(repo, f"the Hub does not accept the card's metadata: {said}")
        case OSError(errno=int()):
            return FileError(error.filename or "the upload", error.strerror or "cannot be read")
        case _:
            return HubBusy(repo, f"cannot {doing}: the Hub or its storage gave an answer that makes no sense")


def _translate_status(status: int, need: Need) -> SkulkError:
    repo, doing = need.repo, need.doing
    match status:
        case 401:
            return LoginError(repo, "the Hub refused the login (401): its token is wrong or has expired")
        case 403:
            return PermissionDenied(repo, need.permission, f"this login may not {doing} (403)")
        case 404:
            return RepoNotFound(repo, f"cannot {doing}: the Hub says there is no such thing, or hides it (404)")
        case 409:
            return PublishConflict(repo, f"cannot {doing}: something is there already, or is being made (409)")
        case 412:
            return PublishConflict(repo, f"cannot {doing}: somebody else has committed meanwhile (412)")
        case 429:
            return HubBusy(repo, f"cannot {doing}: the Hub has had too many requests of this login (429)")
        case _ if status >= 500 or status == 408:
            return HubBusy(repo, f"cannot {doing}: the Hub is out of order (status {status})")
        case _:
            return HubError(repo, f"the Hub refused to {doing} (status {status})")


def _against_card(text: str) -> str:
    """What the Hub says against a card, as the client passes it on in one of two ways; empty for anything else."""
    if text.startswith(_METADATA):
        return " ".join(text.removeprefix(_METADATA).split())
    try:
        return "; ".join(str(one["message"]) for one in json.loads(text)["errors"])
    except (ValueError, TypeError, LookupError):
        return ""
