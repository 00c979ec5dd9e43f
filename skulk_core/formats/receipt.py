"""A bench receipt, schema 1: what `skulk bench --json` prints and `--out` writes as `bench.json`.

The top object is a `Receipt`: the fields of the dataclasses here and in `receipt_facts.py` under their own names,
preceded by

    "kind": "skulk-bench", "schema": 1

Everything measured stands there as single texts (`Sample`), and every figure can be worked out again from them. Each
arm also has the key `figures` (see `Figures`), so that other programs need not work them out; a reader of ours does,
and refuses a file whose figures are not those of its samples.

Seconds are wall-clock seconds. `tokens` of a sample are those after the first, which comes from the prompt's pass, and
`decode_s` the time that these took; stop tokens end nothing in a benchmark. Speeds are tokens after the first over
their seconds. A speed-up is the ratio of a text's speed to that of the reference arm's text of the same turn and
prompt; medians are of such pairs.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from skulk_core.formats.receipt_facts import (
    MachineRecord,
    ModelRecord,
    PromptsRecord,
    SamplingRecord,
    SidecarRecord,
    StageRecord,
)
from skulk_core.formats.typed_json import encode

KIND, SCHEMA = "skulk-bench", 1
OURS = "skulk"
AUTO = "auto"


@dataclass(frozen=True)
class Sample:
    """One text of one arm: turn and prompt count from 0.

    `peak_nbytes` is MLX's peak, None where another's; of several hosts the greatest, and `peaks_by_rank` has them all.
    """

    turn: int
    prompt: int
    prompt_tokens: int
    prefill_s: float
    tokens: int
    decode_s: float
    peak_nbytes: int | None
    peaks_by_rank: tuple[int, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.decode_s


@dataclass(frozen=True)
class Range:
    """A median with the least and the greatest of what it is the median of."""

    median: float
    least: float
    greatest: float

    @staticmethod
    def of(values: Sequence[float]) -> "Range":
        """Of at least one value."""
        return Range(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Counts:
    """What all rounds of an arm did together.

    `rounds_by_depth` counts rounds by the tokens they drafted; `judged_at[i]` those in which draft i was reached. On
    several hosts `counted_rounds` of the rounds sent `messages` of `message_nbytes` together from rank to rank.
    """

    rounds: int
    rounds_by_depth: dict[str, int]
    tokens: int
    extra_passes: int
    synchronisations: int
    judged_at: tuple[int, ...]
    accepted_at: tuple[int, ...]
    counted_rounds: int = 0
    messages: int = 0
    message_nbytes: int = 0


@dataclass(frozen=True)
class Divergence:
    """A token that plain decoding would not have chosen, the one it would have, and by how much that one's logit leads.

    `position` counts from 0 in the answer to `prompt`.
    """

    prompt: int
    position: int
    emitted: int
    plain: int
    gap: float


@dataclass(frozen=True)
class CertificateRecord:
    """The comparison of an arm's texts with plain decoding: `texts` of them, `compared` tokens, `divergences` in all.

    `bound` is the greatest gap that rounding explains, measured beforehand; `worst` the divergence of the greatest gap.
    """

    texts: int
    compared: int
    divergences: int
    worst: Divergence | None
    smallest_gap: float | None
    bound: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains every divergence."""
        return self.worst is None or self.worst.gap <= self.bound


@dataclass(frozen=True)
class Profile:
    """Where the time of one text went, decoded with a barrier after every part.

    `overhead` is what the barriers cost: its rounds' seconds over those of the same text just before without them, less
    1. On several hosts it is the time of the deciding one, and `link_s` what it waited for rows: links, and layers of
    the others.
    """

    prefill_s: float
    draft_s: float
    verify_s: float
    commit_s: float
    link_s: float
    other_s: float
    tokens: int
    overhead: float

    @property
    def decode_s(self) -> float:
        return self.draft_s + self.verify_s + self.commit_s + self.link_s + self.other_s


