"""Memory for passes: what does not fit is not run, and a text that ends for it is whole."""

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts

from skulk_core.decode.decoder import Decoder
from skulk_core.decode.engine import LocalEngine
from skulk_core.decode.room import Room
from skulk_core.errors import MemoryFull
from skulk_core.heads.ngram import NgramHead
from skulk_core.models.shape import passes_of
from skulk_core.runtime.memory_limit import MemoryLimit
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness


def room(spare_nbytes: int, head: object = None) -> Room:
    """What there is if this process may hold so many bytes more than now."""
    mx.clear_cache()
    passes = passes_of(demo().target, writes_scores=True, decides=True, has_head=head is not None)
    return Room(passes, MemoryLimit(int(mx.get_active_memory()) + spare_nbytes, asks_system=False))


def tokens_of(decoder: Decoder, prompt: list[int], depth: int, num_tokens: int) -> list[int]:
    out = [decoder.prefill(prompt, depth)]
    for round_ in decoder.rounds(num_tokens - 1):
        out += round_.tokens
    return out


def test_a_prompt_is_read_in_parts_as_small_as_memory_needs() -> None:
    """Rather than refused, as long as any part fits; and MLX's freed buffers are let go before that."""
    prompt = (4 * demo().tokenizer.encode("\n".join(prompts())))[:1500]
    whole = Decoder(demo().target, None, GreedySampler())
    mx.reset_peak_memory()
    unlimited = -mx.get_active_memory()
    expected = tokens_of(whole, prompt, 0, 8)
    unlimited += mx.get_peak_memory()
    del whole
    tight = Decoder(demo().target, None, GreedySampler(), room=room(10_000_000))
    done: list[int] = []
    mx.eval(mx.zeros((1 << 20,)) + 1)
    assert mx.get_cache_memory() >= 4 << 20
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    assert tight.prefill(prompt, 0, lambda number, _: done.append(number)) == expected[0]
    assert len(done) > 2
    # what a pass takes is an estimate
    assert mx.get_peak_memory() - before < 12_000_000 < unlimited / 1.5
    with pytest.raises(MemoryFull) as full:
        Decoder(demo().target, None, GreedySampler(), room=room(1_000_000)).prefill(prompt, 0)
    assert full.value.needed_nbytes > full.value.left_nbytes


class Failing(NgramHead):
    """Drafts until MLX can allocate no more, as its GPU backends say it, once."""

    left = 3

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        self.left -= 1
        if not self.left:
            raise RuntimeError("[malloc_or_wait] Unable to allocate 123456 bytes.")
        return super().draft(depth, sampler, place)


def test_an_allocation_that_fails_ends_the_text_and_not_the_program() -> None:
    """What was decoded is kept, and the next text is decoded from its beginning."""
    prompt = demo().tokenizer.encode(prompts()[0])
    expected = tokens_of(Decoder(demo().target, None, GreedySampler()), prompt, 0, 40)
    decoder = Decoder(demo().target, Failing(), GreedySampler())
    tokens = tokens_of(decoder, prompt, 2, 40)
    assert 2 < len(tokens) < 40
    assert tokens == expected[: len(tokens)]
    assert decoder.stats.full is not None
    assert decoder.stats.full.in_pass
    more = [*prompt, *tokens]
    first = decoder.prefill(more, 2, go_on=True)
    assert decoder.stats.reused_tokens == 0
    assert [first, *next(decoder.rounds(3)).tokens][:2] == expected[len(tokens) : len(tokens) + 2]


def test_less_is_drafted_before_a_text_is_ended() -> None:
    """A narrow pass needs less than a wide one."""
    prompt = demo().tokenizer.encode(prompts()[0])
    head = demo_head().head
    decoder = Decoder(demo().target, head, GreedySampler())
    decoder.prefill(prompt, 8)
    passes = passes_of(demo().target, writes_scores=True, decides=True, has_head=True)
    rows = len(prompt)
    spare = (passes.nbytes(rows, 4) + passes.nbytes(rows, 9)) // 2
    decoder.room = room(spare, head)
    assert 0 < next(decoder.rounds(20)).num_drafted < 8


def test_no_second_set_of_caches_beside_what_there_is_no_room_for() -> None:
    """A certificate reads the text again: on a CPU an allocation that the system refuses would end the program."""
    prompt = demo().tokenizer.encode(prompts()[0])
    engine = LocalEngine(demo().target, demo().tokenizer, None)
    engine.prefill(prompt, 0, SamplingSettings(), Exactness.ARGMAX)
    assert engine.certify(prompt, [1, 2, 3], 0, SamplingSettings()).compared == 3
    engine.decoder.room = room(100_000)
    with pytest.raises(MemoryFull):
        engine.certify(prompt, [1, 2, 3], 0, SamplingSettings())
