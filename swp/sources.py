"""REPO@SHA or PATH on the command line → a checkpoint at one commit."""

import re
from collections.abc import Callable
from threading import Event

from skulk_core.errors import ModelNameError, OptionError
from skulk_core.formats.provenance import Origin
from skulk_core.hub.ranges import FolderFiles, HubFiles
from skulk_core.hub.refs import DemoRef, FolderRef, RepoRef, parse_model
from swp.inspection import Source

_SHA = re.compile(r"[0-9a-f]{40}")


def open_source(text: str, said: str | None, cancel: Event, on_wait: Callable[[str], None] = lambda _: None) -> Source:
    """The checkpoint that `text` names; a branch or tag is looked up now, and only its commit is read from then on.

    `said` is what --source gave: the repository and commit of a folder. `on_wait` is told of every wait for the Hub.
    Raises `ModelNameError`, `OptionError` and our Hub errors.
    """
    ref = parse_model(text)
    match ref:
        case DemoRef():
            raise ModelNameError(text, "comes with its head, which is part of the installation")
        case FolderRef(path):
            repo, sha = _said(said)
            return Source(FolderFiles(path), repo, sha, Origin.ASSERTED)
        case RepoRef():
            if said is not None:
                raise OptionError("--source", said, f"{text} is on the Hub and is its own source; leave the option out")
            files = HubFiles.at(ref, cancel, on_wait)
            return Source(files, files.repo, files.sha, Origin.FETCHED)


def _said(said: str | None) -> tuple[str, str]:
    if said is None:
        return "", ""
    try:
        ref = parse_model(said)
    except ModelNameError as error:
        raise OptionError("--source", said, error.reason) from error
    if not isinstance(ref, RepoRef):
        raise OptionError("--source", said, "is not a repository, which is written OWNER/NAME@SHA")
    if not _SHA.fullmatch(ref.revision):
        raise OptionError("--source", said, "needs the commit, 40 hexadecimal digits: a branch moves, and says nothing")
    return ref.repo, ref.revision
