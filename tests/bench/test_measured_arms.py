"""Arms are measured in turn, and an arm whose text is not plain decoding's has failed, however fast it was."""

from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from demo import demo, demo_head

from skulk_core.bench.arms import CaseRun
from skulk_core.bench.instruments import LocalInstruments
from skulk_core.bench.measure import Bench, Measurement, measure
from skulk_core.bench.prompts import encode, named_set
from skulk_core.bench.tables import notes
from skulk_core.bench.texts import distinct_4grams
from skulk_core.bench.workload import ArmSpec, Local, Skipped, Workload
from skulk_core.decode.engine import LocalEngine
from skulk_core.decode.session import Session
from skulk_core.decode.stats import Round
from skulk_core.formats.receipt import Case
from skulk_core.sampling.settings import SamplingSettings

TOKENS = 16


class Quiet:
    """A watch that stops after so many texts."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.order = stop_after, list[str]()

    def check(self) -> None:
        return

    def step(self, description: str) -> None:
        return

    def texts(self, case: CaseRun) -> None:
        if case.num_done == self.stop_after:
            raise KeyboardInterrupt

    def replayed(self, done: int, total: int) -> None:
        return


class Noting(LocalEngine):
    """Notes at which depth texts were begun; at `wrong_at` it emits a token of its own."""

    def __init__(self, wrong_at: int | None = None) -> None:
        super().__init__(demo().target, demo().tokenizer, demo_head().head)
        self.begun: list[int] = []
        self.wrong_at = wrong_at

    def prefill(self, prompt: Sequence[int], depth: Any, *args: Any, **options: Any) -> int:
        self.begun.append(depth)
        return super().prefill(prompt, depth, *args, **options)

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        for number, round_ in enumerate(super().rounds(max_tokens, stop_tokens)):
            if number == 1 and self.begun[-1] == self.wrong_at:
                round_ = Round((7, *round_.tokens[1:]), round_.num_drafted, round_.num_accepted)
            yield round_


class Clocked(Noting):
    """Every prompt takes three seconds of its clock, every round two."""

    now_s = 0.0

    def prefill(self, prompt: Sequence[int], depth: Any, *args: Any, **options: Any) -> int:
        self.now_s += 3.0
        return super().prefill(prompt, depth, *args, **options)

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        for round_ in super().rounds(max_tokens, stop_tokens):
            self.now_s += 2.0
            yield round_


def workload(num_turns: int = 2, **settings: Any) -> Workload:
    model = demo()
    session = Session(model, demo_head().head)
    fed, described = encode(session, named_set("docs"), raw=True, context=None)
    return Workload("docs", fed[:2], described, TOKENS, num_turns, SamplingSettings(**settings))


def measured(
    engine: LocalEngine, work: Workload, arms: Sequence[ArmSpec], watch: Quiet, *, profile: bool = False
) -> Case:
    local = Local(demo().target, demo().tokenizer, demo_head().head) if profile else None
    measurement = Measurement.of(work, arms)
    try:
        instruments = LocalInstruments(engine, local) if local is not None else None
        measure(Bench(engine, instruments, profile=profile), measurement, watch)
    except KeyboardInterrupt:
        assert watch.stop_after is not None
    return measurement.record()


def test_arms_take_turns_on_every_prompt() -> None:
    """One arm after another would give all the drift of the machine to the last."""
    engine = Noting()
    case = measured(engine, workload(), [ArmSpec.fixed(0), ArmSpec.fixed(2)], Quiet())
    assert engine.begun == [0, 2] * 5  # the warm-up, and two turns over two prompts
    assert [len(arm.samples) for arm in case.arms] == [4, 4]
    assert case.drift is not None
    assert case.reference_by_turn[0] == 1.0


def test_all_the_time_that_a_text_takes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed is believed; whether half its seconds were left out, no figure of a receipt would show."""
    engine = Clocked()
    monkeypatch.setattr("skulk_core.bench.arms.time", SimpleNamespace(perf_counter=lambda: engine.now_s))
    case = measured(engine, workload(), [ArmSpec.fixed(0), ArmSpec.fixed(2)], Quiet())
    for arm in case.arms:
        assert {sample.prefill_s for sample in arm.samples} == {3.0}
        assert arm.counts is not None
        assert sum(sample.decode_s for sample in arm.samples) == 2.0 * arm.counts.rounds
        assert sum(sample.tokens for sample in arm.samples) == arm.counts.tokens
        assert arm.total_tokens_per_s == arm.counts.tokens / (2.0 * arm.counts.rounds)
    assert case.arms[0].samples[0].decode_s == 2.0 * (TOKENS - 1)


