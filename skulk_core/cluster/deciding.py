"""The decider's main thread: texts as the launcher asks for them, round by round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from skulk_core.cluster.control import Control
from skulk_core.cluster.frames import Frame
from skulk_core.cluster.stage_loading import LoadedStage
from skulk_core.cluster.wire import AUTO, read_sampling
from skulk_core.decode.depth import AutoDepth, DepthPolicy
from skulk_core.decode.engine import LocalEngine
from skulk_core.decode.exchange import Exchange
from skulk_core.decode.room import Room
from skulk_core.decode.stats import Round
from skulk_core.errors import MemoryFull
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness


@dataclass(frozen=True)
class AtDecider:
    """What an instrument finds here. ``auto`` makes what decides depths, from costs of this ring."""

    loaded: LoadedStage
    engine: LocalEngine
    exchange: Exchange
    auto: Callable[[SamplingSettings], DepthPolicy]


# Measures something when the launcher asks for it by name, and says what it found, as JSON; what measures stands above
# this package. It calls the last argument often, which raises where the launcher wants no more.
Instrument = Callable[[AtDecider, Mapping[str, Any], Callable[[], None]], Mapping[str, Any]]


class _Stopped(Exception):
    """The launcher wants no more of this text."""


class Decider:
    """Decodes one text at a time; a text the launcher stops ends between two passes."""

    def __init__(
        self,
        control: Control,
        loaded: LoadedStage,
        exchange: Exchange,
        room: Room,
        measure: Callable[..., Sequence[float]],
        instruments: Mapping[str, Instrument],
    ) -> None:
        self._control, self._loaded, self._exchange, self._measure = control, loaded, exchange, measure
        self._instruments = instruments
        target = loaded.model.target
        self._engine = LocalEngine(target, loaded.model.tokenizer, loaded.drafter, exchange, room)
        self._decoder = self._engine.decoder
        self._costs: dict[str, tuple[float, ...]] = {}
        self._stopped_text = 0
        control.at_once("stop", self._stop)

    def serve(self) -> None:
        """Answer frames for ever."""
        answers = {"prefill": self._prefill, "rounds": self._rounds, "certify": self._certify, "measure": self._answer}
        while True:
            frame = self._control.next()
            try:
                with self._engine.working():
                    answers[frame["kind"]](frame)
            except _Stopped:
                self._control.say("done", text=frame["text"])
            except MemoryFull as full:
                self._tell_full(frame["text"], full)

    def _stop(self, frame: Frame) -> None:
        self._stopped_text = max(self._stopped_text, int(frame["text"]))

    def _check(self, text: int) -> None:
        if self._stopped_text >= text:
            raise _Stopped

    def _prefill(self, frame: Frame) -> None:
        text, sampling = int(frame["text"]), read_sampling(frame["sampling"])

        def progress(done: int, total: int) -> None:
            self._control.say("prompt", text=text, done=done, total=total)
            self._check(text)

        depth, go_on = frame["depth"], bool(frame["go_on"])
        if self._loaded.drafter is None:
            # a decider that took over may have no head: the text is the same without
            depth = 0
        if depth == AUTO:
            depth = self._auto(sampling)
        first = self._engine.prefill(
            frame["prompt"],
            depth,
            sampling,
            Exactness(frame["exactness"]),
            progress,
            go_on=go_on,
            answer=frame["answer"],
        )
        stats = self._decoder.stats
        self._control.say(
            "first",
            text=text,
            token=first,
            prefill_s=stats.prefill_s,
            reused=stats.reused_tokens,
            most=stats.draft_depth,
            synchronisations=stats.synchronisations,
        )

    def _auto(self, sampling: SamplingSettings) -> DepthPolicy:
        """A policy over costs that hold for this ring, measured once for a way of sampling."""
        key = repr((sampling.is_greedy, sampling.counts_tokens, sampling.top_p < 1))
        if key not in self._costs:
            self._control.say("measuring")
            self._costs[key] = tuple(self._measure(self._loaded.model, self._loaded.drafter, sampling, self._exchange))
            self._engine.forget_where_shared()
        return AutoDepth(self._costs[key])

    def _answer(self, frame: Frame) -> None:
        """Have an instrument measure; the other ranks hold its text afterwards, and no text can go on."""
        text = int(frame["text"])
        at = AtDecider(self._loaded, self._engine, self._exchange, self._auto)
        try:
            found = self._instruments[frame["what"]](at, frame["asked"], lambda: self._check(text))
        finally:
            self._engine.forget_where_shared()
        self._control.say("measured", text=text, found=found)

    def _rounds(self, frame: Frame) -> None:
        text = int(frame["text"])
        rounds = self._engine.rounds(int(frame["max_tokens"]), frozenset(frame["stop"]))
        # closed at once where it is left, so that nothing of this text is under way when the next one begins
        with closing(rounds):
            self._tell_rounds(text, rounds)
        full = self._decoder.stats.full
        if full is not None:
            self._tell_full(text, full)
        else:
            self._control.say("done", text=text)

    def _tell_full(self, text: int, full: MemoryFull) -> None:
        # of a pass that failed nobody knows which of its messages were sent
        broken = full.in_pass
        self._control.say("full", text=text, needed=full.needed_nbytes, left=full.left_nbytes, broken=broken)

    def _tell_rounds(self, text: int, rounds: Iterator[Round]) -> None:
        stats = self._decoder.stats
        told = replace(stats)
        for round_ in rounds:
            self._control.say(
                "round",
                text=text,
                tokens=round_.tokens,
                drafted=round_.num_drafted,
                accepted=round_.num_accepted,
                took_s=stats.decode_s - told.decode_s,
                synchronisations=stats.synchronisations - told.synchronisations,
                extra_passes=stats.extra_passes - told.extra_passes,
            )
            told = replace(stats)
            if self._stopped_text >= text:
                return

    def _certify(self, frame: Frame) -> None:
        text = int(frame["text"])

        def progress(done: int, total: int) -> None:
            self._control.say("prompt", text=text, done=done, total=total)
            self._check(text)

        found: Any = self._engine.certify(
            frame["prompt"], frame["answer"], int(frame["depth"]), read_sampling(frame["sampling"]), progress
        )
        self._control.say(
            "certificate",
            text=text,
            compared=found.compared,
            divergences=[vars(divergence) for divergence in found.divergences],
            smallest_gap=found.smallest_gap,
            bound=found.bound,
        )