@dataclass(frozen=True)
class Figures:
    """What an arm's samples come to. The speed-ups are None without a reference, or for an arm that failed."""

    tokens_per_s: Range | None
    speedup: Range | None
    prefill_s: Range | None
    tokens_per_round: float | None
    acceptance: tuple[float, ...]
    passes: int | None
    peak_nbytes: int | None
    prefill_speedup: Range | None = None


@dataclass(frozen=True)
class Arm:
    """One way of decoding. `depth` is the draft depth of a fixed one, None for `auto` and for other programs.

    `predicted_tokens_per_s` is what isolated costs give for its rounds, all texts together.
    `counts`, `certificate`, `profile` and `predicted_tokens_per_s` are None where there is nothing of the kind: other
    programs have no rounds of ours, drawn tokens no certificate. `failed` says why an arm's speed does not count,
    `skipped` why it was not measured at all.
    """

    name: str
    program: str
    depth: int | None
    samples: tuple[Sample, ...]
    counts: Counts | None
    distinct_4grams: float | None
    same_as_reference: bool | None
    certificate: CertificateRecord | None
    profile: Profile | None
    predicted_tokens_per_s: float | None
    failed: str | None
    skipped: str | None

    @property
    def total_tokens_per_s(self) -> float | None:
        """Tokens of all texts together over their seconds, as predictions have it; None without texts."""
        seconds = sum(sample.decode_s for sample in self.samples)
        return sum(sample.tokens for sample in self.samples) / seconds if seconds else None

    @property
    def peaks_by_rank(self) -> tuple[int, ...]:
        """The greatest peak of each host; empty on one."""
        known = [sample.peaks_by_rank for sample in self.samples if sample.peaks_by_rank]
        return tuple(max(peaks) for peaks in zip(*known, strict=False))

    @property
    def is_ours(self) -> bool:
        return self.program == OURS

    @property
    def counts_for_speed(self) -> bool:
        """Whether it was measured and nothing is wrong with it."""
        return bool(self.samples) and self.failed is None


@dataclass(frozen=True)
class CostsRecord:
    """Median seconds of the parts of a round by themselves: passes by width, drafts by depth, commits by width.

    `lap_s`, on several hosts: what of a pass by width is waiting for the rows, that is links and the layers of others.
    """

    verify_s: dict[str, float]
    draft_s: dict[str, float]
    settle_s: dict[str, float]
    commit_s: float
    lap_s: dict[str, float] = field(default_factory=dict)

    def round_s(self, depth: int) -> float | None:
        """Seconds of a round at ``depth`` as the sum of its parts; None if one of them was not measured."""
        if depth == 0:
            return self.verify_s["1"] + self.commit_s if "1" in self.verify_s else None
        width = str(depth + 1)
        parts = (self.draft_s.get(str(depth)), self.verify_s.get(width), self.settle_s.get(width))
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


