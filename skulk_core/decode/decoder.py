"""The loop: draft, verify in one pass, accept, commit, stream. See `Decoder.rounds`."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import mlx.core as mx

from skulk_core.cache.base import CacheList
from skulk_core.decode.depth import DepthPolicy, FixedDepth
from skulk_core.decode.exchange import Alone, Exchange
from skulk_core.decode.follower import Follower
from skulk_core.decode.room import Room
from skulk_core.decode.stats import Round, Stats
from skulk_core.errors import MemoryFull
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Activations, Hidden, Target
from skulk_core.models.light import hand_over
from skulk_core.runtime.memory_limit import is_out_of_memory
from skulk_core.sampling.base import Acceptance, Draft, Place, Sampler

# Rows of one prefill pass, as many as mlx-lm's: enough to fill a device, few enough to report progress.
PREFILL_ROWS = 2048
# Rounds between releases of MLX's buffer cache: growing key buffers leave freed ones of every size behind.
_ROUNDS_BETWEEN_CLEARS = 256

# K/V that a pass launched ahead may copy on a CPU: beyond this the copies cost more than the wait for the pass before.
_MOST_COPIED_NBYTES = 16 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Flight:
    """A verify pass that was launched and not yet waited for."""

    depth: int
    hidden: Hidden
    acceptance: Acceptance


class Decoder:
    """Decodes one text at a time over a target and, if speculation is on, a head.

    Between rounds: every cache and the head hold exactly the emitted tokens but the last, the bonus token, which was
    emitted and not yet fed.
    """

    def __init__(
        self,
        target: Target,
        head: DraftHead | None,
        sampler: Sampler,
        exchange: Exchange | None = None,
        room: Room | None = None,
    ) -> None:
        self._target, self._sampler, self.room = target, sampler, room
        self._head = None if head is None else Follower(head)
        self._exchange = exchange or Alone(target)
        self._policy: DepthPolicy = FixedDepth(0)
        self._place, self._strict_below = Place(0), 0.0
        self.forget()

    def forget(self) -> None:
        """Let go of the text: the next one is read from its beginning."""
        self._exchange.begin()
        self._caches = self._target.make_caches()
        if self._head is not None:
            self._head.reset(self._caches)
        self._rows_committed = 0
        self._bonus = mx.zeros((1,), mx.int32)
        self._text: list[int] = []  # prompt and answer; the caches hold all but the last
        self._followed = False  # whether the head has read the whole text
        self.stats = Stats()

    @property
    def text(self) -> tuple[int, ...]:
        """Token ids of prompt and answer so far."""
        return tuple(self._text)

    def prefill(
        self,
        prompt: Sequence[int],
        depth: int | DepthPolicy,
        progress: Progress | None = None,
        sampler: Sampler | None = None,
        *,
        go_on: bool = False,
        strict_below: float = 0.0,
        answer: Sequence[int] = (),
    ) -> int:
        """Begin a new text: feed ``prompt`` to target and head; return the first token.

        ``depth`` is the draft depth of the rounds to come, or who decides it; 0 needs no head. ``progress(done,
        total)`` is told of prompt tokens after every pass. ``sampler`` replaces the decoder's from here on. With
        ``go_on`` a prompt that begins with the text decoded last is not fed again: only what follows is. A row of a
        wide pass whose best logits are closer than ``strict_below`` is decided by a pass of its own; the sampler must
        tell gaps then. ``answer`` are tokens that an earlier run emitted after ``prompt``: they are fed too, and the
        rounds to come are those that it would have gone on with; the last of them is returned. Raises `MemoryFull`.
        """
        assert prompt, "an empty prompt"
        assert not (go_on and answer), "an answer that goes on is in the caches"
        policy = FixedDepth(depth) if isinstance(depth, int) else depth
        assert policy.most == 0 or self._head is not None, "speculation without a head"
        held = self._held_of(prompt, policy) if go_on else 0
        if not held:
            self.forget()
        self._policy, self._sampler = policy, sampler or self._sampler
        self._followed, self._strict_below = policy.most > 0 and self._head is not None, strict_below
        self.stats = Stats(
            draft_depth=policy.most,
            chose_depth=not isinstance(policy, FixedDepth),
            prompt_tokens=len(prompt),
            reused_tokens=held,
        )
        began = time.perf_counter()
        self._place = self._sampler.start(prompt, self._target.vocab_size)
        text = [*prompt, *answer]
        tokens = mx.array(text[held:], mx.int32)
        # the last token of an answer is the bonus token: emitted, not yet fed
        num_fed = len(tokens) - bool(answer)
        most = PREFILL_ROWS if self.room is None else self.room.part_rows(self._caches.rows, num_fed, PREFILL_ROWS)
        self.stats.read_in_pieces = held > 0 or bool(answer) or most < min(num_fed, PREFILL_ROWS)
        parts = self._exchange.prompt(
            self._rows_committed, tokens[:num_fed], self._caches.rows, most, last_row=not self._followed
        )
        with closing(parts), self._failing_allocations():
            end = 0
            while end < num_fed:
                self._text = []  # of a pass that fails nobody knows how far it came
                end = self._prefill_pass(tokens, next(parts), end)
                following = text[held + end : held + end + 1] if end < len(tokens) else _integers(self._bonus)
                if end == num_fed or not self._exchange.runs_ahead:
                    self._text = [*text[: held + end], *following]
                if progress is not None:
                    progress(min(held + end, len(prompt)), len(prompt))
        mx.clear_cache()
        if answer:
            self._bonus = tokens[num_fed:]
        self._place = self._place.after(mx.array(list(answer), mx.int32) if answer else self._bonus)
        self.stats.prefill_s = time.perf_counter() - began
        return self._text[-1]

    def _held_of(self, prompt: Sequence[int], policy: DepthPolicy) -> int:
        """Tokens of ``prompt`` that the caches hold; 0 if it is another text, or the head has not read it."""
        text = self._text
        if not text or list(prompt[: len(text)]) != text:
            return 0
        if self._caches.pending or self._caches.rows != len(text) - 1:
            # a round failed half way
            return 0
        return len(text) - 1 if self._followed or not policy.most else 0

    def _prefill_pass(self, tokens: mx.array, entering: Activations, start: int) -> int:
        """Feed a part of ``tokens`` that begins with row ``start``; returns where it ends.

        After the last of the tokens the first token of the answer is chosen.
        """
        end = start + len(entering)
        left = self._target.run_and_commit(entering, self._caches, last_row=not self._followed)
        hidden = self._target.hidden(left)
        self._rows_committed = end - start
        if end == len(tokens):
            logits = self._target.logits(hidden.post_norm[-1:])
            self._bonus = self._sampler.choose(logits, self._place).astype(mx.int32)
        if self._followed and self._head is not None:
            following = tokens[end : end + 1] if end < len(tokens) else self._bonus
            self._head.ingest(hidden, mx.concatenate([tokens[start + 1 : end], following]))
        head = self._head.arrays() if self._followed and self._head is not None else []
        self._wait(self._bonus, *self._caches.arrays(), *head)
        return end

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int] = frozenset()) -> Generator[Round, None, None]:
        """Rounds after `prefill` until ``max_tokens`` more tokens or a stop token, which is the last one emitted.

        A round drafts ``d`` tokens, verifies them in one pass over ``[bonus, drafts]``, accepts a prefix of ``n``,
        commits ``n + 1`` rows everywhere and emits ``n + 1`` tokens, with one synchronisation. At depth 0 the verdict
        is known beforehand, so the next pass is launched before the token is waited for, while the caches are small.

        Where memory is left for none, the text ends, `Stats.full` says so, and what was emitted is whole.
        """
        try:
            with self._failing_allocations():
                yield from self._rounds(max_tokens, stop_tokens)
        except MemoryFull as full:
            self.stats.full = full
            if full.in_pass:
                self._text = []  # nobody knows how far it came
            else:
                self._drop_pass_ahead()

    def _rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        left = max_tokens
        flight: _Flight | None = None
        while left > 0:
            began = time.perf_counter()
            flight = flight or self._launch(self._affordable(min(self._policy.next_depth(), left - 1)))
            following = None
            if flight.depth == 0:
                self._take(flight, 1)
                ahead = left > 1 and self._policy.next_depth() == 0 and self._may_run_ahead()
                following = self._launch(0) if ahead else None
            accepted, emitted = self._verdict(flight)
            row = self._row_in_doubt(flight, accepted) if flight.depth else None
            if row is not None and not stop_tokens.intersection(emitted[:row]):
                emitted, accepted = self._decide_alone(flight, row, emitted), row
                kept = _until_stop(emitted, stop_tokens)
            else:
                kept = _until_stop(emitted, stop_tokens)
                if flight.depth > 0:
                    self._take(flight, len(kept))
            self._text += kept
            round_ = Round(tuple(kept), flight.depth, accepted)
            flight, left = following, left - len(kept)
            self.stats.count(round_)
            self._policy.saw(round_)
            if self.stats.rounds % _ROUNDS_BETWEEN_CLEARS == 0:
                mx.clear_cache()
            self.stats.decode_s += time.perf_counter() - began
            try:
                yield round_
            except GeneratorExit:
                self._drop_pass_ahead()
                raise
            if kept[-1] in stop_tokens:
                break
        self._drop_pass_ahead()

    def _may_run_ahead(self) -> bool:
        """Whether a pass can be launched before the one before it is done, which reads the same buffers."""
        if not _pays_to_run_ahead(self._caches):
            return False
        return self.room is None or self.room.has(self._caches.rows, 1, also_nbytes=self._caches.buffer_nbytes)

    def _affordable(self, depth: int) -> int:
        """``depth``, or less where memory is short. Raises `MemoryFull` where there is none for a single row."""
        if self.room is None:
            return depth
        while depth and not self.room.has(self._caches.rows, depth + 1):
            depth //= 2
        if not depth:
            self.room.check(self._caches.rows, 1)
        return depth

    @contextmanager
    def _failing_allocations(self) -> Iterator[None]:
        """Raises `MemoryFull` where MLX could not allocate."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            mx.clear_cache()
            raise MemoryFull from error

    def _drop_pass_ahead(self) -> None:
        """A pass launched ahead of its turn was never asked for."""
        if self._caches.pending:
            self._caches.commit(0)
            self._rows_committed = 0

    def _launch(self, depth: int) -> _Flight:
        """Draft and verify; everything is handed to the device, nothing is waited for."""
        draft = Draft(mx.zeros((0,), mx.int32))
        if depth and self._head is not None:
            draft = self._head.draft(depth, self._sampler, self._place)
            # the device drafts while the verify pass is being built
            mx.async_eval(draft.tokens)
        window = mx.concatenate([self._bonus, draft.tokens.astype(mx.int32)])
        entering = self._exchange.lap(self._rows_committed, window, self._caches.rows)
        hidden = self._target.hidden(self._target.run(entering, self._caches))
        logits = self._target.logits(hidden.post_norm)
        hand_over(logits)
        acceptance = self._sampler.accept(logits, draft, self._place)
        acceptance = replace(acceptance, tokens=acceptance.tokens.astype(mx.int32))
        mx.async_eval(*_arrays(acceptance))
        if draft.depth and self._head is not None:
            # every row, before the verdict is known: the device need not wait for us to hear of it
            self._head.observe(hidden, acceptance.tokens)
        return _Flight(draft.depth, hidden, acceptance)

    def _verdict(self, flight: _Flight) -> tuple[int, list[int]]:
        """Wait for a pass: drafts accepted, and the tokens it emits."""
        acceptance = flight.acceptance
        self._wait(*_arrays(acceptance))
        # as it is: any operation on it would be evaluated behind the pass that was launched ahead
        accepted: int = acceptance.num_accepted.item()  # type: ignore[assignment]
        return accepted, _integers(acceptance.tokens)[: accepted + 1]

    def _take(self, flight: _Flight, num_rows: int) -> None:
        """Commit the first ``num_rows`` rows of a pass everywhere; its last token becomes the bonus token."""
        tokens = flight.acceptance.tokens
        if num_rows < tokens.shape[0]:
            tokens = tokens[:num_rows]
        if num_rows:
            self._bonus = tokens[-1:]
            self._place = self._place.after(tokens)
        if self._followed and self._head is not None:
            if flight.depth:
                self._head.commit(num_rows)
            else:
                self._head.keep(flight.hidden, tokens)
        self._caches.commit(num_rows)
        if flight.depth:
            hand_over(*self._caches.arrays())
        self._rows_committed = num_rows

    def _row_in_doubt(self, flight: _Flight, accepted: int) -> int | None:
        """The first row of an evaluated pass, of those that decided a token, that was decided by less than allowed."""
        if not self._strict_below:
            return None
        gaps = flight.acceptance.gaps
        assert gaps is not None, "a sampler that tells no gaps"
        values: list[float] = gaps.tolist()  # type: ignore[assignment]
        return next((row for row, gap in enumerate(values[: accepted + 1]) if gap < self._strict_below), None)

    def _decide_alone(self, flight: _Flight, row: int, emitted: list[int]) -> list[int]:
        """Keep what the rows before ``row`` of a pass decided and decide that row by a pass of its own."""
        self._take(flight, row)
        alone = self._launch(0)
        self._take(alone, 1)
        self.stats.extra_passes += 1
        return emitted[:row] + self._verdict(alone)[1]

    def _wait(self, *arrays: mx.array) -> None:
        self.stats.synchronisations += 1
        mx.eval(*arrays)


def _pays_to_run_ahead(caches: CacheList) -> bool:
    """Whether a pass should be launched before the one before it is done."""
    return mx.default_device() != mx.cpu or caches.buffer_nbytes <= _MOST_COPIED_NBYTES


def _arrays(acceptance: Acceptance) -> list[mx.array]:
    known = (acceptance.num_accepted, acceptance.tokens, acceptance.gaps)
    return [array for array in known if array is not None]


def _until_stop(tokens: list[int], stop_tokens: frozenset[int]) -> list[int]:
    """``tokens`` up to and including the first stop token."""
    for index, token in enumerate(tokens):
        if token in stop_tokens:
            return tokens[: index + 1]
    return tokens


def _integers(array: mx.array) -> list[int]:
    """The values of an evaluated ``[n]`` array."""
    values: list[int] = array.tolist()  # type: ignore[assignment]
    return values
