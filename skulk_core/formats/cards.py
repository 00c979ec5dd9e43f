"""The `cards` of a person's own `catalog.yaml`: how one model is to be run on their machines.

    schema: 1
    entries: []
    cards:
      - model: OWNER/NAME         # or `demo`, or the path of a folder or GGUF file
        default_depth: 2          # tokens to draft on one host: a number, or auto
        depth_by_hosts: {2: 1}    # from so many hosts on, another depth, or auto
        sidecar: OWNER/NAME       # or a path: the draft head to take
        dtype: float32            # as the options of these names
        head_precision: 8bit

An entry speaks of a base model and all its variants; a card of one model exactly, and wins over every entry. All keys
but `model` may be left out. A model stands at most once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skulk_core.formats.section import is_integer
from skulk_core.formats.suggest import near_miss
from skulk_core.formats.yaml_file import Section, parse_yaml, read_text

SCHEMA = 1
LIST = "cards"
AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("trunk", *DTYPES, "8bit", "4bit")
_KEYS = ("model", "default_depth", "depth_by_hosts", "sidecar", "dtype", "head_precision")

Depth = int | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """How `model` is run. None, or no pairs, where it is silent. `depth_by_hosts` are pairs (hosts, depth), rising."""

    model: str
    default_depth: Depth | None = None
    depth_by_hosts: tuple[tuple[int, Depth], ...] = ()
    sidecar: str | None = None
    dtype: str | None = None
    head_precision: str | None = None

    def depth(self, num_hosts: int) -> Depth | None:
        """The depth on `num_hosts` hosts: of the largest host count listed that is not above it, else the default."""
        listed = [depth for hosts, depth in self.depth_by_hosts if hosts <= num_hosts]
        return listed[-1] if listed else self.default_depth

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self == Card(model=self.model)


def read_cards(path: Path) -> tuple[Card, ...]:
    """Cards of a catalog file, in its order; none if it has no such list.

    Raises `FileError` if it cannot be read, `FormatError` naming line and key if it breaks the schema.
    """
    return cards_of(parse_yaml(path, read_text(path), SCHEMA))


def cards_of(top: Section) -> tuple[Card, ...]:
    """Cards of a file whose top level is `top`. Raises `FormatError`."""
    if not top.has(LIST):
        return ()
    cards: list[Card] = []
    for section in top.sections(LIST):
        card = read_card(section)
        if any(card.model == known.model for known in cards):
            raise section.error("model", f"{card.model} has two cards")
        cards.append(card)
    return tuple(cards)


def read_card(section: Section) -> Card:
    """One card. Raises `FormatError`."""
    section.only(_KEYS)
    by_hosts = _depth_by_hosts(section.section("depth_by_hosts")) if section.has("depth_by_hosts") else {}
    return Card(
        model=section.text("model"),
        default_depth=_depth(section, "default_depth") if section.has("default_depth") else None,
        depth_by_hosts=tuple(sorted(by_hosts.items())),
        sidecar=section.text("sidecar") if section.has("sidecar") else None,
        dtype=_one_of(section, "dtype", DTYPES),
        head_precision=_one_of(section, "head_precision", PRECISIONS),
    )


def card_mapping(card: Card) -> dict[str, Any]:
    """The card as it is written in YAML: keys in this page's order, without those that have nothing to say."""
    values: dict[str, Any] = {key: getattr(card, key) for key in _KEYS}
    values["depth_by_hosts"] = dict(card.depth_by_hosts) or None
    return {key: value for key, value in values.items() if value is not None}


def _depth(section: Section, key: Any) -> Depth:
    value = section.data[key]
    if value == AUTO:
        return "auto"
    if not is_integer(value) or value < 0:
        raise section.error(key, f"must be a whole number from 0, or auto, not {value!r}")
    return int(value)


def _depth_by_hosts(section: Section) -> dict[int, Depth]:
    for number in section.data:
        if not is_integer(number) or number < 1:
            raise section.error(number, "must be a whole number from 1")
    return {int(number): _depth(section, number) for number in section.data}


def _one_of(section: Section, key: str, known: tuple[str, ...]) -> str | None:
    if not section.has(key):
        return None
    value = section.text(key)
    if value not in known:
        raise section.error(key, f"{value!r} is not one of {', '.join(known)}{near_miss(value, known)}")
    return value
