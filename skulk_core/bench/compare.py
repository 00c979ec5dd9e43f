"""Two receipts side by side: ratios with their spread, and everything that makes them incomparable."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from skulk_core.formats.receipt import Arm, Case, Range, Receipt
from skulk_core.formats.receipt_facts import SidecarRecord

# the middle nine tenths of the ratios
_LOW, _HIGH = 0.05, 0.95


@dataclass(frozen=True)
class ArmRatio:
    """One arm of both. ``speed`` is the second's tok/s over the first's; ``gain`` the same of speed-ups."""

    case: str
    arm: str
    first_tokens_per_s: float
    second_tokens_per_s: float
    speed: Range
    gain: float | None

    @property
    def is_clear(self) -> bool:
        """Whether nine tenths of the ratios lie on one side of 1."""
        return self.speed.least > 1 or self.speed.greatest < 1


@dataclass(frozen=True)
class Comparison:
    """``differences`` are what was not the same, a sentence each; ``unmatched`` arms that only one of them has."""

    differences: tuple[str, ...]
    ratios: tuple[ArmRatio, ...]
    unmatched: tuple[str, ...]


def compare(first: Receipt, second: Receipt) -> Comparison:
    """Compare arm by arm, in cases that decode the same thing."""
    ratios, unmatched = [], []
    pairs = list(_cases(first, second))
    for ours, theirs in pairs:
        for arm in ours.arms:
            other = theirs.arm(arm.name)
            ratio = None if other is None else _ratio(ours, arm, theirs, other)
            if ratio is None:
                unmatched.append(f"{ours.name}: {arm.name}")
            else:
                ratios.append(ratio)
        unmatched += [f"{theirs.name}: {arm.name}" for arm in theirs.arms if ours.arm(arm.name) is None]
    matched = {id(case) for pair in pairs for case in pair}
    unmatched += [case.name for one in (first, second) for case in one.cases if id(case) not in matched]
    return Comparison(tuple(_differences(first, second, pairs)), tuple(ratios), tuple(unmatched))


def _cases(first: Receipt, second: Receipt) -> Iterator[tuple[Case, Case]]:
    """Cases of one name; where each receipt has but one, those two."""
    if len(first.cases) == len(second.cases) == 1:
        yield first.cases[0], second.cases[0]
        return
    by_name = {case.name: case for case in second.cases}
    for case in first.cases:
        if case.name in by_name:
            yield case, by_name[case.name]


def _ratio(ours: Case, arm: Arm, theirs: Case, other: Arm) -> ArmRatio | None:
    """Every text of one receipt against every text of the same prompt in the other: no turns are pairs here.

    None where one of them does not count, or no text has its like.
    """
    if not arm.counts_for_speed or not other.counts_for_speed:
        return None
    ratios = sorted(
        after.tokens_per_s / before.tokens_per_s
        for before in arm.samples
        for after in other.samples
        if before.prompt == after.prompt or ours.prompts.sha256 != theirs.prompts.sha256
    )
    if not ratios:
        return None
    speed = Range(statistics.median(ratios), _quantile(ratios, _LOW), _quantile(ratios, _HIGH))
    before, after = ours.figures(arm), theirs.figures(other)
    assert before.tokens_per_s is not None
    assert after.tokens_per_s is not None
    gain = None if before.speedup is None or after.speedup is None else after.speedup.median / before.speedup.median
    return ArmRatio(ours.name, arm.name, before.tokens_per_s.median, after.tokens_per_s.median, speed, gain)


def _quantile(values: list[float], share: float) -> float:
    return values[round(share * (len(values) - 1))]


def _differences(first: Receipt, second: Receipt, pairs: list[tuple[Case, Case]]) -> Iterator[str]:
    """What was not the same in both, the gravest first."""
    if not pairs:
        yield "They have no case in common."
    for ours, theirs in pairs:
        where = f"{ours.name}: " if len(pairs) > 1 else ""
        if ours.prompts.sha256 != theirs.prompts.sha256:
            yield f"{where}The prompts differ ({ours.prompts.name}, {theirs.prompts.name}): acceptance depends on them."
        if ours.prompts.tokens != theirs.prompts.tokens and ours.prompts.sha256 == theirs.prompts.sha256:
            yield f"{where}The same prompts were fed as other tokens: another context, template or tokenizer."
        for name, a, b in (("completions", ours.tokens, theirs.tokens), ("turns", ours.turns, theirs.turns)):
            if a != b:
                yield f"{where}{name}: {a} and {b}."
        if ours.sampling != theirs.sampling or ours.exactness != theirs.exactness:
            yield f"{where}Tokens were chosen in other ways: temperature, seed, penalties or exactness differ."
    machine, other = first.machine, second.machine
    if machine.processor != other.processor or machine.cores != other.cores or machine.device != other.device:
        yield (
            f"The machines differ: {machine.processor} ({machine.cores} cores, {machine.backend}), "
            f"{other.processor} ({other.cores} cores, {other.backend}). Absolute speeds say nothing of the programs."
        )
    elif machine != other:
        yield "The machines are alike, but not their systems, memory or BLAS."
    else:
        yield "Two runs are never on one machine at one time: compare speed-ups rather than speeds."
    if first.model != second.model:
        yield f"The models differ: {_model(first)}, {_model(second)}."
    yield from _heads(first.sidecar, second.sidecar)
    for name in sorted({*first.versions, *second.versions}):
        if first.versions.get(name) != second.versions.get(name):
            yield f"{name}: {first.versions.get(name)} and {second.versions.get(name)}."
    yield from _hosts(first, second)
    for place, receipt in (("first", first), ("second", second)):
        if not receipt.complete:
            yield f"The {place} was interrupted."


def _model(receipt: Receipt) -> str:
    model = receipt.model
    return ", ".join(filter(None, (model.name, model.sha[:12], model.dtype, model.quantization)))


def _heads(ours: SidecarRecord | None, theirs: SidecarRecord | None) -> Iterator[str]:
    if ours is None or theirs is None or replace(ours, conventions={}) != replace(theirs, conventions={}):
        if ours != theirs:
            yield f"The draft heads differ: {_sidecar(ours)}, {_sidecar(theirs)}."
        return
    # earlier versions said nothing of them
    if ours.conventions != theirs.conventions and ours.conventions and theirs.conventions:
        names = sorted({*ours.conventions, *theirs.conventions})
        pairs = [(name, ours.conventions.get(name), theirs.conventions.get(name)) for name in names]
        said = "; ".join(f"{name}: {one} and {other}" for name, one, other in pairs if one != other)
        yield f"The draft head was wired in other ways ({said}): acceptance depends on them."


def _hosts(first: Receipt, second: Receipt) -> Iterator[str]:
    """What was not the same of the hosts, and of what lies between them."""
    if first.hosts != second.hosts:
        yield f"Hosts: {first.hosts} and {second.hosts}."
    elif _layers(first) != _layers(second):
        yield f"Layers of the hosts: {_layers(first) or 'unknown'} and {_layers(second) or 'unknown'}."
    if first.links_made != second.links_made:
        yield f"Links: {first.links_made or 'as they are'} and {second.links_made or 'as they are'}."
    # on one host there is neither, and earlier versions said nothing of them
    for name, ours, theirs in (
        ("How the model was divided", first.shard, second.shard),
        ("What carried rows", first.backend, second.backend),
    ):
        if ours and theirs and ours != theirs:
            yield f"{name}: {ours} and {theirs}."


def _layers(receipt: Receipt) -> str:
    return " + ".join(f"{stage.start} to {stage.end}" for stage in receipt.stages)


def _sidecar(sidecar: SidecarRecord | None) -> str:
    return "none" if sidecar is None else f"{sidecar.name} ({sidecar.sha256[:12] or 'no file'}, {sidecar.precision})"
