"""A case from its costs to its certificates, and what is known of it whenever somebody stops it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from skulk_core.bench.arms import ArmRun, CaseRun, run_case
from skulk_core.bench.costs import Costs
from skulk_core.bench.instruments import Instruments
from skulk_core.bench.steady import SteadyRing
from skulk_core.bench.texts import certified, distinct_4grams, why_failed
from skulk_core.bench.workload import REFERENCE, ArmSpec, Workload
from skulk_core.decode.engine import Engine
from skulk_core.formats.receipt import Arm, Case, CertificateRecord, CostsRecord, Profile
from skulk_core.formats.receipt_facts import SamplingRecord
from skulk_core.sampling.settings import SamplingSettings


class Watch(Protocol):
    """Whoever waits for a measurement."""

    def check(self) -> None:
        """Called between rounds and parts; may raise to stop everything."""
        ...

    def step(self, description: str) -> None:
        """Something began that cannot say how far it is."""
        ...

    def texts(self, case: CaseRun) -> None:
        """A text was decoded."""
        ...

    def replayed(self, done: int, total: int) -> None:
        """So many tokens were compared with plain decoding."""
        ...


@dataclass(frozen=True)
class Bench:
    """What decodes, and what measures it; without ``instruments`` there are no isolated costs and no profiles."""

    engine: Engine
    instruments: Instruments | None
    certify: bool = True
    profile: bool = True


@dataclass
class Measurement:
    """One case: what was measured of it so far."""

    run: CaseRun
    costs: Costs | None = None
    certificates: dict[str, CertificateRecord] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)

    @staticmethod
    def of(workload: Workload, arms: Sequence[ArmSpec]) -> "Measurement":
        """One that has not begun."""
        return Measurement(CaseRun(workload, [ArmRun(arm) for arm in arms]))

    def record(self) -> Case:
        """As a receipt has it."""
        work, costs = self.run.workload, self.costs
        return Case(
            name=work.name,
            tokens=work.num_tokens,
            turns=work.num_turns,
            prompts=work.described,
            sampling=_sampling_record(work.settings),
            exactness=work.exactness.value if work.settings.is_greedy else "distribution",
            reference=REFERENCE,
            reference_by_turn=tuple(self.run.reference_by_turn),
            costs=None if costs is None else _costs_record(costs),
            arms=tuple(self._arm(arm) for arm in self.run.arms),
            losses=self.run.losses,
        )

    def _arm(self, arm: ArmRun) -> Arm:
        spec, certificate = arm.spec, self.certificates.get(arm.spec.name)
        reference, greedy = self.run.reference.texts, self.run.workload.settings.is_greedy
        compared = [tokens == reference[key] for key, tokens in arm.texts.items() if key in reference]
        return Arm(
            name=spec.name,
            program=spec.program,
            depth=spec.depth,
            samples=tuple(arm.samples),
            counts=arm.counts,
            distinct_4grams=distinct_4grams(list(arm.texts.values())),
            same_as_reference=all(compared) if greedy and compared else None,
            certificate=certificate,
            profile=self.profiles.get(spec.name),
            predicted_tokens_per_s=None if self.costs is None else predicted(arm, self.costs),
            failed=why_failed(certificate) if spec.peer is None and certificate is not None else None,
            skipped=arm.skipped,
        )


def measure(bench: Bench, measurement: Measurement, watch: Watch) -> None:
    """Measure the case, into ``measurement``. Whatever ``watch`` raises ends it; what there is until then stays.

    Raises `RingChanged` where hosts are lost for good; what they disturb before they are back is measured again.
    """
    run, instruments, ring = measurement.run, bench.instruments, SteadyRing(bench.engine)
    ours = [arm for arm in run.arms if arm.spec.peer is None]

    def costs(measuring: Instruments) -> Costs:
        return ring.measured(lambda: _costs(measuring, run.workload, _depths(ours), watch))

    before = None if instruments is None else costs(instruments)
    run_case(bench.engine, run, watch.check, watch.texts, ring)
    if instruments is not None and before is not None:
        # taken before and after: machines drift
        measurement.costs = before.mean(costs(instruments))
    if instruments is not None and bench.profile:
        for arm in ours:
            watch.step(f"profiling {arm.spec.name}")
            found = ring.measured(partial(instruments.profile, arm.spec, run.workload, watch.check))
            measurement.profiles[arm.spec.name] = found
    run.losses = ring.losses
    if bench.certify and run.workload.settings.is_greedy:
        for name, certificate in certified(bench.engine, run, watch.replayed):
            ring.require()
            measurement.certificates[name] = certificate
            watch.check()


def predicted(arm: ArmRun, costs: Costs) -> float | None:
    """Tokens a second that the isolated costs of this arm's rounds give; None for an arm without rounds.

    A depth that was not measured, as that of a text's last round, is taken to cost what the next deeper one does.
    """
    if not arm.rounds:
        return None
    measured = sorted({0, *costs.draft_s})

    def round_s(depth: int) -> float:
        return costs.round_s(next((known for known in measured if known >= depth), measured[-1]))

    seconds = sum(number * round_s(depth) for depth, number in arm.rounds_by_depth.items())
    return arm.tokens / (seconds + arm.extra_passes * round_s(0))


def _depths(arms: Sequence[ArmRun]) -> list[int]:
    """Every depth that an arm drafts with; all of them up to the greatest where the depth is chosen."""
    fixed = {arm.spec.depth for arm in arms if arm.spec.depth is not None}
    chosen = [arm.spec.make_policy().most for arm in arms if arm.spec.make_policy is not None]
    return sorted(fixed | set(range(max(chosen, default=0) + 1)) | {0})


def _costs(instruments: Instruments, work: Workload, depths: Sequence[int], watch: Watch) -> Costs:
    """Isolated costs in the middle of a text of this case."""
    watch.step("measuring the parts of a round")
    every = [token for prompt in work.prompts for token in prompt]
    middle = max(len(work.prompts[0]) + work.num_tokens // 2, max(depths) + 2)
    text = (every * (middle // len(every) + 1))[:middle]
    return instruments.costs(text, depths, work.settings, watch.check)


def _costs_record(costs: Costs) -> CostsRecord:
    def keyed(values: dict[int, float]) -> dict[str, float]:
        return {str(key): seconds for key, seconds in sorted(values.items())}

    return CostsRecord(
        keyed(costs.verify_s), keyed(costs.draft_s), keyed(costs.settle_s), costs.commit_s, keyed(costs.lap_s)
    )


def _sampling_record(settings: SamplingSettings) -> SamplingRecord:
    bias = {str(token): None if value == float("-inf") else value for token, value in settings.logit_bias}
    return SamplingRecord(
        settings.temperature,
        settings.top_p,
        settings.top_k,
        settings.min_p,
        settings.repetition_penalty,
        settings.presence_penalty,
        settings.frequency_penalty,
        bias,
        settings.seed,
        settings.accept.value,
    )
