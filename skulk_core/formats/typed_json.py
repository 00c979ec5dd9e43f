"""JSON ↔ frozen dataclasses, by their annotations: one definition of a format is enough to write it and to read it.

What an annotation may be: `str`, `int`, `float` (finite; whole numbers count), `bool`, another dataclass,
`tuple[X, ...]`, `dict[str, X]`, and `X | None`, which is null. A field with a default is always written and may be
missing: files of earlier versions do not have it.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from skulk_core.errors import FormatError
from skulk_core.formats.section import is_integer
from skulk_core.formats.suggest import near_miss

_T = TypeVar("_T")


def encode(value: Any) -> Any:
    """``value`` as JSON has it: keys are the names of fields, in their order."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: encode(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    return value


def decode(kind: type[_T], path: Path, trail: str, value: object) -> _T:
    """The ``kind`` that stands in ``value``, at ``trail`` of the file ``path``.

    Raises `FormatError` naming the key, for one that is missing or unknown and for a value of another kind.
    """
    decoded: _T = _decode(kind, path, trail, value)
    return decoded


def _decode(kind: Any, path: Path, trail: str, value: object) -> Any:
    origin = get_origin(kind)
    if origin is UnionType:
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return None if value is None else _decode(inner, path, trail, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(path, trail, "a list", value)
        inner = get_args(kind)[0]
        return tuple(_decode(inner, path, f"{trail}[{number}]", item) for number, item in enumerate(value))
    if origin is dict:
        inner = get_args(kind)[1]
        return {key: _decode(inner, path, f"{trail}.{key}", item) for key, item in _object(path, trail, value).items()}
    if is_dataclass(kind):
        return _decode_object(kind, path, trail, _object(path, trail, value))
    return _decode_plain(kind, path, trail, value)


def _decode_object(kind: Any, path: Path, trail: str, value: dict[str, object]) -> Any:
    hints = _hints(kind)
    for key in value:
        if key not in hints:
            raise FormatError(path, _join(trail, key), f"unknown key{near_miss(key, hints)}")
    for one in fields(kind):
        if one.name not in value and one.default is one.default_factory is MISSING:
            raise FormatError(path, _join(trail, one.name), "missing")
    known = {key: hint for key, hint in hints.items() if key in value}
    return kind(**{key: _decode(hint, path, _join(trail, key), value[key]) for key, hint in known.items()})


def _decode_plain(kind: Any, path: Path, trail: str, value: object) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(path, trail, "true or false", value)
        return value
    if kind is int:
        if not is_integer(value):
            raise _wrong(path, trail, "a whole number", value)
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _wrong(path, trail, "a number", value)
        return float(value)
    assert kind is str, f"{kind} has no form in JSON here"
    if not isinstance(value, str):
        raise _wrong(path, trail, "a text", value)
    return value


def _object(path: Path, trail: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(path, trail, "an object", value)
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return {one.name: get_type_hints(kind)[one.name] for one in fields(kind)}


def _join(trail: str, key: str) -> str:
    return f"{trail}.{key}" if trail else key


def _wrong(path: Path, trail: str, wanted: str, value: object) -> FormatError:
    shown = repr(value)
    return FormatError(path, trail, f"must be {wanted}, not {shown if len(shown) < 60 else shown[:57] + '…'}")
