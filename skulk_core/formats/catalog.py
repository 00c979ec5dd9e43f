"""`catalog.yaml`, schema 1: the models the toolkit knows by name.

    schema: 1
    entries:
      - kind: sidecar             # a head published as a sidecar
        base: OWNER/NAME          # the model the head was released with
        repo: OWNER/NAME          # where the sidecar is
        layout: qwen_mtp          # its family: which tensors there are, as in the sidecar's metadata
        licence: apache-2.0       # several: with commas between
        revision: 40 hex digits   # commit of `repo` to take, where one was checked; else its newest
        source_sha: 40 hex digits # commit of `base` that the head was taken from, where it is known
        conventions: {...}        # all five, or the key is left out: then the layout's own, or a probe, decides
        default_depth: 1          # tokens to draft; 0 = plain decoding is faster; left out = nobody has measured
        depth_by_hosts: {3: 0}    # from so many hosts on, another depth
        fingerprint: {...}        # numbers of the base's config.json, to know its kin by
      - kind: assistant           # a draft model published beside its base: the same keys
      - kind: vindex              # a vector index of a base model, made by the program larql
        base, repo, licence, revision, source_sha, fingerprint: as above
        quant: q4k                # how it is quantised
        slice: expert-server      # which part of the index; left out = the whole
        program: larql 0.3.1      # what made it: no field of the index itself tells old block orders apart

A person's own catalog may also have `cards` (`cards.py`).

A base stands at most once for each kind in one file, and for each `quant` and `slice` of a vindex. The keys of a
fingerprint are those of `Fingerprint`, with the meanings they have in config.json; the first four must be there.
"""

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from skulk_core.formats.suggest import near_miss
from skulk_core.formats.yaml_file import Section, read_yaml
from skulk_core.types import CONVENTION_NAMES, ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

SCHEMA = 1
WHOLE = "whole"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}")
_COMMON_KEYS = ("kind", "base", "repo", "licence", "revision", "source_sha", "fingerprint")
_HEAD_KEYS = (*_COMMON_KEYS, "layout", "conventions", "default_depth", "depth_by_hosts")
_VINDEX_KEYS = (*_COMMON_KEYS, "quant", "slice", "program")

EntryKey = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What of a model's config.json tells it from others; the fields have the names of the keys there.

    `model_type` is that of the text model. The last three are None where the catalog leaves them out, as it does with
    `num_experts` of a dense model.
    """

    model_type: str
    hidden_size: int
    vocab_size: int
    num_hidden_layers: int
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    num_experts: int | None = None

    def __str__(self) -> str:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return ", ".join([given.pop("model_type"), *(f"{name} {value}" for name, value in given.items())])


@dataclass(frozen=True, kw_only=True)
class _Published:
    base: str
    repo: str
    licence: str
    revision: str | None = None
    source_sha: str | None = None
    fingerprint: Fingerprint | None = None
    origin: Path | None = field(default=None, compare=False)

    kind: ClassVar[str]

    @property
    def key(self) -> EntryKey:
        """What only one entry of a file may have; of two files, the entry of the user's own counts."""
        return (self.kind, self.base.lower())


@dataclass(frozen=True, kw_only=True)
class HeadEntry(_Published):
    """A published draft head of the model `base`, in the repository `repo`.

    `revision` is the commit of `repo` to take, `source_sha` the commit of the base the head was taken from,
    `default_depth` the number of tokens to draft, and `conventions` how the head is wired: each None where the file
    does not say. `depth_by_hosts` are pairs (number of hosts, depth), rising. `origin` is the file the entry stands in,
    None for one that stands in none.
    """

    layout: str
    conventions: Conventions | None = None
    default_depth: int | None = None
    depth_by_hosts: tuple[tuple[int, int], ...] = ()

    def depth(self, num_hosts: int) -> int | None:
        """The depth on `num_hosts` hosts: of the largest host count listed that is not above it, else the default."""
        listed = [depth for hosts, depth in self.depth_by_hosts if hosts <= num_hosts]
        return listed[-1] if listed else self.default_depth


@dataclass(frozen=True, kw_only=True)
class SidecarEntry(HeadEntry):
    """A head extracted from `base`: one file, `mtp.safetensors`."""

    kind: ClassVar[str] = "sidecar"


@dataclass(frozen=True, kw_only=True)
class AssistantEntry(HeadEntry):
    """A small draft model that its publisher made for `base`: a whole checkpoint."""

    kind: ClassVar[str] = "assistant"


@dataclass(frozen=True, kw_only=True)
class VindexEntry(_Published):
    """A vector index of the model `base`. `slice` is the preset it was cut by, or `WHOLE`.

    `quant` and `program`, the name and version of what made it, are None where the file does not say.
    """

    kind: ClassVar[str] = "vindex"
    quant: str | None = None
    slice: str = WHOLE
    program: str | None = None

    @property
    def key(self) -> EntryKey:
        return (*super().key, self.quant or "", self.slice)


Entry = SidecarEntry | AssistantEntry | VindexEntry
KINDS = (SidecarEntry.kind, AssistantEntry.kind, VindexEntry.kind)


