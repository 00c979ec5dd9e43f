"""A person's own catalog: where it is, and adding to it without touching what else stands there."""

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.tokens import CommentToken
from ruamel.yaml.util import load_yaml_guess_indent

from skulk_core.errors import EntryExists, FileError
from skulk_core.formats.catalog import SCHEMA, Entry, read_entries, to_mapping
from skulk_core.formats.yaml_file import parse_yaml, read_text
from skulk_core.runtime.userfiles import config_dir, write_atomically

_WIDTH = 4096  # columns at which ruamel breaks lines: never


class Change(StrEnum):
    """What became of an entry."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


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
        text = _edited(old if old is not None else f"schema: {SCHEMA}\nentries: []\n", entry, at)
        expected = [*entries, entry] if at is None else [*entries[:at], entry, *entries[at + 1 :]]
        # what was just made must be what was meant: this also checks the values of `entry`
        written = read_entries(parse_yaml(path, text, SCHEMA))
        assert list(written) == expected, (written, expected)
        write_atomically(path, text)
        return Change.ADDED if at is None else Change.REPLACED


def _edited(old: str, entry: Entry, at: int | None) -> str:
    """`old` with `entry` as its last entry, or in place of the entry number `at`."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    document, indent, offset = load_yaml_guess_indent(old, yaml=yaml)
    entries: CommentedSeq = document["entries"]
    if at is None:
        if not entries:
            entries.fa.set_block_style()
            indent, offset = 4, 2
        entries.append(_as_yaml(to_mapping(entry)))
    else:
        _update(entries[at], to_mapping(entry))
    yaml.indent(mapping=2, sequence=indent or 4, offset=2 if offset is None else offset)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _update(old: CommentedMap, values: dict[str, Any]) -> None:
    """Make `old` hold `values`, touching only the keys that differ."""
    below = _cut_below(old)
    for key in [key for key in old if key not in values]:
        del old[key]
    for place, (key, value) in enumerate(values.items()):
        if key not in old:
            old.insert(min(place, len(old)), key, _as_yaml(value))
        elif _plain(old[key]) != value:
            # a new mapping, never the old one changed: it may be the target of an alias elsewhere
            old[key] = _as_yaml(value)
    _put_below(old, below)


def _cut_below(entry: CommentedMap) -> str:
    """Take away the lines of comment below an entry, which ruamel keeps with its last value."""
    holder, key = _last(entry)
    if (token := _comment(holder, key)) is None:
        return ""
    beside, newline, below = token.value.partition("\n")
    token.value = beside + newline
    if not beside:
        del holder.ca.items[key]
    return str(below)


def _put_below(entry: CommentedMap, lines: str) -> None:
    """Put lines of comment below an entry."""
    if not lines:
        return
    holder, key = _last(entry)
    if (token := _comment(holder, key)) is not None:
        token.value = token.value.rstrip("\n") + "\n" + lines
    else:
        holder.ca.items[key] = [None, None, CommentToken("\n" + lines, CommentMark(0)), None]


def _last(entry: CommentedMap) -> tuple[CommentedMap, Any]:
    """The innermost mapping at the end of an entry, and the last key there."""
    key = list(entry)[-1]
    value = entry[key]
    inside = isinstance(value, CommentedMap) and value and not value.fa.flow_style()
    return _last(value) if inside else (entry, key)


def _comment(holder: CommentedMap, key: Any) -> CommentToken | None:
    tokens = holder.ca.items.get(key)
    token = None if tokens is None else tokens[2]
    return token if isinstance(token, CommentToken) else None


def _as_yaml(value: Any) -> Any:
    return CommentedMap({key: _as_yaml(item) for key, item in value.items()}) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """A value of ruamel's as Python's own."""
    if isinstance(value, CommentedMap):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return int(value) if isinstance(value, ScalarInt) else value


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
