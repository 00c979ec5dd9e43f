"""A person's own catalog: where it is, and changing it without touching what else stands there."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from skulk_core.catalog.yaml_list import edited
from skulk_core.errors import EntryExists, FileError
from skulk_core.formats.cards import LIST, Card, card_mapping, cards_of
from skulk_core.formats.catalog import SCHEMA, Entry, read_entries, to_mapping
from skulk_core.formats.yaml_file import parse_yaml, read_text
from skulk_core.runtime.userfiles import config_dir, write_atomically


class Change(StrEnum):
    """What became of an entry."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


def user_catalog() -> Path:
    """The person's own catalog, which need not exist: `catalog.yaml` in the configuration folder."""
    return config_dir() / "catalog.yaml"


def add_entry(path: Path, entry: Entry, *, replace: bool = False) -> Change:
    """Write `entry` into the catalog `path`, which is made, with its folder, if it is not there.

    Comments, order and form of all other entries stay as they are. Programs that add at the same time wait for one
    another. Nothing is written if the entry stands there already with the same values. Raises `EntryExists` if one of
    the same key does and `replace` is not set, `FormatError` for a file that breaks the schema, `FileError` for one
    that cannot be read or written; after each the file is as it was.
    """
    with _alone(path):
        old = read_text(path) if path.exists() else None
        entries = () if old is None else read_entries(parse_yaml(path, old, SCHEMA))
        at = next((number for number, known in enumerate(entries) if known.key == entry.key), None)
        if at is not None and entries[at] == entry:
            return Change.UNCHANGED
        if at is not None and not replace:
            raise EntryExists(path, entry.kind, entry.base)
        text = edited(_start(old), "entries", to_mapping(entry), at)
        expected = [*entries, entry] if at is None else [*entries[:at], entry, *entries[at + 1 :]]
        # what was just made must be what was meant: this also checks the values of `entry`
        written = read_entries(parse_yaml(path, text, SCHEMA))
        assert list(written) == expected, (written, expected)
        write_atomically(path, text)
        return Change.ADDED if at is None else Change.REPLACED


def change_card(path: Path, model: str, change: Callable[[Card], Card]) -> tuple[Card, Change]:
    """Put ``change`` of the card of `model` into the catalog `path`; the card as it is then, and what became of it.

    `change` is given an empty card where there is none; a card that comes back empty is taken out. Everything else in
    the file stays as it is. Raises as `add_entry` does, and whatever `change` raises.
    """
    with _alone(path):
        old = read_text(path) if path.exists() else None
        cards = () if old is None else cards_of(parse_yaml(path, old, SCHEMA))
        at = next((number for number, known in enumerate(cards) if known.model.lower() == model.lower()), None)
        before = Card(model=model) if at is None else cards[at]
        card = change(before)
        assert card.model == before.model, "a card of another model"
        if card == before:
            return card, Change.UNCHANGED
        text = edited(_start(old), LIST, None if card.is_empty else card_mapping(card), at)
        kept = [known for known in cards if known.model != card.model]
        where = len(cards) if at is None else at
        expected = kept if card.is_empty else [*kept[:where], card, *kept[where:]]
        # what was just made must be what was meant, and the entries what they were
        top = parse_yaml(path, text, SCHEMA)
        written = cards_of(top)
        assert list(written) == expected, (written, expected)
        read_entries(top)
        write_atomically(path, text)
        return card, Change.REMOVED if card.is_empty else Change.ADDED if at is None else Change.REPLACED


def _start(old: str | None) -> str:
    """What a file begins with, for one that is not there."""
    return old if old is not None else f"schema: {SCHEMA}\nentries: []\n"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, a file beside it, so that between reading and writing nobody else writes."""
    try:
        folder = path.resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f".{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
