"""Decoding over workers, behind the interface of an engine in this process; it outlives the loss of hosts."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from skulk_core.cluster.delay_line import LinkShape
from skulk_core.cluster.epoch import LEASE_S, Epoch, Member, Starter
from skulk_core.cluster.frames import Frame
from skulk_core.cluster.journal import Journal
from skulk_core.cluster.pace import Pace
from skulk_core.cluster.recovery import Recovery
from skulk_core.cluster.transport import start
from skulk_core.cluster.wire import AUTO, depth_frame, read_round, sampling_frame
from skulk_core.decode.certificate import Certificate, Divergence
from skulk_core.decode.decoder import Progress
from skulk_core.decode.depth import DepthPolicy
from skulk_core.decode.engine import Engine
from skulk_core.decode.stats import Round, Stats
from skulk_core.errors import (
    ClusterError,
    ClusterLost,
    ContextError,
    LinkCut,
    MemoryFull,
    OptionError,
    PromptError,
    SkulkError,
    WorkerFailed,
)
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

_TICK_S = 0.1
# The longest that one pass over a part of a prompt may take before its ring is taken for broken: a large model on slow
# hosts may need minutes, and a link that was cut where every process lives on would say nothing for ever.
_PASS_S = 1800.0
T = TypeVar("T")


@dataclass(frozen=True)
class Hooks:
    """What an engine asks of whoever runs it.

    ``check`` is called at least ten times a second while something is waited for, and may raise; ``note`` takes lines
    for a person; ``impatient`` says whether workers that do not end at once should be killed.
    """

    check: Callable[[], None] = lambda: None
    note: Callable[[str], None] = lambda line: None
    on_loading: Callable[[str, int, int | None], None] | None = None
    impatient: Callable[[], bool] = lambda: False


class ClusterEngine(Engine):
    """One model over the workers of an epoch, and of the next one when a worker is lost."""

    def __init__(
        self,
        recovery: Recovery,
        hooks: Hooks,
        *,
        starter: Starter = start,
        lease_s: float = LEASE_S,
        links: LinkShape | None = None,
    ) -> None:
        self._recovery, self._hooks, self._starter, self._lease_s = recovery, hooks, starter, lease_s
        self._links = links
        self._epoch: Epoch | None = None
        self._formed: Epoch | None = None
        self._journal: Journal | None = None
        self._text, self._base, self._asked = 0, (0, 0, 0), False
        self._pace = Pace()
        self._stats = Stats()

    def __enter__(self) -> Self:
        """Start the first epoch. Raises `SkulkError`."""
        try:
            self._begin_first()
        except BaseException:
            self.close(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, *, at_once: bool = False) -> None:
        """End every worker."""
        if self._epoch is not None:
            self._epoch.close(at_once=at_once, impatient=self._hooks.impatient)
            self._epoch = None

    @property
    def epoch(self) -> Epoch:
        """The workers in use."""
        assert self._epoch is not None, "no workers"
        return self._epoch

    @property
    def number(self) -> int:
        """Of the epoch that was formed last, whether its workers are still there or not."""
        return self._last.number

    @property
    def members(self) -> tuple[Member, ...]:
        """Its ranks."""
        return self._last.members

    @property
    def _last(self) -> Epoch:
        assert self._formed is not None, "never started"
        return self._formed

    @property
    def drafter(self) -> Frame:
        """What the decider says of its head: the fields of `DrafterFacts`."""
        facts: Frame = self.epoch.loaded[self.epoch.decider]["drafter"]
        return facts

    @property
    def stats(self) -> Stats:
        return self._stats

    @property
    def parts(self) -> tuple[str, ...]:
        ranks = [] if self._epoch is None else [(one.host.name, one.assignment) for one in self._epoch.members]
        return tuple(f"{name}: layers [{part.start}, {part.end})" for name, part in ranks)

    def working(self) -> AbstractContextManager[None]:
        return nullcontext()

    def prefill(
        self,
        prompt: Sequence[int],
        depth: int | DepthPolicy,
        sampling: SamplingSettings,
        exactness: Exactness,
        progress: Progress | None = None,
        *,
        go_on: bool = False,
        answer: Sequence[int] = (),
    ) -> int:
        self._text += 1
        request = {
            "depth": depth_frame(depth),
            "sampling": sampling_frame(sampling),
            "exactness": exactness.value,
        }
        self._journal = Journal(self._text, tuple(prompt), request, list(answer), go_on)
        self._stats = Stats(chose_depth=request["depth"] == AUTO, prompt_tokens=len(prompt))

        def read() -> int:
            self._ready()
            return self._read_prompt(progress)

        try:
            return self._surviving(read)
        except BaseException:
            self._stop(self._text)
            raise

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        journal = self._begun()
        end = len(journal.answer) + max_tokens
        self._asked = False
        try:
            self._begin_counting()
            while (left := end - len(journal.answer)) > 0:
                round_ = self._surviving(partial(self._next_round, left, stop_tokens))
                if round_ is None:
                    break
                if round_.tokens[-1] in stop_tokens or len(journal.answer) >= end:
                    # before it is handed out: whoever reads may ask for no more. The decider ended there too
                    self._count_messages()
                yield round_
                if round_.tokens[-1] in stop_tokens:
                    break
        except MemoryFull as full:
            # what was emitted is whole, and no other ring of these hosts would have more room
            self._stats.full = full
        finally:
            # it decodes ahead of whoever reads, and does not know yet that nobody does
            self._stop(journal.text)

    def certify(
        self,
        prompt: Sequence[int],
        answer: Sequence[int],
        depth: int,
        sampling: SamplingSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> Certificate:
        self._text += 1
        asked = {"prompt": list(prompt), "answer": list(answer), "depth": self._stats.draft_depth}

        def certified() -> Frame:
            self._ready()
            self.epoch.ask("certify", text=text, sampling=sampling_frame(sampling), **asked)
            return self._heard("certificate", text, _PASS_S, progress)

        text = self._text
        try:
            found = self._surviving(certified)
        finally:
            self._stop(text)
        divergences = tuple(Divergence(**divergence) for divergence in found["divergences"])
        return Certificate(found["compared"], divergences, found["smallest_gap"], found["bound"])

    def at_decider(self, what: str, asked: Mapping[str, object]) -> Frame:
        """Have the decider measure ``what``; the text that was begun last cannot go on afterwards.

        Raises `SkulkError` if a worker is lost: what another ring would measure is no answer. Whatever is asked next
        finds a new ring then; `ClusterLost` says that there is none.
        """
        self._text += 1
        try:
            self._ready()
            self.epoch.ask("measure", text=self._text, what=what, asked=dict(asked))
            found: Frame = self._heard("measured", self._text, _PASS_S)["found"]
        except ClusterError as error:
            if not isinstance(error, ClusterLost) and not getattr(error, "error", ""):
                self._close_lost()
                self._recovery.failed(error)
            raise
        finally:
            self._stop(self._text)
        self._recovery.progressed()
        return found

    def reset_peaks(self) -> None:
        self._peaks(reset=True)

    def peaks(self) -> tuple[int, ...]:
        return self._peaks(reset=False)

    def _peaks(self, *, reset: bool) -> tuple[int, ...]:
        # a figure is not worth a new ring: whoever decodes next will see what is wrong with this one
        with suppress(ClusterError, MemoryFull):
            return self.epoch.peaks(reset=reset) if self._epoch is not None else ()
        return ()

    def _stop(self, text: int) -> None:
        """Nobody wants more of a text; of one that has ended this says nothing."""
        if self._epoch is not None:
            self._epoch.ask("stop", text=text)

    def _ready(self) -> None:
        """Have an epoch that can take another text."""
        if self._epoch is not None and self._epoch.stands_still():
            self._close_lost()
        if self._epoch is None:
            self._begin_epoch()

    def _begun(self) -> Journal:
        assert self._journal is not None, "no text was begun"
        return self._journal

    def _begin_first(self) -> None:
        """The first epoch. What a worker says of itself ends the run at once; only one that says nothing is retried."""
        while True:
            try:
                self._begin_epoch()
                return
            except (WorkerFailed, LinkCut) as error:
                if isinstance(error, WorkerFailed) and error.error:
                    raise
                self._close_lost()
                self._wait(self._recovery.failed(error, leave_out=False))

    def _begin_epoch(self) -> None:
        members = self._recovery.next_members()
        self._epoch = Epoch(members, self._hooks.check, starter=self._starter, lease_s=self._lease_s, links=self._links)
        try:
            self._epoch.begin(self._hooks.on_loading)
        except BaseException:
            # half formed, Ctrl-C included: nothing can be asked of it
            self._close_lost()
            raise
        self._formed = self._epoch
        self._recovery.formed()

    def _close_lost(self) -> None:
        if self._epoch is not None:
            self._epoch.close(at_once=True)
            self._epoch = None

    def _surviving(self, step: Callable[[], T]) -> T:
        """What ``step`` returns, in this epoch or a later one. Raises `ClusterLost` when there is none."""
        while True:
            try:
                return step()
            except ClusterError as error:
                if isinstance(error, ClusterLost) or _is_the_users(error):
                    raise
                self._recover(error)

    def _recover(self, error: SkulkError) -> None:
        """Form a new epoch and bring it to where the text is. Raises `ClusterLost`."""
        began_s, lost, journal = time.monotonic(), [str(error)], self._begun()
        while True:
            self._close_lost()
            self._wait(self._recovery.failed(error))
            try:
                self._begin_epoch()
                self._read_prompt(None)
                break
            except ClusterError as next_error:
                if isinstance(next_error, ClusterLost) or _is_the_users(next_error):
                    raise
                error = next_error
                lost.append(str(error))
        cost_s = time.monotonic() - began_s
        self._stats.recoveries += 1
        self._stats.recovery_s += cost_s
        read = len(journal.prompt) + len(journal.answer)
        self._hooks.note(
            f"{'; '.join(dict.fromkeys(lost))}: went on as epoch {self.number} on {', '.join(self.epoch.hosts)} "
            f"after {cost_s:.1f} s, {read} tokens read again, none lost{self._why_plain()}"
        )
        # other hosts, or the same ones anew: what rounds take has to be learnt again
        self._pace = self._pace.anew()
        self._begin_counting()
        self._asked = False

    def _why_plain(self) -> str:
        """What a person should know of a decider that took over without a head."""
        drafter, asked = self.drafter, self._begun().request["depth"]
        return f"; no drafts from here on, as {drafter['plain_because']}" if asked and drafter["name"] is None else ""

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._hooks.check()
            time.sleep(_TICK_S)

    def _read_prompt(self, progress: Progress | None) -> int:
        """Have the decider read the text so far; its last token, which is the answer's first if there was none."""
        journal = self._begun()
        self.epoch.ask("prefill", **journal.prefill_frame())
        first = self._heard("first", journal.text, _PASS_S, progress)
        journal.go_on = False
        stats = self._stats
        stats.prefill_s += first["prefill_s"]
        stats.synchronisations += first["synchronisations"]
        # after a recovery perhaps less: what was drafted before was drafted so deep
        stats.draft_depth = max(stats.draft_depth, first["most"])
        stats.reused_tokens = first["reused"]
        if not journal.answer:
            journal.answer.append(first["token"])
        return int(journal.answer[-1])

    def _next_round(self, max_tokens: int, stop_tokens: frozenset[int]) -> Round | None:
        """The next round of the text; None where the decider ended it."""
        journal, stats = self._begun(), self._stats
        if not self._asked:
            self.epoch.ask("rounds", text=journal.text, max_tokens=max_tokens, stop=sorted(stop_tokens))
            self._asked = True
        began_s = time.monotonic()
        frame = self._heard("round", journal.text, self._pace.deadline_s)
        if frame["kind"] == "done":
            return None
        # a slow reader finds rounds waiting: they took longer than it waited for them
        self._pace.took(max(frame["took_s"], time.monotonic() - began_s))
        round_ = read_round(frame)
        journal.took(round_)
        self._recovery.progressed()
        stats.count(round_)
        stats.decode_s += frame["took_s"]
        stats.synchronisations += frame["synchronisations"]
        stats.extra_passes += frame["extra_passes"]
        return round_

    def _heard(self, kind: str, text: int, deadline_s: float, progress: Progress | None = None) -> Frame:
        """The next frame of ``kind`` about ``text``, or that it is done. What belongs to another text is dropped."""
        while True:
            frame = self.epoch.answer(deadline_s)
            if frame.get("text") != text:
                continue
            if frame["kind"] in (kind, "done"):
                return frame
            if frame["kind"] == "full":
                raise self.epoch.full(frame)
            if frame["kind"] == "prompt" and progress is not None:
                progress(frame["done"], frame["total"])

    def _begin_counting(self) -> None:
        """Messages and bytes of every rank, and rounds of the text, before the rounds to come."""
        self._base = (*self._surviving(lambda: self.epoch.counts()), self._stats.rounds)

    def _count_messages(self) -> None:
        """Add what the ranks have sent since. A figure is not worth a new ring: without an answer it is left out."""
        stats = self._stats
        with suppress(ClusterError, MemoryFull):
            messages, nbytes = self.epoch.counts()
            stats.messages += messages - self._base[0]
            stats.message_nbytes += nbytes - self._base[1]
            stats.counted_rounds += stats.rounds - self._base[2]


def _is_the_users(error: SkulkError) -> bool:
    """Whether a worker refused what it was asked for, as every other worker would."""
    asked = (OptionError, PromptError, ContextError)
    return isinstance(error, WorkerFailed) and error.error in [kind.__name__ for kind in asked]
