"""Reading a YAML file of ours key by key, so that every error can say file, line and key."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.section import Keyed, is_integer


def read_yaml(path: Path, schema: int) -> "Section":
    """The top level of the file, whose `schema` key must be `schema`.

    Raises `FileError` if the file cannot be read, and as `parse_yaml` does.
    """
    return parse_yaml(path, read_text(path), schema)


def read_text(path: Path) -> str:
    """The file's text. Raises `FileError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8 text") from error


def parse_yaml(path: Path, text: str, schema: int) -> "Section":
    """The top level of `text`, which stands in `path` or is to be written there.

    Raises `FormatError` if it is not YAML, not a mapping, or of another schema.
    """
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else "YAML"
        raise FormatError(path, where, str(error.problem or error.context)) from error
    except YAMLError as error:
        raise FormatError(path, "YAML", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "YAML", "a value that cannot be read, or lists nested too deeply") from error
    if not isinstance(document, CommentedMap):
        raise FormatError(path, "line 1", f"must be a mapping with the key 'schema: {schema}'")
    top = Section(path, "", document)
    found = top.integer("schema", minimum=1)
    if found != schema:
        raise top.error("schema", f"is {found}; this program reads schema {schema}")
    return top


@dataclass(frozen=True)
class Section(Keyed):
    """One mapping of the file."""

    data: CommentedMap

    def error(self, key: str, reason: str) -> FormatError:
        """An error about `key`, at its line, or at the section's first line if the key is not there."""
        lines = self.data.lc.data or {}  # of the keys that stand here, not of those merged in with `<<`
        line = lines[key][0] if key in lines else self.data.lc.line
        return FormatError(self.path, f"line {line + 1}, {self._name(key)}", reason)

    def has(self, key: str) -> bool:
        return key in self.data

    def section(self, key: str) -> "Section":
        value = self._value(key)
        if not isinstance(value, CommentedMap):
            raise self.error(key, f"must be a mapping, not {value!r}")
        return Section(self.path, self._name(key), value)

    def sections(self, key: str) -> Iterator["Section"]:
        """Each mapping of a list, in order."""
        value = self._value(key)
        if not isinstance(value, CommentedSeq):
            raise self.error(key, f"must be a list, not {value!r}")
        for number, item in enumerate(value):
            if not isinstance(item, CommentedMap):
                line = value.lc.item(number)[0]
                raise FormatError(self.path, f"line {line + 1}, {key}[{number}]", f"must be a mapping, not {item!r}")
            yield Section(self.path, f"{key}[{number}]", item)

    def integers(self, key: str, key_minimum: int, minimum: int) -> dict[int, int]:
        """A mapping from whole numbers to whole numbers."""
        section = self.section(key)
        for number in section.data:
            if not is_integer(number) or number < key_minimum:
                raise section.error(number, f"must be a whole number from {key_minimum}")
        return {int(number): section.integer(number, minimum) for number in section.data}
