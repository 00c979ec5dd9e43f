"""The metadata of an MTP sidecar, format version 1.

A sidecar is one safetensors file, `mtp.safetensors`, that holds the draft head a model was released with (or had
trained for it) and nothing of its trunk. Tensors keep their upstream names. Everything a loader must know beside names,
shapes and dtypes stands in the `__metadata__` of the safetensors header, a flat map of strings to strings.

All our keys begin with `mtp_sidecar.`, so that they live beside the keys of other tools. One key is not ours:
`format` is always written as `pt`, because common loaders refuse files without it; it is not read.

Keys of version 1. All of them are present in every file:

    mtp_sidecar.version           "1". A reader refuses a version greater than the one it knows.
    mtp_sidecar.layout            Which tensors there are and how they are wired, for example `qwen_mtp`, `nextn`.
    mtp_sidecar.num_heads         Number of depths (heads or layers) in the file, a decimal integer from 1.

    mtp_sidecar.norm_offset       Added to every RMSNorm weight of the head before use: "0.0", or "1.0" where the
                                  released weights are centred on zero. A finite decimal number.
    mtp_sidecar.concat_order      `embedding_first` or `hidden_first`: the halves of the input projection.
    mtp_sidecar.hidden_tap        `post_norm` or `pre_norm`: the trunk state the head reads.
    mtp_sidecar.chain_tap         `post_norm` or `pre_norm`: the head's own output fed back as its next state.
    mtp_sidecar.position_rule     `running`, `last_committed` or `before_last`.

    mtp_sidecar.source_repo       Repository the tensors came from, `OWNER/NAME`.
    mtp_sidecar.source_sha        Its commit, 40 lower-case hexadecimal digits, or "" where nobody knows it.
    mtp_sidecar.source_dtypes     JSON list of the safetensors dtypes the tensors had there, sorted.
    mtp_sidecar.shared_tensors    JSON list of the head's tensors that are *not* in the file because the trunk has
                                  byte-equal copies: embedding, LM head. Upstream names.
    mtp_sidecar.tool              Name and version of the program that wrote the file.

    mtp_sidecar.trunk.hidden_size   The trunk the head belongs to, so that a mismatch is refused before decoding:
    mtp_sidecar.trunk.vocab_size    decimal integers from 1.
    mtp_sidecar.trunk.num_layers
    mtp_sidecar.trunk.rope_theta    A finite positive number, or "" for a trunk without rotary embedding.

The conventions change how many drafts are accepted, never the text: verification decides every token.

Reading has three outcomes. A file without any `mtp_sidecar.` key is `NoMetadata`: sidecars of other publishers are
like that, and their conventions come from the catalog or from a probe. A file that follows this page is a
`SidecarMetadata`. Anything between is a `FormatError` that names the key: a newer version, a key that is missing or
unknown to the version, a word that is not one of those listed, a number that is none.

A new key is a new version: readers of version 1 refuse what they cannot honour. Files of every older version keep
loading.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from skulk_core.errors import FormatError
from skulk_core.formats.suggest import near_miss
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

SIDECAR_FILE = "mtp.safetensors"
FORMAT_VERSION = 1
PREFIX = "mtp_sidecar."

_SHA = re.compile(r"[0-9a-f]{40}")
_DECIMAL = re.compile(r"[1-9][0-9]*")
_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True)
class TrunkFingerprint:
    """What must agree between a head and a trunk. `rope_theta` is None for a trunk without rotary embedding."""

    hidden_size: int
    vocab_size: int
    num_layers: int
    rope_theta: float | None


@dataclass(frozen=True)
class SidecarMetadata:
    """The metadata of one sidecar; this module's documentation says what each field means."""

    layout: str
    num_heads: int
    conventions: Conventions
    source_repo: str
    source_sha: str
    source_dtypes: tuple[str, ...]
    shared_tensors: tuple[str, ...]
    tool: str
    trunk: TrunkFingerprint
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        assert self.version == FORMAT_VERSION, self.version
        assert self.layout, "a sidecar has a layout"
        assert self.num_heads >= 1, self.num_heads
        assert not self.source_sha or _SHA.fullmatch(self.source_sha), self.source_sha

    def to_strings(self) -> dict[str, str]:
        """The map for the safetensors `__metadata__`, `format` included."""
        theta = self.trunk.rope_theta
        ours = {
            "version": str(self.version),
            "layout": self.layout,
            "num_heads": str(self.num_heads),
            "norm_offset": repr(float(self.conventions.norm_offset)),
            "concat_order": self.conventions.concat_order.value,
            "hidden_tap": self.conventions.hidden_tap.value,
            "chain_tap": self.conventions.chain_tap.value,
            "position_rule": self.conventions.position_rule.value,
            "source_repo": self.source_repo,
            "source_sha": self.source_sha,
            "source_dtypes": json.dumps(sorted(self.source_dtypes)),
            "shared_tensors": json.dumps(list(self.shared_tensors)),
            "tool": self.tool,
            "trunk.hidden_size": str(self.trunk.hidden_size),
            "trunk.vocab_size": str(self.trunk.vocab_size),
            "trunk.num_layers": str(self.trunk.num_layers),
            "trunk.rope_theta": "" if theta is None else repr(float(theta)),
        }
        assert set(ours) == set(_KEYS), set(ours) ^ set(_KEYS)
        return {"format": "pt", **{PREFIX + key: value for key, value in ours.items()}}


