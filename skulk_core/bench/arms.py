"""The arms of a case, decoded in turn on the same prompts: A B C A B C …

Whatever the machine does meanwhile hits all arms alike, and the reference arm tells how much that was.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from skulk_core.bench.steady import SteadyRing
from skulk_core.bench.workload import REFERENCE, ArmSpec, Check, Peer, Skipped, Workload
from skulk_core.decode.depth import DepthPolicy
from skulk_core.decode.engine import Engine
from skulk_core.decode.stats import Stats
from skulk_core.formats.receipt import Counts, Sample

# New tokens of the text that every arm decodes before anything counts: every width and kernel is used by then.
_WARM_UP_TOKENS = 48
# Completions have their full length, whatever the model would end with: arms that differ there could not be compared.
_NO_STOPS: frozenset[int] = frozenset()


@dataclass
class ArmRun:
    """One arm while it is measured. ``texts[turn, prompt]`` are the tokens of its answers."""

    spec: ArmSpec
    samples: list[Sample] = field(default_factory=list)
    texts: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    rounds: int = 0
    rounds_by_depth: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    extra_passes: int = 0
    synchronisations: int = 0
    judged_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    counted_rounds: int = 0
    messages: int = 0
    message_nbytes: int = 0

    @property
    def skipped(self) -> str | None:
        """Why it is not measured."""
        return self.spec.peer.reason if isinstance(self.spec.peer, Skipped) else None

    @property
    def median_s_per_token(self) -> float | None:
        """Of all texts so far."""
        return statistics.median(s.decode_s / s.tokens for s in self.samples) if self.samples else None

    @property
    def counts(self) -> Counts | None:
        """What its rounds did; None for an arm without rounds of ours."""
        if not self.rounds:
            return None
        by_depth = {str(depth): number for depth, number in sorted(self.rounds_by_depth.items())}
        judged, accepted = tuple(self.judged_at), tuple(self.accepted_at)
        return Counts(
            rounds=self.rounds,
            rounds_by_depth=by_depth,
            tokens=self.tokens,
            extra_passes=self.extra_passes,
            synchronisations=self.synchronisations,
            judged_at=judged,
            accepted_at=accepted,
            counted_rounds=self.counted_rounds,
            messages=self.messages,
            message_nbytes=self.message_nbytes,
        )

    def count(self, stats: Stats, depths: Iterable[int]) -> None:
        """Add a text's rounds, and how many tokens each drafted."""
        self.rounds_by_depth.update(depths)
        self.rounds += stats.rounds
        self.tokens += stats.tokens
        self.extra_passes += stats.extra_passes
        self.synchronisations += stats.synchronisations
        self.counted_rounds += stats.counted_rounds
        self.messages += stats.messages
        self.message_nbytes += stats.message_nbytes
        while len(self.judged_at) < len(stats.judged_at):
            self.judged_at.append(0)
            self.accepted_at.append(0)
        for position, (judged, accepted) in enumerate(zip(stats.judged_at, stats.accepted_at, strict=True)):
            self.judged_at[position] += judged
            self.accepted_at[position] += accepted


@dataclass
class CaseRun:
    """A case while it is measured: what there is when somebody stops it is what was measured until then."""

    workload: Workload
    arms: list[ArmRun]
    reference_by_turn: list[float] = field(default_factory=list)
    num_done: int = 0
    losses: int = 0

    @property
    def num_texts(self) -> int:
        """Texts to decode, those that warm up included."""
        measured = [arm for arm in self.arms if arm.skipped is None]
        closing = 1 if self.workload.num_turns == 1 else 0
        return len(measured) * (1 + self.workload.num_turns * len(self.workload.prompts)) + closing

    @property
    def reference(self) -> ArmRun:
        """Depth 0."""
        return next(arm for arm in self.arms if arm.spec.name == REFERENCE)


@dataclass(frozen=True)
class _Text:
    """One text: its times, its tokens, and how many tokens each of its rounds drafted."""

    sample: Sample
    tokens: tuple[int, ...]
    depths: tuple[int, ...]


