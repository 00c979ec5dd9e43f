"""The catalog in memory: the entries that come with the program and the person's own."""

from dataclasses import dataclass
from pathlib import Path

from skulk_core.catalog.user import user_catalog
from skulk_core.formats.cards import Card, read_cards
from skulk_core.formats.catalog import AssistantEntry, Entry, SidecarEntry, VindexEntry, read_catalog
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef
from skulk_core.runtime.resources import catalog_path


def card_name(ref: DemoRef | FolderRef | FileRef | RepoRef) -> str:
    """What a card calls a model: `demo`, OWNER/NAME without its revision, or a path from the root."""
    match ref:
        case RepoRef(repo):
            return repo
        case DemoRef():
            return str(ref)
        case FolderRef(path) | FileRef(path):
            return str(path.resolve())


@dataclass(frozen=True)
class Catalog:
    """Every entry known, each key once; the person's own come first. ``cards`` are the person's."""

    entries: tuple[Entry, ...]
    cards: tuple[Card, ...] = ()

    @staticmethod
    def load(shipped: Path, user: Path | None) -> "Catalog":
        """Merge the two files. Where both have an entry of one key, the user's replaces the shipped one.

        `user` is None, or a path that need not exist. Raises `FileError` and `FormatError` as `read_catalog` does.
        """
        there = user is not None and user.exists()
        own, cards = (read_catalog(user), read_cards(user)) if user is not None and there else ((), ())
        replaced = {entry.key for entry in own}
        return Catalog(own + tuple(entry for entry in read_catalog(shipped) if entry.key not in replaced), cards)

    @staticmethod
    def known() -> "Catalog":
        """The shipped catalog and this person's own. Raises as `load` does."""
        return Catalog.load(catalog_path(), user_catalog())

    @property
    def sidecars(self) -> tuple[SidecarEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, SidecarEntry))

    @property
    def heads(self) -> tuple[SidecarEntry | AssistantEntry, ...]:
        """Draft heads of either kind."""
        return tuple(entry for entry in self.entries if isinstance(entry, SidecarEntry | AssistantEntry))

    @property
    def assistants(self) -> tuple[AssistantEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, AssistantEntry))

    @property
    def vindexes(self) -> tuple[VindexEntry, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, VindexEntry))

    def named(self, name: str) -> tuple[Entry, ...]:
        """Entries whose base or repository is `name`, in whatever case."""
        return tuple(entry for entry in self.entries if name.lower() in (entry.base.lower(), entry.repo.lower()))

    def card_of(self, ref: DemoRef | FolderRef | FileRef | RepoRef) -> Card | None:
        """The person's card of this very model."""
        return next((card for card in self.cards if card.model.lower() == card_name(ref).lower()), None)

    def entry_of(self, repo: str) -> Entry | None:
        """The entry that the repository `repo` belongs to."""
        return next((entry for entry in self.entries if entry.repo.lower() == repo.lower()), None)
