"""The loop: draft, verify in one pass, accept, commit, stream. See `Decoder.rounds`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from skulk_core.cache.base import CacheList
from skulk_core.decode.exchange import Alone, Exchange
from skulk_core.decode.stats import Round, Stats
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Hidden, Target
from skulk_core.sampling.base import Acceptance, Draft, Sampler

# Rows of one prefill pass: enough to fill a device, few enough to report progress and to bound activations.
PREFILL_ROWS = 1024
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
        self, target: Target, head: DraftHead | None, sampler: Sampler, exchange: Exchange | None = None
    ) -> None:
        self._target, self._head, self._sampler = target, head, sampler
        self._exchange = exchange or Alone(target)
        self._start()

    def _start(self) -> None:
        self._caches = self._target.make_caches()
        if self._head is not None:
            self._head.reset()
        self._rows_committed = 0
        self._bonus = mx.zeros((1,), mx.int32)
        self.stats = Stats()

    def prefill(self, prompt: Sequence[int], depth: int, progress: Progress | None = None) -> int:
        """Begin a new text: feed ``prompt`` to target and head; return the first token.

        ``depth`` is the draft depth of the rounds to come; 0 needs no head. ``progress(done, total)`` is told of
        prompt tokens after every pass.
        """
        assert prompt, "an empty prompt"
        assert depth >= 0
        assert depth == 0 or self._head is not None, "speculation without a head"
        self._start()
        self.stats.draft_depth, self.stats.prompt_tokens = depth, len(prompt)
        began = time.perf_counter()
        tokens = mx.array(list(prompt), mx.int32)
        for start in range(0, len(prompt), PREFILL_ROWS):
            end = min(start + PREFILL_ROWS, len(prompt))
            hidden = self._feed(tokens[start:end])
            if end == len(prompt):
                self._bonus = self._sampler.choose(self._target.logits(hidden.post_norm[-1:])).astype(mx.int32)
            next_tokens = mx.concatenate(
                [tokens[start + 1 : end], tokens[end : end + 1] if end < len(prompt) else self._bonus]
            )
            self._settle(end - start, hidden, next_tokens, observe=depth > 0)
            self._wait(self._bonus, *self._caches.arrays(), *(self._head.arrays() if depth and self._head else ()))
            if progress is not None:
                progress(end, len(prompt))
        mx.clear_cache()
        self.stats.prefill_s = time.perf_counter() - began
        return _integers(self._bonus)[0]

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int] = frozenset()) -> Iterator[Round]:
        """Rounds after `prefill` until ``max_tokens`` more tokens or a stop token, which is the last one emitted.

        A round drafts ``d`` tokens, verifies them in one pass over ``[bonus, drafts]``, accepts a prefix of ``n``,
        commits ``n + 1`` rows everywhere and emits ``n + 1`` tokens, with one synchronisation. At depth 0 the verdict
        is known beforehand, so the next pass is launched before the token is waited for, while the caches are small.
        """
        left, depth = max_tokens, self.stats.draft_depth
        flight: _Flight | None = None
        while left > 0:
            began = time.perf_counter()
            flight = flight or self._launch(min(depth, left - 1))
            following = None
            if flight.depth == 0:
                self._take(flight, 1)
                ahead = depth == 0 and left > 1 and _pays_to_run_ahead(self._caches)
                following = self._launch(0) if ahead else None
            accepted, emitted = self._verdict(flight)
            kept = _until_stop(emitted, stop_tokens)
            if flight.depth > 0:
                self._take(flight, len(kept))
            round_ = Round(tuple(kept), flight.depth, accepted)
            flight, left = following, left - len(kept)
            self.stats.count(round_)
            if self.stats.rounds % _ROUNDS_BETWEEN_CLEARS == 0:
                mx.clear_cache()
            self.stats.decode_s += time.perf_counter() - began
            try:
                yield round_
            except GeneratorExit:
                self._caches.commit(0)
                raise
            if kept[-1] in stop_tokens:
                break
        # a pass launched ahead of its turn was never asked for
        self._caches.commit(0)

    def _feed(self, tokens: mx.array) -> Hidden:
        """One pass of the target over ``tokens``; its rows wait for their commit."""
        entering = self._exchange.lap(self._rows_committed, tokens, self._caches.rows)
        return self._target.hidden(self._target.run(entering, self._caches))

    def _launch(self, depth: int) -> _Flight:
        """Draft and verify; everything is handed to the device, nothing is waited for."""
        draft = Draft(mx.zeros((0,), mx.int32))
        if depth and self._head is not None:
            draft = self._head.draft(depth, self._sampler)
            # the device drafts while the verify pass is being built
            mx.async_eval(draft.tokens)
        window = mx.concatenate([self._bonus, draft.tokens.astype(mx.int32)])
        hidden = self._feed(window)
        acceptance = self._sampler.accept(self._target.logits(hidden.post_norm), draft)
        mx.async_eval(acceptance.num_accepted, acceptance.tokens)
        return _Flight(draft.depth, hidden, acceptance)

    def _verdict(self, flight: _Flight) -> tuple[int, list[int]]:
        """Wait for a pass: drafts accepted, and the tokens it emits."""
        acceptance = flight.acceptance
        self._wait(acceptance.num_accepted, acceptance.tokens)
        accepted = _integers(acceptance.num_accepted[None])[0]
        return accepted, _integers(acceptance.tokens)[: accepted + 1]

    def _take(self, flight: _Flight, num_rows: int) -> None:
        """Commit the first ``num_rows`` rows of a pass; its last token becomes the bonus token."""
        tokens = flight.acceptance.tokens[:num_rows].astype(mx.int32)
        self._bonus = tokens[-1:]
        self._settle(num_rows, flight.hidden.rows(0, num_rows), tokens, observe=self.stats.draft_depth > 0)

    def _settle(self, num_rows: int, hidden: Hidden, next_tokens: mx.array, *, observe: bool) -> None:
        """Commit ``num_rows`` rows everywhere and let the head observe their pairs."""
        if observe and self._head is not None:
            # first: the device is busy with the head while the commits are built, which only the next pass needs
            self._head.observe(hidden, next_tokens)
        self._caches.commit(num_rows)
        self._rows_committed = num_rows

    def _wait(self, *arrays: mx.array) -> None:
        self.stats.synchronisations += 1
        mx.eval(*arrays)


def _pays_to_run_ahead(caches: CacheList) -> bool:
    """Whether a pass should be launched before the one before it is done."""
    return mx.default_device() != mx.cpu or caches.buffer_nbytes <= _MOST_COPIED_NBYTES


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
