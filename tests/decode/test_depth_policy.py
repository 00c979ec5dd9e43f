"""The depth that chooses itself: from costs and what is accepted, and never much slower than plain decoding."""

import random

import pytest
from demo import demo, demo_head, prompts

from skulk_core.decode.decoder import Decoder
from skulk_core.decode.depth import AutoDepth, DepthPolicy, FixedDepth
from skulk_core.decode.stats import Round
from skulk_core.heads.base import DraftHead
from skulk_core.sampling.greedy import GreedySampler

# seconds of a round at depths 0 to 6: a small model on a CPU, a large one on a GPU, sparse experts
COSTS = {
    "small": (4.6, 6.6, 7.8, 8.9, 9.7, 10.6, 11.6),
    "large": (30.0, 33.0, 36.0, 45.0, 50.0, 55.0, 60.0),
    "sparse": (30.0, 45.0, 58.0, 70.0, 80.0, 90.0, 100.0),
}
ACCEPTANCE = {
    "good": (0.88, 0.9, 0.9, 0.88, 0.87, 0.86),
    "middling": (0.72, 0.78, 0.8, 0.8, 0.8, 0.8),
    "fading": (0.8, 0.7, 0.6, 0.5, 0.4, 0.4),
    "weak": (0.35, 0.3, 0.3, 0.3, 0.3, 0.3),
    "dead": (0.0,) * 6,
}


def seconds_per_token(policy: DepthPolicy, acceptance: tuple[float, ...], costs: tuple[float, ...], seed: int) -> float:
    """What 300 tokens cost under a policy, where drafts are accepted with the given probabilities."""
    draw, spent, tokens = random.Random(seed), 0.0, 0
    while tokens < 300:
        depth, accepted = min(policy.next_depth(), 299 - tokens), 0
        while accepted < depth and draw.random() < acceptance[accepted]:
            accepted += 1
        spent += costs[depth]
        tokens += accepted + 1
        policy.saw(Round((0,) * (accepted + 1), depth, accepted))
    return spent / tokens


def mean(make: type[FixedDepth] | type[AutoDepth], argument: object, acceptance: str, costs: str) -> float:
    runs = [seconds_per_token(make(argument), ACCEPTANCE[acceptance], COSTS[costs], seed) for seed in range(40)]  # type: ignore[arg-type]
    return sum(runs) / len(runs)


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("acceptance", ACCEPTANCE)
def test_it_is_as_good_as_the_best_fixed_depth(acceptance: str, costs: str) -> None:
    """Otherwise people must tune what the program can see for itself."""
    best = min(mean(FixedDepth, depth, acceptance, costs) for depth in range(7))
    assert mean(AutoDepth, COSTS[costs], acceptance, costs) <= best / 0.95


@pytest.mark.parametrize("costs", COSTS)
def test_a_dead_head_costs_next_to_nothing(costs: str) -> None:
    plain = mean(FixedDepth, 0, "dead", costs)
    assert mean(AutoDepth, COSTS[costs], "dead", costs) <= plain / 0.97


def test_a_head_that_becomes_useful_is_noticed() -> None:
    """A text may begin with what nobody can foresee and go on with a table."""
    policy = AutoDepth(COSTS["small"])
    seconds_per_token(policy, ACCEPTANCE["dead"], COSTS["small"], 0)
    assert policy.next_depth() == 0
    for seed in range(2):
        seconds_per_token(policy, ACCEPTANCE["good"], COSTS["small"], seed)
    assert policy.next_depth() >= 3


@pytest.mark.parametrize(("costs", "gain"), [("small", 1.45), ("large", 1.6), ("sparse", 1.2)])
def test_a_slow_start_does_not_cost_the_whole_text(costs: str, gain: float) -> None:
    """The first line of a list, say, is nobody's guess: a head that seemed dead is looked at again soon."""
    spent = 0.0
    for seed in range(100):
        policy, tokens, draw = AutoDepth(COSTS[costs]), 0, random.Random(seed)
        while tokens < 300:
            chances = ACCEPTANCE["dead" if tokens < 8 + seed % 52 else "good"]
            depth, accepted = policy.next_depth(), 0
            while accepted < depth and draw.random() < chances[accepted]:
                accepted += 1
            spent += COSTS[costs][depth]
            tokens += accepted + 1
            policy.saw(Round((0,) * (accepted + 1), depth, accepted))
    assert COSTS[costs][0] * 300 * 100 / spent > gain


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("bad_from", [1, 2])
def test_what_was_once_seen_at_a_deep_position_is_not_believed_for_ever(bad_from: int, costs: str) -> None:
    """A chat holds one policy: a stretch in which only the first drafts held must not keep it shallow."""
    first = tuple(0.9 if position < bad_from else 0.02 for position in range(6))
    then = (0.9,) * 6
    best = min(sum(_spent(FixedDepth(d), then, costs, seed) for seed in range(10)) for d in range(7))
    spent = 0.0
    for seed in range(10):
        policy = AutoDepth(COSTS[costs])
        for part in range(2):
            seconds_per_token(policy, first, COSTS[costs], 1000 * part + seed)
        spent += _spent(policy, then, costs, seed)
    assert spent <= best / 0.93


def _spent(policy: DepthPolicy, acceptance: tuple[float, ...], costs: str, seed: int) -> float:
    """Seconds a token over a long text."""
    return sum(seconds_per_token(policy, acceptance, COSTS[costs], 100 * part + seed) for part in range(10)) / 10


def test_two_depths_that_are_alike_do_not_alternate() -> None:
    policy, chosen = AutoDepth((1.0, 1.7, 2.4)), []
    draw = random.Random(0)
    for _ in range(400):
        depth = policy.next_depth()
        chosen.append(depth)
        accepted = int(depth > 0 and draw.random() < 0.7)
        policy.saw(Round((0,) * (accepted + 1), depth, accepted))
    changes = sum(before != after for before, after in zip(chosen[100:], chosen[101:], strict=False))
    assert changes <= 30


def test_asking_changes_nothing() -> None:
    policy = AutoDepth(COSTS["small"])
    assert policy.next_depth() == policy.next_depth() == policy.next_depth()


class _Changing:
    """Every depth in turn, plain rounds among them."""

    most = 4

    def __init__(self) -> None:
        self._rounds = 0

    def next_depth(self) -> int:
        return (0, 3, 0, 0, 1, 4, 2, 0)[self._rounds % 8]

    def saw(self, round_: Round) -> None:
        self._rounds += 1


def decode(depth: int | DepthPolicy, head: DraftHead | None, num_tokens: int = 150) -> tuple[list[int], Decoder]:
    decoder = Decoder(demo().target, head, GreedySampler())
    tokens = [decoder.prefill(demo().tokenizer.encode(prompts()[5]), depth)]
    for round_ in decoder.rounds(num_tokens - 1):
        tokens += round_.tokens
    return tokens, decoder


def test_a_changing_depth_changes_no_token_and_starves_no_head() -> None:
    """The head must read the pairs of plain rounds too, or its memory has holes and acceptance fades."""
    expected, _ = decode(0, None)
    tokens, decoder = decode(_Changing(), demo_head().head)
    assert tokens == expected
    _, fixed = decode(4, demo_head().head)
    assert decoder.stats.acceptance[0] > fixed.stats.acceptance[0] - 0.15


def test_auto_decodes_the_same_text() -> None:
    expected, _ = decode(0, None)
    tokens, decoder = decode(AutoDepth(COSTS["small"]), demo_head().head)
    assert tokens == expected
    assert decoder.stats.chose_depth
    assert decoder.stats.tokens_per_round > 2
