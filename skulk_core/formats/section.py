"""Reading a file of ours key by key, whatever its syntax, so that every error says file and key."""

import abc
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from skulk_core.errors import FormatError
from skulk_core.formats.suggest import near_miss

_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True)
class Keyed(abc.ABC):
    """One object of a file. `trail` is the path of keys to it, for example `subject[3]`; empty at the top.

    Every reader raises `FormatError` for a key that is missing or of another kind.
    """

    path: Path
    trail: str
    data: Mapping[Any, Any]

    @abc.abstractmethod
    def error(self, key: str, reason: str) -> FormatError:
        """An error about `key`."""

    def only(self, known: Iterable[str]) -> None:
        """Refuse every key that is not in `known`."""
        known = tuple(known)
        for key in self.data:
            if key not in known:
                raise self.error(key, f"unknown key{near_miss(str(key), known)}")

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._value(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"must be a text, not {value!r}")
        return str(value)

    def integer(self, key: str, minimum: int = 0) -> int:
        value = self._value(key)
        if not is_integer(value) or value < minimum:
            raise self.error(key, f"must be a whole number from {minimum}, not {value!r}")
        return int(value)

    def number(self, key: str) -> float:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(key, f"must be a number, not {value!r}")
        return float(value)

    def choice(self, key: str, choices: type[_E]) -> _E:
        value = self._value(key)
        known = [choice.value for choice in choices]
        if value not in known:
            raise self.error(key, f"{value!r} is not one of {', '.join(known)}{near_miss(str(value), known)}")
        return choices(value)

    def _value(self, key: str) -> Any:
        if key not in self.data:
            raise self.error(key, "missing")
        return self.data[key]

    def _name(self, key: str) -> str:
        return f"{self.trail}.{key}" if self.trail else key


def is_integer(value: object) -> bool:
    """Whether `value` is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)
