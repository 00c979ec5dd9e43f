"""One benchmark from loading to its receipt, with progress; however it ends, what was measured until then is kept."""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.bench_cases import Cases, prepare
from cli.bench_command import recorded_command
from cli.bench_options import Wish
from cli.bench_record import model_of, sidecar_of, spread_of, stages_of
from cli.bench_show import live_table
from cli.cluster import spread
from cli.loading import Choice, Loaded, load
from cli.program import Interrupts, interrupts_at_checks
from cli.render import Reporter
from skulk_core.errors import RingChanged

if TYPE_CHECKING:
    from skulk_core.bench.arms import CaseRun
    from skulk_core.bench.measure import Bench
    from skulk_core.cluster.delay_line import LinkShape
    from skulk_core.formats.receipt import Receipt
    from skulk_core.formats.receipt_facts import ModelRecord, SidecarRecord, StageRecord

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

    choice: Choice
    model: "ModelRecord"
    sidecar: "SidecarRecord | None"
    stages: tuple["StageRecord", ...]
    shard_and_backend: tuple[str, str]
    links: "LinkShape | None"
    cases: Cases
    complete: bool = False
    ended_by: str = "it was still measured, or killed"
    exit_code: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _began_s: float = field(default_factory=time.monotonic)

    @property
    def num_texts(self) -> int:
        """Texts to decode in all cases."""
        return sum(one.run.num_texts for one in self.cases.measurements)

    def receipt(self) -> "Receipt":
        from skulk_core.bench.facts import machine_record
        from skulk_core.formats.receipt import Receipt
        from skulk_core.runtime.device import versions

        programs = {arm.spec.program for one in self.cases.measurements for arm in one.run.arms}
        return Receipt(
            complete=self.complete,
            started=self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            took_s=time.monotonic() - self._began_s,
            command=recorded_command(sys.argv[1:]),
            # of what decoded beside us, too
            versions=versions(*(("transformers", "torch") if "transformers" in programs else ())),
            machine=machine_record(),
            hosts=max(len(self.stages), 1),
            link_delay_ms=0.0 if self.links is None else 1000 * self.links.delay_s,
            model=self.model,
            sidecar=self.sidecar,
            cases=tuple(one.record() for one in self.cases.measurements if one.run.num_done),
            link_rate_mbps=None if self.links is None else self.links.rate_mbps,
            stages=self.stages if len(self.stages) > 1 else (),
            ended_by="" if self.complete else self.ended_by,
            left_out=self.cases.left_out,
            shard=self.shard_and_backend[0],
            backend=self.shard_and_backend[1],
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
        for one in running.cases.measurements:
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
    """Everything before the first measurement. Raises as `prepare`."""
    from skulk_core.bench.instruments import LocalInstruments, RingInstruments
    from skulk_core.bench.measure import Bench
    from skulk_core.bench.workload import Local
    from skulk_core.decode.engine import LocalEngine

    cases = prepare(wish, loaded, reporter)
    target, tokenizer = loaded.model.target, loaded.model.tokenizer
    if loaded.engine is None:
        engine = LocalEngine(target, tokenizer, loaded.drafter)
        local = Local(target, tokenizer, loaded.drafter)
        bench = Bench(engine, LocalInstruments(engine, local), certify=wish.certify)
    else:
        bench = Bench(loaded.engine, RingInstruments(loaded.engine), certify=wish.certify)
    links = None if wish.over is None else wish.over.links
    records = (model_of(loaded), sidecar_of(loaded), stages_of(loaded), spread_of(loaded))
    return bench, Running(wish.choice, *records, links, cases)
