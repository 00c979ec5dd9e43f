"""What is on the Hub and what goes there, as values."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INITIAL_FILES = (".gitattributes",)  # what the Hub puts into a new repository


@dataclass(frozen=True)
class Item:
    """A file as it will be in the repository. `content` is its bytes, or where they are if there are many."""

    name: str
    content: Path | bytes
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it. `sha256` is known of large files only, `git_id` is git's name for the others."""

    name: str
    nbytes: int
    sha256: str | None
    git_id: str

    def holds(self, item: Item) -> bool:
        """Whether it has the content of `item`."""
        if self.sha256 is not None:
            return self.sha256 == item.sha256
        if self.nbytes != item.nbytes:
            return False
        content = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.git_id


@dataclass(frozen=True)
class Head:
    """The newest commit of a repository on the Hub. `base_models` are those its card names."""

    repo: str
    sha: str
    private: bool
    files: tuple[RemoteFile, ...]
    base_models: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever committed to it."""
        return all(file.name in _INITIAL_FILES for file in self.files)

    def file(self, name: str) -> RemoteFile | None:
        return next((file for file in self.files if file.name == name), None)

    def holds(self, items: Sequence[Item]) -> bool:
        """Whether every one of `items` is there as it is."""
        return all((file := self.file(item.name)) is not None and file.holds(item) for item in items)


@dataclass(frozen=True)
class CollectionState:
    """A collection and the repositories in it."""

    slug: str
    repos: tuple[str, ...]
