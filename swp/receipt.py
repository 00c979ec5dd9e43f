"""A bench receipt: what `skulk bench --json` printed, read back to be quoted on a card."""

import math
from dataclasses import dataclass
from pathlib import Path

from skulk_core.formats.json_file import JsonSection, read_json

SCHEMA = 1
_REFERENCE = 0


@dataclass(frozen=True)
class Arm:
    """One arm: a draft depth, or another program. `acceptance` is by draft position, of those reached."""

    name: str
    depth: int | None
    tokens_per_s: float
    speedup: float
    tokens_per_round: float | None
    acceptance: tuple[float, ...]
    same_as_reference: bool


@dataclass(frozen=True)
class Receipt:
    """One benchmark of one model: `runs` runs over `prompts` prompts, `tokens` tokens each."""

    model: str
    tokens: int
    runs: int
    prompts: int
    arms: tuple[Arm, ...]

    @property
    def best_depth(self) -> int:
        """The draft depth that was fastest; 0 is plain decoding."""
        return max((arm for arm in self.arms if arm.depth is not None), key=lambda arm: arm.speedup).depth or 0


def read_receipt(path: Path) -> Receipt:
    """Read the file `path`.

    Raises `FileError` if it cannot be read, `FormatError` naming the key if it is not such a receipt, or one without
    plain decoding or without a draft head: a card has nothing to quote from it.
    """
    top = read_json(path)
    if (schema := top.integer("schema", 1)) != SCHEMA:
        raise top.error("schema", f"is {schema}; this program reads schema {SCHEMA}")
    depths = [_depth(section) for section in top.sections("arms")]
    arms = tuple(_arm(section) for section in top.sections("arms"))
    if _REFERENCE not in depths:
        raise top.error("arms", "has no arm of depth 0, which the others are compared with")
    if not any(depths):
        raise top.error("arms", "has no arm with a draft head")
    return Receipt(top.text("model"), top.integer("tokens", 1), top.integer("runs", 1), top.integer("prompts", 1), arms)


def _depth(section: JsonSection) -> int | None:
    """The draft depth of an arm, None for another program's."""
    if isinstance(section.data.get("arm"), str):
        section.text("arm")
        return None
    return section.integer("arm")


def _arm(section: JsonSection) -> Arm:
    depth = _depth(section)
    acceptance = section.data.get("acceptance")
    if not isinstance(acceptance, list) or not all(_is_share(share) for share in acceptance):
        raise section.error("acceptance", f"must be a list of numbers from 0 to 1, not {acceptance!r}")
    return Arm(
        section.text("arm") if depth is None else str(depth),
        depth,
        _positive(section, "tokens_per_s"),
        _positive(section, "speedup"),
        _positive(section, "tokens_per_round") if section.has("tokens_per_round") else None,
        tuple(float(share) for share in acceptance),
        section.boolean("same_as_reference"),
    )


def _positive(section: JsonSection, key: str) -> float:
    value = section.number(key)
    if not math.isfinite(value) or value <= 0:
        raise section.error(key, f"must be a number above 0, not {value!r}")
    return value


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
