"""The Hub as a publisher uses it: who is logged in, what a repository holds, and the few calls that change something.

Uploads are huggingface_hub's: its transfer (Xet or git-lfs), its resuming, and its retries with `Retry-After`. What the
client tries only once, questions, creating and committing, is tried again here. A change whose answer was lost is not
made twice: a commit names its parent, and before a conflict is reported what is there is looked at.

Messages are written here, never taken over: those of the client and the server may quote addresses and headers. Errors
are raised without the client's as their cause, because a login's token can stand in one.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    RepoFile,
    get_session,
    get_token,
)
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from skulk_core.errors import DigestMismatch, HubError, LoginError, NameTaken, PublishConflict
from skulk_core.hub.client_errors import CLIENT_ERRORS
from swp.hub_errors import BUSY, Need, status_of, translate
from swp.login import Login, read_login
from swp.remote import CollectionState, Head, Item, RemoteFile

_R = TypeVar("_R")

MAX_ATTEMPTS = 5
_FIRST_WAIT_S, _MAX_WAIT_S = 1.0, 30.0
_LONGEST_ASKED_S = 900.0
# The client's own sessions wait for ever. Long enough for a storage that checks a large upload before it answers.
_TIMEOUT = httpx2.Timeout(300.0, connect=10.0)
_SETTLING_S = (1.0, 2.0, 4.0)  # until what was created can be seen everywhere
_TOKEN = re.compile(r"[!-~]+")
_RETRY_LOG = "huggingface_hub.utils._http"
_ERRORS = (*CLIENT_ERRORS, ValueError)  # the client has ValueErrors for answers it cannot read


class HubWriter:
    """One login on one Hub. `note` is told of every wait, in a sentence for a person."""

    def __init__(
        self,
        api: HfApi | None = None,
        note: Callable[[str], None] = lambda _: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api or HfApi()
        self._note, self._wait = note, wait

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return str(self._api.endpoint)

    def login(self, repo: str) -> Login:
        """Who is logged in, and what the token may do; `repo` is what it is wanted for. Raises `LoginError`."""
        # Sent nevertheless, such a token would stand in the errors and logs of every layer below.
        token = self._api.token or get_token()
        if isinstance(token, str) and not _TOKEN.fullmatch(token):
            raise LoginError(repo, "the login's token holds characters that no token has")
        return read_login(self._ask(Need(repo, "ask who is logged in", "a login"), self._api.whoami))

    def head(self, repo: str) -> Head | None:
        """What is at `repo` now; None only if the Hub says that there is no such repository."""
        need = Need(repo, "look at the repository", "read access")
        try:
            info = self._ask(need, lambda: self._api.model_info(repo, timeout=_TIMEOUT.read), absent=True)
        except _Absent:
            return None
        if info.id.lower() != repo.lower():
            raise NameTaken(repo, f"the Hub takes this name for {info.id}, as that was once called")
        sha = info.sha
        if not sha:
            raise HubError(repo, "the Hub does not tell its newest commit")
        tree = self._ask(need, lambda: list(self._api.list_repo_tree(repo, recursive=True, revision=sha)), attempts=1)
        files = tuple(
            RemoteFile(file.path, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
            for file in tree
            if isinstance(file, RepoFile)
        )
        base = info.card_data.get("base_model") if info.card_data else None
        bases = tuple(map(str, base)) if isinstance(base, list) else (str(base),) if base else ()
        return Head(repo, sha, bool(info.private), files, bases)

    def fetch(self, repo: str, sha: str, name: str, folder: Path) -> Path:
        """The file `name` of that commit, in `folder`."""
        need = Need(repo, f"read {name}", "read access")
        return Path(self._ask(need, lambda: self._api.hf_hub_download(repo, name, revision=sha, local_dir=folder)))

    def check_card(self, repo: str, card: str) -> None:
        """Ask the Hub whether it accepts the card's front matter. Raises `HubError` with what it says against it."""
        need = Need(repo, "check the card", "a login")
        self._ask(need, lambda: ModelCard(card, ignore_metadata_errors=True).validate())

    def create(self, repo: str, private: bool) -> Head:
        """Make the repository, which must not be there yet. Raises `PublishConflict` if it is."""
        need = Need(repo, "create the repository", f"write access to repositories of {repo.partition('/')[0]}")
        attempts: list[None] = []

        def create() -> None:
            attempts.append(None)
            self._api.create_repo(repo, private=private)

        try:
            self._ask(need, create)
        except PublishConflict:
            # made by an attempt whose answer was lost, if there was one
            head = self.head(repo) if len(attempts) > 1 else None
            if head is None or not head.is_new:
                raise
            return head
        for wait_s in _SETTLING_S:
            head = self.head(repo)
            if head is not None:
                return head
            self._wait(wait_s)
        raise HubError(repo, "the Hub created the repository, but does not show it")

    def commit(self, repo: str, parent: str, items: Sequence[Item], delete: Sequence[str], message: str) -> str:
        """Put `items` there and take `delete` away, in one commit on top of `parent`; the new commit's SHA.

        Raises `PublishConflict` if `parent` is no longer the newest commit, `DigestMismatch` if a file is not what its
        digest says; then nothing was committed.
        """
        need = Need(repo, "upload and commit", f"write access to {repo}")
        additions = [CommitOperationAdd(item.name, item.content) for item in items]
        # The client retries this by itself, file by file, and remembers what has arrived.
        self._ask(need, lambda: self._api.preupload_lfs_files(repo, additions, free_memory=False), attempts=1)
        for item, addition in zip(items, additions, strict=True):
            if addition.upload_info.sha256.hex() != item.sha256:
                path = item.content if isinstance(item.content, Path) else item.name
                raise DigestMismatch(path, "changed while it was being published")
        removals = [CommitOperationDelete(name, is_folder=False) for name in delete]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*additions, *removals]
        try:
            done = self._ask(
                need,
                lambda: self._api.create_commit(repo, operations, commit_message=message, parent_commit=parent),
            )
        except PublishConflict:
            head = self.head(repo)
            if head is None or not head.holds(items) or any(head.file(name) for name in delete):
                raise
            return head.sha  # it is our own commit, whose answer was lost
        return str(done.oid)

    def find_collection(self, owner: str, title: str) -> CollectionState | None:
        """The collection of `owner` with exactly this title."""
        need = Need(owner, "list the collections", "read access to collections")
        found = self._ask(
            need, lambda: [c for c in self._api.list_collections(owner=owner) if c.title == title], attempts=1
        )
        if not found:
            return None
        whole = self._ask(need, lambda: self._api.get_collection(found[0].slug))
        return CollectionState(whole.slug, tuple(item.item_id for item in whole.items))

    def collect(self, owner: str, title: str, repo: str, private: bool) -> str:
        """Put `repo` into the collection of that title, made if there is none; its slug. Twice is as good as once."""
        need = Need(owner, f"change the collection {title!r}", f"write access to collections of {owner}")
        known = self.find_collection(owner, title)
        slug = known.slug if known else ""
        if not slug:
            made = self._ask(
                need, lambda: self._api.create_collection(title, namespace=owner, private=private, exists_ok=True)
            )
            slug = made.slug
        self._ask(need, lambda: self._api.add_collection_item(slug, repo, "model", exists_ok=True))
        return slug

    def _ask(self, need: Need, call: Callable[[], _R], *, attempts: int = MAX_ATTEMPTS, absent: bool = False) -> _R:
        """What `call` returns, tried again while the Hub is busy; once if the client does that by itself.

        With `absent`, a repository that the Hub says is not there raises `_Absent`.
        """
        for attempt in range(1, attempts + 1):
            try:
                get_session().timeout = _TIMEOUT  # of the client's shared session, which it may have made anew
                with _client_log_to(self._note):
                    return call()
            except _ERRORS as error:
                if absent and _says_absent(error):
                    failure: Exception = _Absent()
                else:
                    failure = translate(error, need)
                wait_s = _wait_s(error, attempt) if attempt < attempts else None
            if wait_s is None:
                raise failure
            self._note(f"{failure}; trying again in {wait_s:.0f} s")
            self._wait(wait_s)
        raise AssertionError("the last attempt returns or raises")