@dataclass(frozen=True)
class Case:
    """Arms that were measured in turn, on the same prompts.

    `reference_by_turn` are median seconds a token of the reference arm in each turn over those of the first: what the
    machine's speed did meanwhile; of a single turn its first text, decoded once more at the end. `losses` counts how
    often a host was lost and came back; what that disturbed was measured again.
    """

    name: str
    tokens: int
    turns: int
    prompts: PromptsRecord
    sampling: SamplingRecord
    exactness: str
    reference: str
    reference_by_turn: tuple[float, ...]
    costs: CostsRecord | None
    arms: tuple[Arm, ...]
    losses: int = 0

    @property
    def drift(self) -> float | None:
        """By how much slower the last turn was than the first; None if there was but one."""
        return self.reference_by_turn[-1] - 1 if len(self.reference_by_turn) > 1 else None

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature == 0

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def figures(self, arm: Arm) -> Figures:
        """What the arm's samples come to."""
        counts = arm.counts
        peaks = [sample.peak_nbytes for sample in arm.samples if sample.peak_nbytes is not None]
        return Figures(
            Range.of([sample.tokens_per_s for sample in arm.samples]) if arm.samples else None,
            self._paired(arm, lambda sample: sample.decode_s / sample.tokens),
            Range.of([sample.prefill_s for sample in arm.samples]) if arm.samples else None,
            counts.tokens / counts.rounds if counts is not None and counts.rounds else None,
            () if counts is None else _shares(counts),
            None if counts is None else counts.rounds + counts.extra_passes,
            max(peaks) if peaks else None,
            self._paired(arm, lambda sample: sample.prefill_s),
        )

    def _paired(self, arm: Arm, seconds: Callable[[Sample], float]) -> Range | None:
        """The reference's time over the arm's, on the same texts."""
        reference = self.arm(self.reference)
        if reference is None or not arm.counts_for_speed:
            return None
        theirs = {(sample.turn, sample.prompt): seconds(sample) for sample in reference.samples}
        pairs = [(theirs.get((sample.turn, sample.prompt)), seconds(sample)) for sample in arm.samples]
        ratios = [plain / ours for plain, ours in pairs if plain is not None and ours > 0]
        return Range.of(ratios) if ratios else None

    @property
    def best(self) -> Arm | None:
        """Of our arms the fastest, or a shallower one within 2 % of it; None if none can be compared."""
        speeds = {}
        for arm in self.arms:
            found = self.figures(arm).speedup if arm.is_ours else None
            if found is not None:
                speeds[arm.name] = found.median
        if not speeds:
            return None
        enough = max(speeds.values()) / 1.02
        return next(arm for arm in self.arms if speeds.get(arm.name, 0.0) >= enough)


@dataclass(frozen=True)
class Receipt:
    """One benchmark. `started` is UTC; `hosts` their number.

    `link_delay_ms` is a delay that was added one way to every link between neighbours, `link_rate_mbps` the Mbit/s that
    each was limited to, None if it was not. `stages` are the hosts' parts, empty on one.

    One that ended early is not `complete`, holds what was measured until then, and says why in `ended_by`.
    `left_out` are cases of a suite that the model's context is too short for. `shard` and `backend` are how several
    hosts divided the model and what carried rows between them, as the options of these names; empty on one host.
    """

    complete: bool
    started: str
    took_s: float
    command: str
    versions: dict[str, str | None]
    machine: MachineRecord
    hosts: int
    link_delay_ms: float
    model: ModelRecord
    sidecar: SidecarRecord | None
    cases: tuple[Case, ...]
    link_rate_mbps: float | None = None
    stages: tuple[StageRecord, ...] = ()
    ended_by: str = ""
    left_out: tuple[str, ...] = ()
    shard: str = ""
    backend: str = ""

    @property
    def why_incomplete(self) -> str:
        """Why it ended early, in words; receipts of earlier versions could only be interrupted."""
        return self.ended_by or "it was interrupted"

    @property
    def links_made(self) -> str:
        """What every link between neighbours was made to be, in words; empty where nothing was changed."""
        delay = f"{self.link_delay_ms:g} ms one way" if self.link_delay_ms else ""
        rate = "" if self.link_rate_mbps is None else f"{self.link_rate_mbps:g} Mbit/s"
        return ", ".join(filter(None, (delay, rate)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, figures included."""
        data = {"kind": KIND, "schema": SCHEMA, **encode(self)}
        for case, written in zip(self.cases, data["cases"], strict=True):
            for arm, into in zip(case.arms, written["arms"], strict=True):
                into["figures"] = encode(case.figures(arm))
        return data

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _shares(counts: Counts) -> tuple[float, ...]:
    pairs = zip(counts.judged_at, counts.accepted_at, strict=True)
    return tuple(accepted / judged for judged, accepted in pairs if judged)