def read_catalog(path: Path) -> tuple[Entry, ...]:
    """Entries of the file, in its order.

    Raises `FileError` if it cannot be read, `FormatError` naming line and key if it breaks the schema.
    """
    return read_entries(read_yaml(path, SCHEMA))


def read_entries(top: Section) -> tuple[Entry, ...]:
    """Entries of a file whose top level is `top`. Raises `FormatError`."""
    top.only(("schema", "entries", "cards"))  # of these `cards.py` tells
    entries: list[Entry] = []
    seen: set[EntryKey] = set()
    for section in top.sections("entries"):
        entry = _read_entry(section)
        if entry.key in seen:
            raise section.error("base", f"{entry.base} stands here twice as {' '.join((entry.kind, *entry.key[2:]))}")
        seen.add(entry.key)
        entries.append(entry)
    return tuple(entries)


def to_mapping(entry: Entry) -> dict[str, Any]:
    """The entry as it is written in YAML: keys in this page's order, without those that have nothing to say."""
    values: dict[str, Any] = {"kind": entry.kind}
    for name in ("base", "repo", "layout", "quant", "slice", "program", "licence", "revision", "source_sha"):
        values[name] = getattr(entry, name, None)
    if values["slice"] == WHOLE:
        del values["slice"]
    if isinstance(entry, HeadEntry):
        if entry.conventions is not None:
            wired = asdict(entry.conventions).items()
            values["conventions"] = {key: value if key == "norm_offset" else str(value) for key, value in wired}
        values["default_depth"] = entry.default_depth
        values["depth_by_hosts"] = dict(entry.depth_by_hosts) or None
    if entry.fingerprint is not None:
        values["fingerprint"] = {k: v for k, v in asdict(entry.fingerprint).items() if v is not None}
    return {key: value for key, value in values.items() if value is not None}


def is_repo(text: str) -> bool:
    """Whether this is `OWNER/NAME` as the Hub takes it."""
    return bool(_NAME.fullmatch(text)) and "--" not in text and ".." not in text


def is_commit(text: str) -> bool:
    """Whether this is a commit: 40 hexadecimal digits in lower case."""
    return bool(_SHA.fullmatch(text))


def _read_entry(section: Section) -> Entry:
    match section.text("kind"):
        case SidecarEntry.kind:
            return _read_head(section, SidecarEntry)
        case AssistantEntry.kind:
            return _read_head(section, AssistantEntry)
        case VindexEntry.kind:
            section.only(_VINDEX_KEYS)
            return VindexEntry(
                **_read_common(section),
                quant=_optional_text(section, "quant"),
                slice=_optional_text(section, "slice") or WHOLE,
                program=_optional_text(section, "program"),
            )
        case other:
            raise section.error("kind", f"{other!r} is not one of {', '.join(KINDS)}{near_miss(other, KINDS)}")


def _read_head(section: Section, kind: type[SidecarEntry] | type[AssistantEntry]) -> SidecarEntry | AssistantEntry:
    section.only(_HEAD_KEYS)
    by_hosts = section.integers("depth_by_hosts", 1, 0) if section.has("depth_by_hosts") else {}
    return kind(
        **_read_common(section),
        layout=section.text("layout"),
        conventions=_conventions(section.section("conventions")) if section.has("conventions") else None,
        default_depth=section.integer("default_depth", 0) if section.has("default_depth") else None,
        depth_by_hosts=tuple(sorted(by_hosts.items())),
    )


def _read_common(section: Section) -> dict[str, Any]:
    return {
        "base": _repo(section, "base"),
        "repo": _repo(section, "repo"),
        "licence": section.text("licence"),
        "revision": _sha(section, "revision"),
        "source_sha": _sha(section, "source_sha"),
        "fingerprint": _fingerprint(section.section("fingerprint")) if section.has("fingerprint") else None,
        "origin": section.path,
    }


def _conventions(section: Section) -> Conventions:
    section.only(CONVENTION_NAMES)
    return Conventions(
        norm_offset=section.number("norm_offset"),
        concat_order=section.choice("concat_order", ConcatOrder),
        hidden_tap=section.choice("hidden_tap", HiddenTap),
        chain_tap=section.choice("chain_tap", ChainTap),
        position_rule=section.choice("position_rule", PositionRule),
    )


def _fingerprint(section: Section) -> Fingerprint:
    names = [known.name for known in fields(Fingerprint)]
    section.only(names)
    required = {name: section.integer(name, 1) for name in ("hidden_size", "vocab_size", "num_hidden_layers")}
    others = {name: section.integer(name, 1) for name in names[4:] if section.has(name)}
    return Fingerprint(model_type=section.text("model_type"), **required, **others)


def _repo(section: Section, key: str) -> str:
    value = section.text(key)
    if not is_repo(value):
        raise section.error(key, f"{value!r} is not OWNER/NAME")
    return value


def _sha(section: Section, key: str) -> str | None:
    if not section.has(key):
        return None
    value = section.text(key)
    if not is_commit(value):
        raise section.error(key, f"{value!r} is not a commit of 40 hexadecimal digits")
    return value


def _optional_text(section: Section, key: str) -> str | None:
    return section.text(key) if section.has(key) else None
