"""`catalog.yaml`, schema 1: the models the toolkit knows by name.

    schema: 1
    entries:
      - kind: sidecar             # a head published as a sidecar
        base: OWNER/NAME          # the model the head was released with
        repo: OWNER/NAME          # where the sidecar is; source_sha: 40 hex digits, if known
        layout: qwen_mtp          # which tensors there are, as in the sidecar's metadata
        licence: apache-2.0
        conventions: {...}        # all five, or the key is left out: then the layout's own, or a probe, decides
        default_depth: 1          # tokens to draft; 0 = plain decoding is faster; left out = nobody has measured
        depth_by_hosts: {3: 0}    # from so many hosts on, another depth
      - kind: assistant           # a draft model published beside its base: the same keys
      - kind: vindex              # a vector index of a base model: base, repo, licence

A base stands at most once for each kind in one file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from skulk_core.formats.yaml_file import Section, read_yaml
from skulk_core.types import CONVENTION_NAMES, ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

SCHEMA = 1
KINDS = ("sidecar", "assistant", "vindex")

_NAME = re.compile(r"[^/\s]+/[^/\s]+")
_SHA = re.compile(r"[0-9a-f]{40}")
_COMMON_KEYS = ("kind", "base", "repo", "licence")
_HEAD_KEYS = (*_COMMON_KEYS, "source_sha", "layout", "conventions", "default_depth", "depth_by_hosts")


@dataclass(frozen=True)
class HeadEntry:
    """A published draft head of the model `base`, in the repository `repo`.

    `source_sha` is the commit of the base it was taken from, `default_depth` the number of tokens to draft, and
    `conventions` how the head is wired: each None where the file does not say. `depth_by_hosts` are pairs
    (number of hosts, depth), rising. `origin` is the file the entry stands in.
    """

    base: str
    repo: str
    layout: str
    licence: str
    source_sha: str | None
    conventions: Conventions | None
    default_depth: int | None
    depth_by_hosts: tuple[tuple[int, int], ...]
    origin: Path = field(compare=False)

    def depth(self, num_hosts: int) -> int | None:
        """The depth on `num_hosts` hosts: of the largest host count listed that is not above it, else the default."""
        listed = [depth for hosts, depth in self.depth_by_hosts if hosts <= num_hosts]
        return listed[-1] if listed else self.default_depth


@dataclass(frozen=True)
class SidecarEntry(HeadEntry):
    """A head extracted from `base`: one file, `mtp.safetensors`."""


@dataclass(frozen=True)
class AssistantEntry(HeadEntry):
    """A small draft model that its publisher made for `base`: a whole checkpoint."""


@dataclass(frozen=True)
class VindexEntry:
    """A vector index of the model `base`."""

    base: str
    repo: str
    licence: str
    origin: Path = field(compare=False)


Entry = SidecarEntry | AssistantEntry | VindexEntry


def read_catalog(path: Path) -> tuple[Entry, ...]:
    """Entries of the file, in its order.

    Raises `FileError` if it cannot be read, `FormatError` naming line and key if it breaks the schema.
    """
    top = read_yaml(path, SCHEMA)
    top.only(("schema", "entries"))
    entries: list[Entry] = []
    seen: set[tuple[type, str]] = set()
    for section in top.sections("entries"):
        entry = _read_entry(section)
        key = (type(entry), entry.base.lower())
        if key in seen:
            raise section.error("base", f"{entry.base} stands here twice as {section.text('kind')}")
        seen.add(key)
        entries.append(entry)
    return tuple(entries)


def _read_entry(section: Section) -> Entry:
    match section.text("kind"):
        case "sidecar":
            return _read_head(section, SidecarEntry)
        case "assistant":
            return _read_head(section, AssistantEntry)
        case "vindex":
            section.only(_COMMON_KEYS)
            return VindexEntry(_repo(section, "base"), _repo(section, "repo"), section.text("licence"), section.path)
        case other:
            raise section.error("kind", f"{other!r} is not one of {', '.join(KINDS)}")


def _read_head(section: Section, kind: type[SidecarEntry] | type[AssistantEntry]) -> SidecarEntry | AssistantEntry:
    section.only(_HEAD_KEYS)
    by_hosts = section.integers("depth_by_hosts", 1, 0) if section.has("depth_by_hosts") else {}
    return kind(
        base=_repo(section, "base"),
        repo=_repo(section, "repo"),
        layout=section.text("layout"),
        licence=section.text("licence"),
        source_sha=_sha(section, "source_sha") if section.has("source_sha") else None,
        conventions=_conventions(section.section("conventions")) if section.has("conventions") else None,
        default_depth=section.integer("default_depth", 0) if section.has("default_depth") else None,
        depth_by_hosts=tuple(sorted(by_hosts.items())),
        origin=section.path,
    )


def _conventions(section: Section) -> Conventions:
    section.only(CONVENTION_NAMES)
    return Conventions(
        norm_offset=section.number("norm_offset"),
        concat_order=section.choice("concat_order", ConcatOrder),
        hidden_tap=section.choice("hidden_tap", HiddenTap),
        chain_tap=section.choice("chain_tap", ChainTap),
        position_rule=section.choice("position_rule", PositionRule),
    )


def _repo(section: Section, key: str) -> str:
    value = section.text(key)
    if not _NAME.fullmatch(value):
        raise section.error(key, f"{value!r} is not OWNER/NAME")
    return value


def _sha(section: Section, key: str) -> str:
    value = section.text(key)
    if not _SHA.fullmatch(value):
        raise section.error(key, f"{value!r} is not a commit of 40 hexadecimal digits")
    return value
