"""Finding the entry that belongs to a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from skulk_core.catalog.names import core_name, without_base
from skulk_core.formats.catalog import AssistantEntry, Entry, SidecarEntry, VindexEntry, read_catalog

_H = TypeVar("_H", SidecarEntry, AssistantEntry)


class Rule(StrEnum):
    """How an entry was found: listed under the model's own name, under one of its base models, or by likeness."""

    LISTED = "listed"
    BASE_MODEL = "base_model"
    NAME = "name"


@dataclass(frozen=True)
class Because:
    """The name that matched an entry's base, and by which rule. `str()` is one sentence for a person."""

    rule: Rule
    name: str
    base: str

    def __str__(self) -> str:
        match self.rule:
            case Rule.LISTED:
                return f"the catalog lists {self.base}"
            case Rule.BASE_MODEL:
                return f"its base model is {self.base}"
            case Rule.NAME:
                return f"by name only: {self.name} without its suffixes is {self.base}"


@dataclass(frozen=True)
class Found(Generic[_H]):
    """The entry, and why it is thought to fit."""

    entry: _H
    because: Because


@dataclass(frozen=True)
class NotFound:
    """No entry. `tried` are the names that were looked up, in order."""

    tried: tuple[str, ...]


@dataclass(frozen=True)
class Catalog:
    """Every entry known, each base once per kind."""

    entries: tuple[Entry, ...]

    @staticmethod
    def load(shipped: Path, user: Path | None) -> "Catalog":
        """Merge the two files. Where both list a base, the user's entry replaces the shipped one.

        `user` is None, or a path that need not exist. Raises `FileError` and `FormatError` as `read_catalog` does.
        """
        own = read_catalog(user) if user is not None and user.exists() else ()
        replaced = {_key(entry) for entry in own}
        return Catalog(own + tuple(entry for entry in read_catalog(shipped) if _key(entry) not in replaced))

    @property
    def sidecars(self) -> tuple[SidecarEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, SidecarEntry))

    @property
    def assistants(self) -> tuple[AssistantEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, AssistantEntry))

    @property
    def vindexes(self) -> tuple[VindexEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, VindexEntry))

    def find_sidecar(self, names: Sequence[str]) -> Found[SidecarEntry] | NotFound:
        """The sidecar for a model known by `names`: its own name first, then its base models, nearest first.

        A base that equals a name is preferred to one that only looks like it, whatever their order.
        """
        return _find(self.sidecars, names)

    def find_assistant(self, names: Sequence[str]) -> Found[AssistantEntry] | NotFound:
        """The assistant for a model, found as `find_sidecar` finds."""
        return _find(self.assistants, names)


def _key(entry: Entry) -> tuple[type, str]:
    return type(entry), entry.base.lower()


def _find(entries: Sequence[_H], names: Sequence[str]) -> Found[_H] | NotFound:
    by_base = {entry.base.lower(): entry for entry in entries}
    for position, name in enumerate(names):
        if entry := by_base.get(name.lower()):
            return Found(entry, Because(Rule.BASE_MODEL if position else Rule.LISTED, name, entry.base))
    by_core = _first((core_name(entry.base), entry) for entry in entries)
    by_stem = _first((without_base(core_name(entry.base)), entry) for entry in entries)
    for name in names:
        core = core_name(name)
        if entry := by_core.get(core) or by_stem.get(without_base(core)):
            return Found(entry, Because(Rule.NAME, name, entry.base))
    return NotFound(tuple(names))


def _first(pairs: Iterable[tuple[str, _H]]) -> dict[str, _H]:
    """A dict in which the first pair of a key wins: the user's entries come first."""
    found: dict[str, _H] = {}
    for key, entry in pairs:
        found.setdefault(key, entry)
    return found
