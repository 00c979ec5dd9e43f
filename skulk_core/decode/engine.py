"""What decodes: a model in this process, or one that is spread over workers. A `Session` cannot tell which."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.generate import wired_limit

from skulk_core.decode.certificate import Certificate, certify, measure_bound
from skulk_core.decode.decoder import Decoder, Progress
from skulk_core.decode.depth import DepthPolicy
from skulk_core.decode.exchange import Exchange
from skulk_core.decode.room import Room
from skulk_core.decode.stats import Round, Stats
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.models.shape import passes_of
from skulk_core.runtime.memory_limit import limit_memory
from skulk_core.sampling.base import Sampler
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler
from skulk_core.types import Exactness

# What bounds are measured on: prose, code and figures, so that the logits are of many kinds.
MEASURED_TEXT = """The lighthouse keeper wrote the weather into a book every evening: wind from the north-west,
12 knots, a falling barometer. "Rain before seven," she said, and lit the lamp.

def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

| year | ships |
| 1911 | 1,204 |
| 1912 | 1,377 |
"""


class Engine(Protocol):
    """Decodes one text at a time: `prefill`, then `rounds`."""

    @property
    def stats(self) -> Stats:
        """Of the text that was begun last; counted on while it is decoded."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """What each rank is and holds now, in words; empty in one process. Others after a loss are another ring."""
        ...

    def working(self) -> AbstractContextManager[None]:
        """Entered around a text."""
        ...

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
        """Read ``prompt``, or with ``go_on`` what of it was not read before; the first token of the answer.

        ``answer`` as `Decoder.prefill`'s.
        """
        ...

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        """Rounds until ``max_tokens`` more tokens or a stop token; whoever takes them may stop after any."""
        ...

    def certify(
        self,
        prompt: Sequence[int],
        answer: Sequence[int],
        depth: int,
        sampling: SamplingSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> Certificate:
        """Compare an answer that was decoded at ``depth`` with plain decoding."""
        ...

    def reset_peaks(self) -> None:
        """Have `peaks` begin anew."""
        ...

    def peaks(self) -> tuple[int, ...]:
        """The most bytes that MLX held on each rank since `reset_peaks`; 0 where it does not tell."""
        ...


def room_of(target: Target, head: DraftHead | None) -> Room:
    """What this process has for passes of ``target``, where it is loaded. Raises `OptionError` for a bad limit."""
    limit = limit_memory()
    return Room(passes_of(target, writes_scores=limit.asks_system, decides=True, has_head=head is not None), limit)


class LocalEngine(Engine):
    """One model in this process, with every layer, or with the help of the other hosts of ``exchange``."""

    def __init__(
        self,
        target: Target,
        tokenizer: Any,
        head: DraftHead | None,
        exchange: Exchange | None = None,
        room: Room | None = None,
    ) -> None:
        self._target, self._tokenizer, self._exchange = target, tokenizer, exchange
        self.decoder = Decoder(target, head, GreedySampler(), exchange, room or room_of(target, head))
        self._bounds: dict[tuple[int, bool], float] = {}

    @property
    def stats(self) -> Stats:
        return self.decoder.stats

    @property
    def parts(self) -> tuple[str, ...]:
        return ()

    def working(self) -> AbstractContextManager[None]:
        entered: AbstractContextManager[None] = wired_limit(self._target.model)
        return entered

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
        strict = exactness is Exactness.STRICT
        most = depth if isinstance(depth, int) else depth.most
        below = self.bound(most, in_pieces=go_on or bool(answer)) if strict else 0.0
        sampler = self.sampler(sampling, gaps=strict)
        return self.decoder.prefill(prompt, depth, progress, sampler, go_on=go_on, strict_below=below, answer=answer)

    def sampler(self, sampling: SamplingSettings, *, gaps: bool) -> Sampler:
        """What draws the tokens of the next text."""
        return make_sampler(sampling, gaps=gaps)

    def rounds(self, max_tokens: int, stop_tokens: frozenset[int]) -> Generator[Round, None, None]:
        return self.decoder.rounds(max_tokens, stop_tokens)

    def bound(self, depth: int, *, in_pieces: bool = False) -> float:
        """The gap up to which passes of draft depths up to ``depth`` may decide otherwise than plain decoding.

        Measured once for a depth, on a text of ours; ``in_pieces`` as `measure_bound`'s.
        """
        key = depth, in_pieces
        if key not in self._bounds:
            text = self._tokenizer.encode(MEASURED_TEXT)
            self._bounds[key] = measure_bound(self._target, text, depth + 1, self._exchange, in_pieces=in_pieces)
            self.forget_where_shared()
        return self._bounds[key]

    def certify(
        self,
        prompt: Sequence[int],
        answer: Sequence[int],
        depth: int,
        sampling: SamplingSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> Certificate:
        bound = self.bound(depth, in_pieces=self.stats.read_in_pieces)
        room = self.decoder.room
        if room is not None and not room.has_text(len(prompt) + len(answer)):
            # its own caches stand in the way of a second set
            self.decoder.forget()
            room.check_text(len(prompt) + len(answer))
        try:
            return certify(self._target, prompt, answer, bound, sampling, progress, self._exchange)
        finally:
            self.forget_where_shared()

    def reset_peaks(self) -> None:
        mx.clear_cache()
        mx.reset_peak_memory()

    def peaks(self) -> tuple[int, ...]:
        return (int(mx.get_peak_memory()),)

    def forget_where_shared(self) -> None:
        """After something else went through the other hosts' caches: no text can go on from them."""
        if self._exchange is not None:
            self.decoder.forget()
