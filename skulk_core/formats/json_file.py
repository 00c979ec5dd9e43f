"""Reading a JSON file of ours key by key, so that every error can say file and key."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.section import Keyed, is_integer


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
class JsonSection(Keyed):
    """One object of the file."""

    def error(self, key: str, reason: str) -> FormatError:
        return FormatError(self.path, self._name(key), reason)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.data.get(key) is not None

    def boolean(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0."""
        value = self._value(key)
        if not isinstance(value, list) or not all(is_integer(item) and item >= 0 for item in value):
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
