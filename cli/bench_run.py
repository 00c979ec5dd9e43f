"""One benchmark from loading to its receipt, with progress; however it ends, what was measured until then is kept."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.bench_options import Wish
from cli.bench_show import live_table
from cli.cluster import spread
from cli.depth import make_policy
from cli.loading import Loaded, load
from cli.program import Interrupts, interrupts_at_checks
from cli.render import Reporter
from skulk_core.errors import ContextError, OptionError, RingChanged

if TYPE_CHECKING:
    from skulk_core.bench.arms import CaseRun
    from skulk_core.bench.measure import Bench, Measurement
    from skulk_core.bench.prompts import PromptSet
    from skulk_core.bench.workload import ArmSpec, Workload
    from skulk_core.cluster.delay_line import LinkShape
    from skulk_core.decode.session import Session
    from skulk_core.formats.receipt import ModelRecord, Receipt, SidecarRecord, StageRecord
    from skulk_core.sampling.settings import SamplingSettings

Keep = Callable[["Receipt"], None]


@dataclass
class _Watch:
    """Shows how far a benchmark is, and stops it where Ctrl-C was pressed."""

    reporter: Reporter
    interrupts: Interrupts
    num_texts: int
    num_before: int = 0

    def check(self) -> None:
        self.interrupts.check()

    def step(self, description: str) -> None:
        self.reporter.step(description)
        self.interrupts.check()

    def texts(self, case: "CaseRun") -> None:
        self.reporter.beside = lambda: live_table(case)
        self.reporter.turns(self.num_before + case.num_done, self.num_texts)
        if case.num_done == case.num_texts:
            self.num_before += case.num_texts

    def replayed(self, done: int, total: int) -> None:
        self.reporter.replayed(done, total)
        self.interrupts.check()


@dataclass
class Running:
    """A benchmark while it runs; `receipt` tells at any time what was measured so far."""

    loaded: Loaded
    model: "ModelRecord"
    sidecar: "SidecarRecord | None"
    stages: tuple["StageRecord", ...]
    links: "LinkShape | None"
    measurements: list["Measurement"]
    complete: bool = False
    ended_by: str = "it was still measured, or killed"
    exit_code: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _began_s: float = field(default_factory=time.monotonic)

    @property
    def num_texts(self) -> int:
        """Texts to decode in all cases."""
        return sum(one.run.num_texts for one in self.measurements)

    def receipt(self) -> "Receipt":
        from skulk_core.bench.facts import machine_record
        from skulk_core.formats.receipt import Receipt
        from skulk_core.runtime.device import versions

        programs = {arm.spec.program for one in self.measurements for arm in one.run.arms}
        return Receipt(
            complete=self.complete,
            started=self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            took_s=time.monotonic() - self._began_s,
            command=shlex.join(["skulk", *(_without_folders(argument) for argument in sys.argv[1:])]),
            # of what decoded beside us, too
            versions=versions(*(("transformers", "torch") if "transformers" in programs else ())),
            machine=machine_record(),
            hosts=max(len(self.stages), 1),
            link_delay_ms=0.0 if self.links is None else 1000 * self.links.delay_s,
            model=self.model,
            sidecar=self.sidecar,
            cases=tuple(one.record() for one in self.measurements if one.run.num_done),
            link_rate_mbps=None if self.links is None else self.links.rate_mbps,
            stages=self.stages if len(self.stages) > 1 else (),
            ended_by="" if self.complete else self.ended_by,
        )


def run_bench(wish: Wish, reporter: Reporter, keep: Keep, finish: Callable[[Running], None]) -> None:
    """Load the model and measure. ``keep`` is given what there is after each case, ``finish`` what there is at the end.

    However measuring ends, ``finish`` is called: what Ctrl-C, SIGTERM, SIGHUP or an error ended is not `complete` and
    says by what. Such an error is raised afterwards.
    """
    if wish.over is not None:
        with spread(wish.choice, wish.over, reporter) as loaded:
            _measure(wish, loaded, reporter, keep, finish)
        return
    with reporter.working():
        loaded = load(wish.choice, reporter)
    _measure(wish, loaded, reporter, keep, finish)


def _measure(wish: Wish, loaded: Loaded, reporter: Reporter, keep: Keep, finish: Callable[[Running], None]) -> None:
    with reporter.working():
        bench, running = _begun(wish, loaded, reporter)
    try:
        with reporter.working(), interrupts_at_checks(signal.SIGTERM, signal.SIGHUP) as interrupts:
            _measure_all(bench, running, _Watch(reporter, interrupts, running.num_texts), keep)
    except BaseException as error:
        running.ended_by = _in_words(error)
        raise
    finally:
        finish(running)


def _measure_all(bench: "Bench", running: Running, watch: _Watch, keep: Keep) -> None:
    from skulk_core.bench.measure import measure

    try:
        for one in running.measurements:
            measure(bench, one, watch)
            keep(running.receipt())
        running.complete = True
    except (KeyboardInterrupt, RuntimeError):
        # a signal also ends the compiler that MLX may be waiting for
        if not watch.interrupts.pending:
            raise
        running.ended_by, running.exit_code = "it was interrupted", watch.interrupts.exit_code


def _in_words(error: BaseException) -> str:
    """Why a benchmark ended, for a receipt: without what an error says of hosts, folders and persons."""
    if isinstance(error, RingChanged):
        return f"hosts were lost for good: {error.after} of {error.before} are left"
    return f"an error ended it ({type(error).__name__})"


def _begun(wish: Wish, loaded: Loaded, reporter: Reporter) -> tuple["Bench", Running]:
    """Everything before the first measurement. Raises as `_prepare`."""
    from skulk_core.bench.instruments import LocalInstruments, RingInstruments
    from skulk_core.bench.measure import Bench
    from skulk_core.bench.workload import Local
    from skulk_core.decode.engine import LocalEngine

    measurements = _prepare(wish, loaded, reporter)
    target, tokenizer = loaded.model.target, loaded.model.tokenizer
    if loaded.engine is None:
        engine = LocalEngine(target, tokenizer, loaded.drafter)
        local = Local(target, tokenizer, loaded.drafter)
        bench = Bench(engine, LocalInstruments(engine, local), certify=wish.certify)
    else:
        bench = Bench(loaded.engine, RingInstruments(loaded.engine), certify=wish.certify)
    links = None if wish.over is None else wish.over.links
    return bench, Running(loaded, _model(loaded), _sidecar(loaded), _stages(loaded), links, measurements)


def _prepare(wish: Wish, loaded: Loaded, reporter: Reporter) -> list["Measurement"]:
    """Every case with its arms, nothing decoded yet. Raises `ContextError`, `OptionError` and as prompts do."""
    from skulk_core.bench.measure import Measurement
    from skulk_core.decode.session import Session

    if wish.depths.drafts and not loaded.can_draft:
        raise OptionError(
            "--draft-depth", "", f"nothing drafts here ({loaded.plain_because}); 0 measures plain decoding"
        )
    session = Session(loaded.model, loaded.drafter)
    works, context = _workloads(wish, loaded, session), loaded.model.context_tokens
    for work in works:
        if context is not None and work.most_tokens > context:
            raise ContextError(work.most_tokens - work.num_tokens, context, work.num_tokens)
    peers = _peers(wish, loaded, max(work.most_tokens for work in works), reporter)
    arms: dict[bool, list[ArmSpec]] = {}
    measurements = []
    for work in works:
        # what rounds cost depends on whether tokens are drawn
        greedy = work.settings.is_greedy
        if greedy not in arms:
            arms[greedy] = [*peers, *_our_arms(wish, loaded, work.settings, reporter)]
        measurements.append(Measurement.of(work, arms[greedy]))
    return measurements


def _workloads(wish: Wish, loaded: Loaded, session: "Session") -> Sequence["Workload"]:
    from skulk_core.bench.prompts import read_prompts
    from skulk_core.bench.suite import suite

    if not wish.suite:
        prompts = read_prompts(wish.prompts)
        parts = [prompts.name, f"{wish.num_tokens} tokens", f"temperature {wish.settings.temperature:g}"]
        parts += [f"after {wish.context} tokens"] if wish.context else []
        return [_workload(wish, session, ", ".join(parts), prompts, wish.settings, wish.num_tokens, wish.num_turns)]
    works = []
    for case in suite(wish.num_turns, loaded.model.context_tokens):
        settings = replace(wish.settings, temperature=case.temperature)
        asked = replace(wish, context=case.context)
        works.append(_workload(asked, session, case.name, case.prompts, settings, case.num_tokens, case.num_turns))
    return works


def _workload(
    wish: Wish,
    session: "Session",
    name: str,
    prompts: "PromptSet",
    settings: "SamplingSettings",
    num_tokens: int,
    num_turns: int,
) -> "Workload":
    from skulk_core.bench.prompts import encode
    from skulk_core.bench.workload import Workload

    fed, described = encode(session, prompts, raw=wish.raw, context=wish.context)
    return Workload(name, fed, described, num_tokens, num_turns, settings, wish.exactness)


def _our_arms(wish: Wish, loaded: Loaded, settings: "SamplingSettings", reporter: Reporter) -> list["ArmSpec"]:
    from skulk_core.bench.workload import ArmSpec

    arms = [ArmSpec.fixed(depth) for depth in wish.depths.fixed]
    if wish.depths.auto:
        policy = make_policy(loaded, settings, reporter, "auto", anew=True)
        # every text begins as a run does: with what rounds cost, and nothing seen yet
        arms.append(ArmSpec.auto(lambda: deepcopy(policy)))
    return arms


def _peers(wish: Wish, loaded: Loaded, most_tokens: int, reporter: Reporter) -> list["ArmSpec"]:
    if wish.against is None:
        return []
    from skulk_core.bench.against import Against, arms_against, require_common

    require_common(wish.settings)
    reporter.step(f"loading {wish.against}")
    origin = None if loaded.head is None else loaded.head.origin
    # a head that is a checkpoint of its own, and not a part of the model's
    assistant = origin if origin is not None and origin.is_dir() and origin != loaded.source.folder else None
    path = loaded.source.path
    return arms_against(Against(wish.against, loaded.model, path, most_tokens, wish.against_draft, assistant))


def _model(loaded: Loaded) -> "ModelRecord":
    from skulk_core.bench.facts import model_record

    if loaded.engine is None:
        return model_record(loaded.source, loaded.model)
    epoch = loaded.engine.epoch
    dtype = epoch.members[0].assignment.dtype
    nbytes = sum(int(frame["nbytes"]) for frame in epoch.loaded)
    return model_record(loaded.source, loaded.model, dtype=None if dtype == "checkpoint" else dtype, nbytes=nbytes)


def _sidecar(loaded: Loaded) -> "SidecarRecord | None":
    from skulk_core.bench.facts import sidecar_record

    if loaded.head_name is None:
        return None
    head = loaded.head
    if loaded.engine is not None:
        from skulk_core.bench.instruments import sidecar_at_decider

        # its file is on the decider, which knows what it read
        layout, sha256 = sidecar_at_decider(loaded.engine)
        precision = str(loaded.engine.drafter["precision"]) or "none"
        return replace(sidecar_record(loaded.head_name, None, layout, precision), sha256=sha256)
    if head is None:
        return sidecar_record(loaded.head_name, None, "none", "none")
    return sidecar_record(loaded.head_name, head.origin, head.layout, head.precision)


def _stages(loaded: Loaded) -> tuple["StageRecord", ...]:
    from skulk_core.formats.receipt import StageRecord

    if loaded.engine is None:
        return ()
    epoch = loaded.engine.epoch
    ranks = zip((member.assignment for member in epoch.members), epoch.loaded, strict=True)
    return tuple(StageRecord(part.start, part.end, int(frame["nbytes"])) for part, frame in ranks)


def _without_folders(argument: str) -> str:
    """An argument without the folders of a path, which may name a person."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (value.rsplit("/", 1)[-1] if value.startswith(("/", "~")) else value)
