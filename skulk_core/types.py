"""Values that every part speaks in. Imports nothing of ours."""

from dataclasses import dataclass, fields
from enum import StrEnum


class ConcatOrder(StrEnum):
    """Which half of the head's input projection takes the embedding of the next token."""

    EMBEDDING_FIRST = "embedding_first"
    HIDDEN_FIRST = "hidden_first"


class HiddenTap(StrEnum):
    """Which hidden state a head reads: the trunk's output after its final norm, or before it."""

    POST_NORM = "post_norm"
    PRE_NORM = "pre_norm"


class ChainTap(StrEnum):
    """Which output of the head is fed back as the hidden state of the next draft."""

    POST_NORM = "post_norm"
    PRE_NORM = "pre_norm"


class PositionRule(StrEnum):
    """Positions a head's rows take: running with its own cache, or one constant for a whole chain."""

    RUNNING = "running"
    LAST_COMMITTED = "last_committed"
    BEFORE_LAST = "before_last"


@dataclass(frozen=True)
class Conventions:
    """How a head is wired to its trunk. They change acceptance, never the text: verification decides every token."""

    norm_offset: float = 0.0
    concat_order: ConcatOrder = ConcatOrder.EMBEDDING_FIRST
    hidden_tap: HiddenTap = HiddenTap.POST_NORM
    chain_tap: ChainTap = ChainTap.POST_NORM
    position_rule: PositionRule = PositionRule.RUNNING


CONVENTION_NAMES = tuple(field.name for field in fields(Conventions))


class FinishReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"
    LENGTH = "length"
    INTERRUPTED = "interrupted"


class Exactness(StrEnum):
    """What a greedy token is: the argmax of its pass, or where that is doubtful of a pass of its own."""

    ARGMAX = "argmax"
    STRICT = "strict"


@dataclass(frozen=True)
class LayerRange:
    """Half-open range ``[start, end)`` of trunk layers held by one host."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"not a layer range: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Finding:
    """One thing examined. `ok` is False where `advice` should be followed; advice on an `ok` finding is optional."""

    name: str
    value: str
    ok: bool
    advice: str | None = None


@dataclass(frozen=True)
class Report:
    """All findings, in the order of a reader's questions."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)