def run_case(
    engine: Engine, case: CaseRun, check: Check, watch: Callable[[CaseRun], None], ring: SteadyRing | None = None
) -> None:
    """Decode every prompt in every arm, turn after turn, into ``case``; one of its arms must be `REFERENCE`.

    The first prompt is begun in every arm before anything counts. ``check`` is called between rounds and may raise;
    ``watch`` after every text. A text in which a host of ``ring`` was lost is decoded again; for another ring it ends
    with `RingChanged`.
    """
    ring = SteadyRing(engine) if ring is None else ring
    arms = [arm for arm in case.arms if arm.skipped is None]
    assert any(arm.spec.name == REFERENCE for arm in arms), "no reference arm"
    work = case.workload

    warm_up = min(work.num_tokens, _WARM_UP_TOKENS)

    def one(arm: ArmRun, turn: int, prompt: int, num_tokens: int) -> _Text:
        text = decode_text(engine, arm.spec, work, turn, prompt, num_tokens, check)
        while ring.disturbed():
            for other in arms:
                # on the new ring nobody has used a kernel yet, or measured what rounds cost
                decode_text(engine, other.spec, work, 0, 0, warm_up, check)
                ring.disturbed()
            text = decode_text(engine, arm.spec, work, turn, prompt, num_tokens, check)
        case.num_done += 1
        case.losses = ring.losses
        return text

    for arm in arms:
        one(arm, 0, 0, warm_up)
        watch(case)
    for turn in range(work.num_turns):
        for prompt in range(len(work.prompts)):
            for arm in arms:
                text = one(arm, turn, prompt, work.num_tokens)
                arm.samples.append(text.sample)
                arm.texts[turn, prompt] = text.tokens
                if arm.spec.peer is None:
                    arm.count(engine.stats, text.depths)
                watch(case)
        _note_turn(case, [sample for sample in case.reference.samples if sample.turn == turn])
    if work.num_turns == 1:
        # one turn tells nothing about drift: its first text is decoded once more
        _note_turn(case, [one(case.reference, 0, 0, work.num_tokens).sample])
        watch(case)


def _note_turn(case: CaseRun, samples: Sequence[Sample]) -> None:
    """What the machine's speed has done since the first turn: the median over prompts."""
    first = {sample.prompt: sample.decode_s / sample.tokens for sample in case.reference.samples if sample.turn == 0}
    case.reference_by_turn.append(statistics.median(s.decode_s / s.tokens / first[s.prompt] for s in samples))


def decode_text(
    engine: Engine,
    spec: ArmSpec,
    work: Workload,
    turn: int,
    prompt: int,
    num_tokens: int,
    check: Check,
) -> _Text:
    """One text of an arm."""
    fed, settings = work.prompts[prompt], work.settings_of(turn, prompt)
    engine.reset_peaks()
    if isinstance(spec.peer, Peer):
        theirs = spec.peer.decode(fed, num_tokens, settings, check)
        assert len(theirs.tokens) == num_tokens, f"{spec.name} decoded {len(theirs.tokens)} of {num_tokens} tokens"
        following = num_tokens - theirs.num_first
        sample = Sample(turn, prompt, len(fed), theirs.prefill_s, following, theirs.decode_s, None)
        return _Text(sample, theirs.tokens, ())
    depths: list[int] = []
    with engine.working():
        began = time.perf_counter()
        tokens = [engine.prefill(fed, _depth_of(spec), settings, work.exactness)]
        filled = time.perf_counter()
        for round_ in engine.rounds(num_tokens - 1, _NO_STOPS):
            tokens += round_.tokens
            depths.append(round_.num_drafted)
            check()
        ended = time.perf_counter()
    if engine.stats.full is not None:
        # drafted less and cut short: no measurement of this depth
        raise engine.stats.full
    peaks = engine.peaks()
    by_rank = peaks if len(peaks) > 1 else ()
    sample = Sample(
        turn, prompt, len(fed), filled - began, len(tokens) - 1, ended - filled, max(peaks, default=0) or None, by_rank
    )
    return _Text(sample, tuple(tokens), tuple(depths))


def _depth_of(spec: ArmSpec) -> int | DepthPolicy:
    if spec.make_policy is not None:
        return spec.make_policy()
    assert spec.depth is not None, f"{spec.name} has no depth"
    return spec.depth
