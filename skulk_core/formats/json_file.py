"""Reading a JSON file of ours key by key, so that every error can say file and key."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.suggest import near_miss

_E = TypeVar("_E", bound=StrEnum)


def read_json(path: Path) -> "JsonSection":
    """The top level of the file. Raises `FileError` if it cannot be read, `FormatError` if it is not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise FormatError(path, f"line {error.lineno}", f"is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "JSON", "numbers too long or objects too deep") from error
    if not isinstance(content, dict):
        raise FormatError(path, "line 1", "must be an object")
    return JsonSection(path, "", content)


@dataclass(frozen=True)
class JsonSection:
    """One object of the file. `trail` is the path of keys to it, for example `subject[3]`; empty at the top."""

    path: Path
    trail: str
    data: Mapping[str, Any]

    def error(self, key: str, reason: str) -> FormatError:
        """An error about `key`."""
        return FormatError(self.path, self._name(key), reason)

    def only(self, known: Iterable[str]) -> None:
        """Refuse every key that is not in `known`."""
        known = tuple(known)
        for key in self.data:
            if key not in known:
                raise self.error(key, f"unknown key{near_miss(key, known)}")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.data.get(key) is not None

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._value(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"must be a text, not {value!r}")
        return value

    def integer(self, key: str, minimum: int = 0) -> int:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(key, f"must be a whole number from {minimum}, not {value!r}")
        return value

    def number(self, key: str) -> float:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, not {value!r}")
        return float(value)

    def boolean(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def choice(self, key: str, choices: type[_E]) -> _E:
        value = self._value(key)
        known = [choice.value for choice in choices]
        if value not in known:
            raise self.error(key, f"{value!r} is not one of {', '.join(known)}{near_miss(str(value), known)}")
        return choices(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0."""
        value = self._value(key)
        if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
            raise self.error(key, f"must be a list of whole numbers, not {value!r}")
        return tuple(value)

    def section(self, key: str) -> "JsonSection":
        value = self._value(key)
        if not isinstance(value, dict):
            raise self.error(key, f"must be an object, not {value!r}")
        return JsonSection(self.path, self._name(key), value)

    def sections(self, key: str) -> Iterator["JsonSection"]:
        """Each object of a list, in order."""
        value = self._value(key)
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, not {value!r}")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.error(f"{key}[{number}]", f"must be an object, not {item!r}")
            yield JsonSection(self.path, f"{self._name(key)}[{number}]", item)

    def _value(self, key: str) -> Any:
        if key not in self.data:
            raise self.error(key, "missing")
        return self.data[key]

    def _name(self, key: str) -> str:
        return f"{self.trail}.{key}" if self.trail else key
