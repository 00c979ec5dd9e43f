"""A ring of real processes gives the tokens of one host, whatever the cut, the depth and the way of sampling."""

from collections.abc import Iterator
from functools import cache

import pytest
from cluster_rings import answer, one_host, ring
from demo import demo, demo_head, prompts

from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.header import HEADER_SIZE
from skulk_core.cluster.wire import AutoAtDecider
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

NUM_TOKENS = 48
CUTS = {"2 even": (0, 4, 8), "3 uneven": (0, 5, 6, 8), "4 uneven": (0, 1, 4, 6, 8)}
DEPTHS = (0, 1, 2, 3, 4)
DRAWN = SamplingSettings(temperature=0.8, top_p=0.95, seed=7, repetition_penalty=1.1)


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


@cache
def expected(index: int, depth: int, sampling: SamplingSettings) -> list[int]:
    return one_host(demo().target, demo_head().head, encoded(index), depth, NUM_TOKENS, sampling)


@pytest.fixture(scope="module", params=CUTS)
def engine(request: pytest.FixtureRequest) -> Iterator[ClusterEngine]:
    with ring("demo", CUTS[request.param]) as started:
        yield started


def test_greedy_at_every_depth(engine: ClusterEngine) -> None:
    """A user would see another text because it was decoded on several machines."""
    for depth in DEPTHS:
        for index in (3, 5):
            tokens = answer(engine, encoded(index), depth, NUM_TOKENS)
            assert tokens == expected(index, 0, SamplingSettings()), f"depth {depth}, prompt {index}"


def test_one_lap_a_round(engine: ClusterEngine) -> None:
    """Anything more would cost every round another trip over the network."""
    size, hidden = len(engine.epoch.members), demo().target.hidden_size
    for depth in (0, 3):
        answer(engine, encoded(4), depth, NUM_TOKENS)
        stats = engine.stats
        # every hop carries header and rows, but no rows enter the first rank and no header the last
        hops = 2 * (size - 1)
        assert stats.messages == hops * stats.rounds
        headers, rows = (size - 1) * HEADER_SIZE * 4, (size - 1) * hidden * 4
        assert stats.message_nbytes == headers * stats.rounds + rows * (stats.rounds + stats.drafted)
        assert stats.synchronisations == stats.rounds + 1


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_the_same_seed_draws_the_same_tokens(engine: ClusterEngine, depth: int) -> None:
    assert answer(engine, encoded(6), depth, NUM_TOKENS, DRAWN) == expected(6, depth, DRAWN)


def test_auto_measures_the_ring_and_changes_no_token(engine: ClusterEngine) -> None:
    for _ in range(2):
        assert answer(engine, encoded(3), AutoAtDecider(6), NUM_TOKENS) == expected(3, 0, SamplingSettings())
    assert engine.stats.chose_depth
    assert engine.stats.draft_depth > 0


def test_a_conversation_is_not_read_again(engine: ClusterEngine) -> None:
    prompt = encoded(7)
    text = prompt + answer(engine, prompt, 2, 20)
    more = text + encoded(8)
    tokens = answer(engine, more, 2, 20, go_on=True)
    assert engine.stats.reused_tokens == len(text) - 1
    assert tokens == one_host(demo().target, None, more, 0, 20)


def test_a_text_that_nobody_reads_to_its_end(engine: ClusterEngine) -> None:
    """What is left of it must not turn up in the next one."""
    for depth in (0, 3):
        engine.prefill(encoded(1), depth, SamplingSettings(), Exactness.ARGMAX)
        rounds = engine.rounds(400, frozenset())
        next(rounds)
        rounds.close()
        assert answer(engine, encoded(3), depth, NUM_TOKENS) == expected(3, 0, SamplingSettings())


class Enough(Exception):
    """Of a prompt."""


def test_a_prompt_that_is_left_half_way(engine: ClusterEngine) -> None:
    """Parts of it are on their way round the ring by then: the next text must not meet them."""

    def leave(done: int, total: int) -> None:
        assert done < total, "read in one part"
        raise Enough

    prompt = (6 * demo().tokenizer.encode("\n".join(prompts())))[:700]
    for go_on in (False, True):
        with pytest.raises(Enough):
            engine.prefill(prompt, 2, SamplingSettings(), Exactness.ARGMAX, leave)
        text = [*prompt, *encoded(3)] if go_on else encoded(3)
        tokens = answer(engine, text, 2, 12, go_on=go_on)
        assert tokens == one_host(demo().target, None, text, 0, 12)


def test_a_prompt_of_several_passes(engine: ClusterEngine) -> None:
    prompt = (6 * demo().tokenizer.encode("\n".join(prompts())))[:2300]
    assert len(prompt) == 2300
    assert answer(engine, prompt, 2, 12) == _long(tuple(prompt))


@cache
def _long(prompt: tuple[int, ...]) -> list[int]:
    return one_host(demo().target, None, prompt, 0, 12)


def test_a_stop_token_ends_the_text(engine: ClusterEngine) -> None:
    whole = expected(5, 0, SamplingSettings())
    stop = whole[9]
    end = whole.index(stop, 1) + 1
    out = [engine.prefill(encoded(5), 3, SamplingSettings(), Exactness.ARGMAX)]
    for round_ in engine.rounds(40, frozenset({stop})):
        out += round_.tokens
    assert out == whole[:end]
    # nothing that the decider did beyond the end may stand in the figures
    stats = engine.stats
    assert stats.counted_rounds == stats.rounds
    assert stats.messages == 2 * (len(engine.epoch.members) - 1) * stats.rounds
