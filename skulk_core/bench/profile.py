"""Where the time of a text goes: the decoder itself, with a barrier after every part of its rounds.

The parts are timed from outside, through stand-ins for the target, its caches, the head and the sampler, so that what
is profiled is the loop that decodes. A barrier makes the host wait for the device, which the loop does once a round:
the profile is of a slower run, and says by how much.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx

from skulk_core.bench.arms import decode_text
from skulk_core.bench.workload import ArmSpec, Check, Local, Workload
from skulk_core.cache.base import CacheList
from skulk_core.decode.engine import LocalEngine
from skulk_core.decode.exchange import Exchange
from skulk_core.decode.stats import Round
from skulk_core.formats.receipt import Profile
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Activations, Hidden, Target
from skulk_core.sampling.base import Acceptance, Draft, Place, Sampler
from skulk_core.sampling.settings import SamplingSettings

# where the time goes is known after so many
_MOST_TOKENS = 256


def profile_text(
    engine: LocalEngine, loaded: Local, spec: ArmSpec, work: Workload, check: Check, exchange: Exchange | None = None
) -> Profile:
    """The first text of an arm of ours, decoded without barriers and then with them, so that both had one machine.

    At the decider of a ring ``exchange`` is the engine's, which holds no text afterwards.
    """
    num_tokens = min(work.num_tokens, _MOST_TOKENS)
    plain = decode_text(engine, spec, work, 0, 0, num_tokens, check).sample
    profiled = ProfiledEngine(engine, loaded, exchange)
    sample = decode_text(profiled, spec, work, 0, 0, num_tokens, check).sample
    engine.forget_where_shared()
    parts = profiled.spent
    return Profile(
        prefill_s=sample.prefill_s,
        draft_s=parts["draft"],
        verify_s=parts["verify"],
        commit_s=parts["commit"],
        link_s=parts["link"],
        other_s=max(sample.decode_s - sum(parts.values()), 0.0),
        tokens=sample.tokens,
        overhead=sample.decode_s / sample.tokens * plain.tokens / plain.decode_s - 1,
    )


class ProfiledEngine(LocalEngine):
    """A decoder with barriers. ``spent`` are the seconds of the rounds of the text begun last, by part."""

    def __init__(self, engine: LocalEngine, loaded: Local, exchange: Exchange | None = None) -> None:
        self._clock, self._engine = _Clock(), engine
        target = cast(Target, _TimedTarget(loaded.target, self._clock))
        head = None if loaded.head is None else _TimedHead(loaded.head, self._clock)
        super().__init__(
            target, loaded.tokenizer, head, None if exchange is None else _TimedExchange(exchange, self._clock)
        )

    @property
    def spent(self) -> dict[str, float]:
        """Seconds by part."""
        return dict(self._clock.spent)

    def bound(self, depth: int, *, in_pieces: bool = False) -> float:
        """As measured without barriers."""
        return self._engine.bound(depth, in_pieces=in_pieces)

    def sampler(self, sampling: SamplingSettings, *, gaps: bool) -> Sampler:
        """One with barriers."""
        return _TimedSampler(super().sampler(sampling, gaps=gaps), self._clock)

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        """From here on time is counted: the passes of the prompt are not told apart."""
        self._clock.restart()
        return super().rounds(max_tokens, stop_tokens)


class _Clock:
    """Seconds by part. A part within another counts as the inner one."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.spent = {"draft": 0.0, "verify": 0.0, "commit": 0.0, "link": 0.0}
        self._inside: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inside.append(0.0)
        yield
        took = time.perf_counter() - began
        self.spent[name] += took - self._inside.pop()
        if self._inside:
            self._inside[-1] += took


class _TimedTarget:
    """A target whose passes end when they are done; everything that is no pass is the target's own."""

    def __init__(self, target: Target, clock: _Clock) -> None:
        self._timed, self._clock = target, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._timed, name)

    def make_caches(self) -> CacheList:
        return _TimedCaches(list(self._timed.make_caches()), self._clock)

    def embed(self, tokens: mx.array, position: int) -> Activations:
        with self._clock.part("verify"):
            return self._timed.embed(tokens, position)

    def run(self, activations: Activations, caches: CacheList) -> Activations:
        with self._clock.part("verify"):
            done = self._timed.run(activations, caches)
            mx.eval(done.h)
        return done

    def hidden(self, activations: Activations) -> Hidden:
        with self._clock.part("verify"):
            hidden = self._timed.hidden(activations)
            mx.eval(hidden.pre_norm, hidden.post_norm)
        return hidden

    def logits(self, h: mx.array) -> mx.array:
        with self._clock.part("verify"):
            logits = self._timed.logits(h)
            mx.eval(logits)
        return logits


class _TimedExchange(Exchange):
    """An exchange whose laps end when the rows are there: links and other hosts' layers are one part."""

    def __init__(self, exchange: Exchange, clock: _Clock) -> None:
        self._timed, self._clock = exchange, clock
        self.brings_rows = exchange.brings_rows

    def begin(self) -> None:
        self._timed.begin()

    def lap(
        self,
        rows_committed: int,
        tokens: mx.array,
        position: int,
        *,
        keep_all: bool = False,
        last_row: bool = False,
    ) -> Activations:
        with self._clock.part("link"):
            entering = self._timed.lap(rows_committed, tokens, position, keep_all=keep_all, last_row=last_row)
            mx.eval(entering.h)
        return entering


class _TimedCaches(CacheList):
    def __init__(self, layers: Sequence[Any], clock: _Clock) -> None:
        super().__init__(layers)
        self._clock = clock

    def commit(self, num_rows: int) -> None:
        with self._clock.part("commit"):
            super().commit(num_rows)
            mx.eval(self.arrays())


class _TimedSampler(Sampler):
    """A sampler whose verdicts are part of the pass that they judge."""

    def __init__(self, sampler: Sampler, clock: _Clock) -> None:
        self._timed, self._clock = sampler, clock

    def start(self, prompt: Sequence[int], vocab_size: int) -> Place:
        return self._timed.start(prompt, vocab_size)

    def choose(self, logits: mx.array, place: Place) -> mx.array:
        return self._timed.choose(logits, place)

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        return self._timed.draft(logits, place, drafted)

    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        with self._clock.part("verify"):
            verdict = self._timed.accept(logits, draft, place)
            mx.eval(verdict.num_accepted, verdict.tokens)
        return verdict


class _TimedHead(DraftHead):
    """A head whose work is done when it returns. What it reads of a pass belongs to the commit."""

    def __init__(self, head: DraftHead, clock: _Clock) -> None:
        self._timed, self._clock = head, clock

    def tapped(self, hidden: Hidden) -> Hidden:
        return self._timed.tapped(hidden)

    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        with self._clock.part("commit"):
            self._timed.ingest(hidden, next_tokens)
            mx.eval(self._timed.arrays())

    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        with self._clock.part("commit"):
            self._timed.observe(hidden, next_tokens)
            mx.eval(self._timed.arrays())

    def commit(self, num_rows: int) -> None:
        with self._clock.part("commit"):
            self._timed.commit(num_rows)
            mx.eval(self._timed.arrays())

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        with self._clock.part("draft"):
            draft = self._timed.draft(depth, sampler, place)
            mx.eval(draft.tokens)
        return draft

    def reset(self) -> None:
        self._timed.reset()

    def read_from(self, caches: CacheList) -> None:
        self._timed.read_from(caches)

    def arrays(self) -> list[mx.array]:
        return self._timed.arrays()