class _Absent(Exception):
    """The Hub says that there is no such repository."""


def _says_absent(error: Exception) -> bool:
    """A refused login and a gated repository come as the same class of error, and mean nothing of the kind."""
    missing = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
    return missing and status_of(error) == 404


def _wait_s(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another attempt; None if there is no use in one."""
    if not isinstance(error, BUSY) and status_of(error) not in (408, 429, 500, 502, 503, 504):
        return None
    if isinstance(error, HfHubHTTPError):
        asked = error.response.headers.get("Retry-After", "").strip()
        if asked.isdigit():
            return float(asked) if float(asked) <= _LONGEST_ASKED_S else None
    return float(min(_FIRST_WAIT_S * 2 ** (attempt - 1), _MAX_WAIT_S))


@contextmanager
def _client_log_to(note: Callable[[str], None]) -> Iterator[None]:
    """Pass the client's words about its retries to `note`, without addresses: those of a storage carry signatures."""

    def through_us(record: logging.LogRecord) -> bool:
        if record.name != _RETRY_LOG:
            return True
        message = record.getMessage()
        if "://" not in message and record.levelno >= logging.WARNING:
            note(message)
        return False

    handlers = logging.getLogger("huggingface_hub").handlers
    for handler in handlers:
        handler.addFilter(through_us)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(through_us)
