"""Who holds which layers: as memories and speeds allow and the family may be divided, or a table of what lacks."""

import itertools
from dataclasses import replace

import pytest

from skulk_core.errors import PlanDoesNotFit, ShareError, SplitError
from skulk_core.memory.caches import CacheShape, WorkingShape
from skulk_core.memory.division import Division, Part
from skulk_core.memory.placement import Capacity, ModelBytes, place_pipeline, place_tensor
from skulk_core.memory.weights import OuterParts, WeightBytes

GB = 10**9
EMBEDDING, LAST = frozenset({"embed_tokens"}), frozenset({"embed_tokens", "norm", "lm_head"})
OUTER = OuterParts(EMBEDDING, frozenset(), LAST, LAST)


def model(layers: list[int], points: tuple[int, ...] | None = None, head: int = 0, embed: int = 0) -> ModelBytes:
    return ModelBytes(
        weights=WeightBytes(tuple(layers), {"embed_tokens": embed, "norm": 0, "lm_head": embed}),
        outer=OUTER,
        caches=(CacheShape(),) * len(layers),
        working=WorkingShape(row=0, vocab=0, heads=0, prefill_rows=0),
        context=256,
        item_nbytes=2,
        head_nbytes=head,
        split_points=points if points is not None else tuple(range(1, len(layers))),
    )


def sizes(stages) -> list[int]:  # type: ignore[no-untyped-def]
    return [len(stage.layers) for stage in stages]


def hosts(*numbers: tuple[float, float]) -> list[Capacity]:
    return [Capacity(f"h{index}", int(gb * GB), speed) for index, (gb, speed) in enumerate(numbers)]


def test_equal_hosts_share_equally() -> None:
    assert sizes(place_pipeline(model([GB] * 12), hosts((9, 1), (9, 1), (9, 1)))) == [4, 4, 4]


def test_layers_follow_speed() -> None:
    """Prompts flow at the pace of the slowest stage: a host three times as fast takes three times the layers."""
    assert sizes(place_pipeline(model([GB] * 12), hosts((99, 1), (99, 3)))) == [3, 9]


def test_memory_wins_over_speed() -> None:
    assert sizes(place_pipeline(model([GB] * 12), hosts((99, 1), (5, 3)))) == [7, 5]


def test_the_decider_carries_head_and_lm_head() -> None:
    """The last rank has more than its layers, so equal hosts get unequal numbers of layers."""
    assert sizes(place_pipeline(model([GB] * 12, head=2 * GB), hosts((12, 1), (12, 1)))) == [7, 5]


def test_the_division_is_the_best_there_is() -> None:
    """Against every legal division, for unequal layers, hosts and boundaries."""
    layers = [3 * GB, GB, GB, 2 * GB, 5 * GB, GB, GB, 4 * GB, 2 * GB]
    many = model(layers, points=(1, 2, 4, 5, 7, 8), head=GB, embed=GB // 2)
    machines = hosts((7, 1), (9, 2.5), (11, 1.5))
    chosen = place_pipeline(many, machines)

    def slowest(edges: tuple[int, ...]) -> float:
        needs = [many.need(start, end) for start, end in itertools.pairwise(edges)]
        if any(need.total > host.available_nbytes for need, host in zip(needs, machines, strict=True)):
            return float("inf")
        return max(need.weights / host.speed for need, host in zip(needs, machines, strict=True))

    best = min(slowest((0, *inner, len(layers))) for inner in itertools.combinations(many.split_points, 2))
    assert slowest(tuple(stage.layers.start for stage in chosen) + (len(layers),)) == best < float("inf")


def test_illegal_boundaries_are_never_used() -> None:
    assert sizes(place_pipeline(model([GB] * 12, points=(4, 11)), hosts((99, 1), (99, 1)))) == [4, 8]


def test_more_ranks_than_stages_is_refused() -> None:
    with pytest.raises(SplitError, match="4 hosts for a model that makes at most 3 stages"):
        place_pipeline(model([GB] * 12, points=(4, 8)), hosts(*[(9, 1)] * 4))


def test_what_does_not_fit_is_refused_with_every_host_in_the_table() -> None:
    with pytest.raises(PlanDoesNotFit) as error:
        place_pipeline(model([GB] * 12), hosts((3, 1), (4, 1)))
    rows = error.value.rows
    assert [row[0] for row in rows] == ["h0", "h1"]
    assert sum(needed for _, needed, _, _ in rows) == 12 * GB
    assert all(short == max(0, needed - available) for _, needed, available, short in rows)
    assert sum(short for *_, short in rows) == 5 * GB
    assert "short by" in str(error.value)


def test_a_chosen_split_is_taken_or_refused() -> None:
    twelve, two = model([GB] * 12, points=(4, 8, 10)), hosts((99, 1), (99, 1))
    assert sizes(place_pipeline(twelve, two, [10, 2])) == [10, 2]
    for split, words in (([6, 6], "layer 6"), ([10, 1], "12 layers together"), ([4, 4, 4], "3 numbers for 2 hosts")):
        with pytest.raises(SplitError, match=words):
            place_pipeline(twelve, two, split)
    with pytest.raises(PlanDoesNotFit):
        place_pipeline(twelve, hosts((5, 1), (99, 1)), [10, 2])


def test_tensor_parallel_shares_are_equal_or_refused() -> None:
    """The head is with the first host, which decides; a share that is no whole number of heads is another model."""
    heads = Division("llama", (Part("attention heads", 12), Part("key and value heads", 4, may_repeat=True)))
    twelve = replace(model([GB] * 12, head=GB), division=heads)
    assert [stage.need.total for stage in place_tensor(twelve, hosts((7, 1), (70, 1)))] == [7 * GB, 6 * GB]
    with pytest.raises(PlanDoesNotFit, match="equal share") as error:
        place_tensor(twelve, hosts((6, 1), (70, 1)))
    assert error.value.rows[0] == ("h0", 7 * GB, 6 * GB, GB)
    for size, reason in ((5, "12 attention heads"), (6, "4 key and value heads")):
        with pytest.raises(ShareError, match=reason):
            place_tensor(twelve, hosts(*[(70, 1)] * size))
    # four heads for twelve hosts: three hosts have the same one
    assert len(place_tensor(twelve, hosts(*[(70, 1)] * 12))) == 12


def test_shares_of_a_quantised_model_are_whole_groups() -> None:
    columns = (Part("attention heads", 8), Part("MLP columns", 192, is_packed=True))
    Division("llama", columns).check(4)
    Division("llama", columns, group_size=32).check(2)
    with pytest.raises(ShareError, match="192 MLP columns in groups of 64"):
        Division("llama", columns, group_size=64).check(2)


def test_caches_grow_with_the_context_as_their_kind_says() -> None:
    full, window, fixed = CacheShape(100), CacheShape(100, most_rows=512), CacheShape(0, 5000)
    assert [shape.nbytes(1000, 2) for shape in (full, window, fixed)] == [100 * 1024 * 2, 100 * 512 * 2, 5000]
