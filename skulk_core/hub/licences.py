"""The licence of a repository as its card states it, and its licence files."""

import re
from collections.abc import Iterable

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skulk_core.formats.provenance import Licence
from skulk_core.hub.model_card import CARD_FILE

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_LICENCE_FILE = re.compile(r"(licen[cs]e|notice|copying)([-_. ][^/\\]*)?", re.IGNORECASE)

__all__ = ["CARD_FILE", "licence_files", "read_licence"]


def read_licence(card: bytes) -> Licence:
    """The licence fields in a card's front matter, unchanged. Without any, or without front matter, all are None.

    A value that is neither text nor a list of texts counts as missing: nobody could pass it on unchanged.
    """
    text = card.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    front_matter = _FRONT_MATTER.match(text)
    try:
        data = YAML(typ="safe", pure=True).load(front_matter[1]) if front_matter else None
    except YAMLError:
        data = None
    if not isinstance(data, dict):
        return Licence()
    value = data.get("license")
    identifier: str | tuple[str, ...] | None = None
    if isinstance(value, str) and value.strip():
        identifier = value
    elif isinstance(value, list) and value and all(isinstance(one, str) and one.strip() for one in value):
        identifier = tuple(value)
    return Licence(identifier, _text(data.get("license_name")), _text(data.get("license_link")))


def licence_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those names that are of licence files or notices, at the top of a repository, sorted."""
    return tuple(sorted(name for name in names if _LICENCE_FILE.fullmatch(name)))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