def test_one_turn_still_tells_of_drift() -> None:
    engine = Noting()
    case = measured(engine, workload(num_turns=1), [ArmSpec.fixed(0), ArmSpec.fixed(1)], Quiet())
    assert engine.begun[-1] == 0
    assert len(case.reference_by_turn) == 2
    assert "first text when that was decoded again" in " ".join(notes(case))


def test_every_arm_is_counted_and_certified() -> None:
    case = measured(Noting(), workload(), [ArmSpec.fixed(0), ArmSpec.fixed(3)], Quiet())
    plain, deep = case.arms
    for arm in case.arms:
        assert arm.failed is None
        assert arm.same_as_reference is True
        assert arm.certificate is not None
        assert (arm.certificate.texts, arm.certificate.compared) == (2, 2 * TOKENS)
        assert arm.counts is not None
        assert arm.counts.tokens == 4 * (TOKENS - 1) == sum(sample.tokens for sample in arm.samples)
        assert sum(arm.counts.rounds_by_depth.values()) == arm.counts.rounds
        assert arm.counts.synchronisations >= arm.counts.rounds
    assert deep.counts is not None
    assert plain.counts is not None
    assert deep.counts.rounds < plain.counts.rounds
    assert all(sample.peak_nbytes for sample in deep.samples)


def test_a_wrong_text_fails_its_arm_alone() -> None:
    """The fastest way to decode is to decode something else."""
    case = measured(Noting(wrong_at=2), workload(), [ArmSpec.fixed(0), ArmSpec.fixed(1), ArmSpec.fixed(2)], Quiet())
    plain, shallow, wrong = case.arms
    assert wrong.failed is not None
    assert "is 7 where plain decoding takes" in wrong.failed
    assert wrong.same_as_reference is False
    assert case.figures(wrong).speedup is None
    assert case.best is not wrong
    assert plain.failed is shallow.failed is None


def test_what_was_measured_before_an_interrupt_is_kept() -> None:
    case = measured(Noting(), workload(), [ArmSpec.fixed(0), ArmSpec.fixed(1)], Quiet(stop_after=5))
    assert [len(arm.samples) for arm in case.arms] == [2, 1]
    assert all(arm.certificate is None for arm in case.arms)


def test_an_arm_that_cannot_be_measured_says_why() -> None:
    skipped = ArmSpec.other("mlx-lm", "assisted", Skipped("no second model"))
    case = measured(Noting(), workload(num_turns=1), [skipped, ArmSpec.fixed(0)], Quiet())
    assert case.arms[0].skipped == "no second model"
    assert case.arms[0].samples == ()


def test_the_profile_names_where_the_time_goes() -> None:
    """With much of it unnamed nobody could tell what to make faster."""
    case = measured(Noting(), workload(num_turns=1), [ArmSpec.fixed(0), ArmSpec.fixed(2)], Quiet(), profile=True)
    for arm in case.arms:
        assert arm.profile is not None
        assert arm.profile.other_s <= 0.3 * arm.profile.decode_s
        assert (arm.profile.draft_s > 0) == (arm.depth != 0)
        assert arm.predicted_tokens_per_s is not None
    assert case.costs is not None
    assert set(case.costs.verify_s) == {"1", "3"}


def test_drawn_texts_have_seeds_of_their_own_and_no_certificate() -> None:
    case = measured(Noting(), workload(temperature=0.9), [ArmSpec.fixed(0), ArmSpec.fixed(2)], Quiet())
    assert all(arm.certificate is None and arm.same_as_reference is None for arm in case.arms)
    assert case.exactness == "distribution"
    work = workload(temperature=0.9)
    assert len({work.settings_of(turn, prompt).seed for turn in range(2) for prompt in range(2)}) == 4


def test_loops_show_in_distinct_4grams() -> None:
    """Acceptance on a text that repeats itself says nothing of other texts."""
    assert distinct_4grams([[1, 2, 3, 4, 5, 6, 7]]) == 1.0
    assert distinct_4grams([[1, 2] * 50]) == pytest.approx(2 / 97)
    assert distinct_4grams([[1, 2, 3]]) is None


@pytest.mark.parametrize("length", [60, 700])
def test_a_context_has_the_length_asked_for(length: int) -> None:
    session = Session(demo(), None)
    fed, described = encode(session, named_set("prose"), raw=True, context=length)
    assert [len(prompt) for prompt in fed] == [length] * 4 == list(described.tokens)
    alone = encode(session, named_set("prose"), raw=True, context=None)[0]
    # the prompt itself stands at the end
    assert fed[0][-10:] == alone[0][-10:]
