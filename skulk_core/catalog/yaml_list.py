"""Changing one item of a list in a YAML file; comments, order and form of everything else stay as they are."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.tokens import CommentToken
from ruamel.yaml.util import load_yaml_guess_indent

_WIDTH = 4096  # columns at which ruamel breaks lines: never


def edited(old: str, name: str, values: dict[str, Any] | None, at: int | None) -> str:
    """`old` with `values` as the last item of its list `name`, or in place of the item number `at`.

    The list is made if it is not there. With None for `values` the item is taken out.
    """
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    document, indent, offset = load_yaml_guess_indent(old, yaml=yaml)
    if name not in document:
        document[name] = CommentedSeq()
    items: CommentedSeq = document[name]
    if at is None:
        assert values is not None, "nothing to append"
        if not items:
            items.fa.set_block_style()
            indent, offset = 4, 2
        items.append(_as_yaml(values))
    elif values is None:
        below = _cut_below(items[at])
        del items[at]
        if items and at:
            _put_below(items[at - 1], below)
    else:
        _update(items[at], values)
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
