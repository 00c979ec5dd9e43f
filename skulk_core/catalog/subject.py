"""What a person wrote to mean a model, and where its card and configuration are."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import parse_hf_uri
from huggingface_hub.errors import HfUriError

from skulk_core.errors import ModelNameError
from skulk_core.hub.refs import DEFAULT_REVISION, DemoRef, FolderRef, RepoRef, parse_model
from skulk_core.hub.sources import ModelSource

_ADDRESS = re.compile(r"(?:https?|hf)://|(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_COMMIT_PAGE = re.compile(r"/commits?/([^/]+)$")
_CACHED = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)")


@dataclass(frozen=True)
class Subject:
    """A model to be looked up in the catalog.

    `asked` is what a person wrote. `names` are names of its own, the most telling first: a repository's OWNER/NAME, a
    folder's name. `card` and `config` are where its model card and its config.json can be read.
    """

    asked: str
    names: tuple[str, ...]
    card: Path | RepoRef
    config: Path | RepoRef

    @staticmethod
    def of(source: ModelSource) -> "Subject":
        """A checkpoint that is on disk already: its configuration is read there."""
        if isinstance(source.ref, RepoRef):
            return Subject(str(source.ref), (source.ref.repo,), source.ref, source.folder)
        return Subject(str(source.ref), _names_of(source.folder), source.folder, source.folder)

    @staticmethod
    def parse(text: str) -> "Subject":
        """Read a repository id, an address on the Hub, or a folder; nobody is asked yet. Raises `ModelNameError`."""
        ref = parse_ref(text)
        match ref:
            case RepoRef():
                return Subject(text, (ref.repo,), ref, ref)
            case FolderRef(path):
                return Subject(text, _names_of(path), path, path)
            case DemoRef():
                raise ModelNameError(text, "comes with its own sidecar, and is in no catalog")


def parse_ref(text: str) -> DemoRef | FolderRef | RepoRef:
    """Read a MODEL as `parse_model` does, or its address on the Hub. Raises `ModelNameError`."""
    return parse_address(text) if _ADDRESS.match(text) and not os.path.isdir(text) else parse_model(text)


def parse_address(text: str) -> RepoRef:
    """The repository and revision of an address such as `https://huggingface.co/OWNER/NAME/tree/REVISION`.

    Raises `ModelNameError` for one that is no model's on the Hub, or not on this Hub (`HF_ENDPOINT`).
    """
    page = text.strip().split("#")[0].split("?")[0].rstrip("/")
    try:
        # the client reads pages of files, and a commit's page means its files
        uri = parse_hf_uri(_COMMIT_PAGE.sub(r"/tree/\1", page))
    except (HfUriError, ValueError) as error:
        raise ModelNameError(text, "not the address of a repository on the Hub") from error
    if uri.type != "model":
        raise ModelNameError(text, f"the address of a {uri.type}, not of a model")
    ref = parse_model(f"{uri.id}@{uri.revision or DEFAULT_REVISION}")
    if not isinstance(ref, RepoRef):
        raise ModelNameError(text, "not the address of a repository on the Hub")
    return ref


def _names_of(folder: Path) -> tuple[str, ...]:
    """A snapshot in the Hub's cache has the name of its repository; other folders have their own."""
    resolved = folder.resolve()
    for part in reversed(resolved.parts):
        if cached := _CACHED.fullmatch(part):
            return (f"{cached['owner']}/{cached['name']}",)
    return (resolved.name,) if resolved.name else ()