@dataclass(frozen=True)
class NoMetadata:
    """A sidecar of another publisher: none of our keys. `keys` are those it has, sorted."""

    keys: tuple[str, ...]


_KEYS = (
    "version",
    "layout",
    "num_heads",
    "norm_offset",
    "concat_order",
    "hidden_tap",
    "chain_tap",
    "position_rule",
    "source_repo",
    "source_sha",
    "source_dtypes",
    "shared_tensors",
    "tool",
    "trunk.hidden_size",
    "trunk.vocab_size",
    "trunk.num_layers",
    "trunk.rope_theta",
)


def from_strings(path: Path, mapping: Mapping[str, str]) -> SidecarMetadata | NoMetadata:
    """Read the `__metadata__` of the sidecar at `path`; a file without any passes an empty mapping.

    Raises `FormatError` naming the key that cannot be read. `path` is for that message only: nothing is opened.
    """
    ours = {key.removeprefix(PREFIX): value for key, value in mapping.items() if key.startswith(PREFIX)}
    if not ours:
        return NoMetadata(tuple(sorted(mapping)))
    reader = _Reader(path, ours)
    version = reader.positive("version")
    if version > FORMAT_VERSION:
        raise reader.error(
            "version", f"format version {version} is newer than {FORMAT_VERSION}, the newest this program reads"
        )
    for key in ours:
        if key not in _KEYS:
            raise reader.error(key, f"unknown key{near_miss(key, _KEYS)}")
    return SidecarMetadata(
        layout=reader.word("layout"),
        num_heads=reader.positive("num_heads"),
        conventions=Conventions(
            norm_offset=reader.number("norm_offset"),
            concat_order=reader.choice("concat_order", ConcatOrder),
            hidden_tap=reader.choice("hidden_tap", HiddenTap),
            chain_tap=reader.choice("chain_tap", ChainTap),
            position_rule=reader.choice("position_rule", PositionRule),
        ),
        source_repo=reader.word("source_repo"),
        source_sha=reader.sha("source_sha"),
        source_dtypes=reader.names("source_dtypes"),
        shared_tensors=reader.names("shared_tensors"),
        tool=reader.word("tool"),
        trunk=TrunkFingerprint(
            hidden_size=reader.positive("trunk.hidden_size"),
            vocab_size=reader.positive("trunk.vocab_size"),
            num_layers=reader.positive("trunk.num_layers"),
            rope_theta=reader.theta("trunk.rope_theta"),
        ),
    )


class _Reader:
    """Typed access to the strings of one file; every error names its key."""

    def __init__(self, path: Path, strings: Mapping[str, str]) -> None:
        self._path, self._strings = path, strings

    def error(self, key: str, reason: str) -> FormatError:
        return FormatError(self._path, f"metadata key {PREFIX}{key}", reason)

    def text(self, key: str) -> str:
        if key not in self._strings:
            raise self.error(key, "missing")
        return self._strings[key]

    def word(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise self.error(key, "empty")
        return value

    def positive(self, key: str) -> int:
        value = self.text(key)
        if not _DECIMAL.fullmatch(value):
            raise self.error(key, f"{value!r} is not a whole number from 1")
        return int(value)

    def number(self, key: str) -> float:
        value = self.text(key)
        try:
            number = float(value)
        except ValueError:
            raise self.error(key, f"{value!r} is not a number") from None
        if not math.isfinite(number):
            raise self.error(key, f"{value!r} is not a finite number")
        return number

    def theta(self, key: str) -> float | None:
        if not self.text(key):
            return None
        theta = self.number(key)
        if theta <= 0:
            raise self.error(key, f"{theta} is not positive")
        return theta

    def sha(self, key: str) -> str:
        value = self.text(key)
        if value and not _SHA.fullmatch(value):
            raise self.error(key, f"{value!r} is not a commit of 40 hexadecimal digits")
        return value

    def choice(self, key: str, choices: type[_E]) -> _E:
        value = self.text(key)
        known = [choice.value for choice in choices]
        if value not in known:
            raise self.error(key, f"{value!r} is not one of {', '.join(known)}{near_miss(value, known)}")
        return choices(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.text(key)
        try:
            names = json.loads(value)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.error(key, f"{value!r} is not a JSON list of strings")
        return tuple(names)
