"""Which parts are fetched: everything wanted, little else, and always the same parts."""

import random

import pytest

from swp.fetch_plan import ByteRange, plan_fetch


def wanted_of(rng: random.Random) -> list[ByteRange]:
    files = {file: 0 for file in ("a", "b")}
    out = []
    for _ in range(rng.randrange(1, 40)):
        file = rng.choice("ab")
        begin = files[file] + rng.choice((0, 0, 1, 60, 5_000))
        files[file] = begin + rng.randrange(0, 3_000)
        out.append(ByteRange(file, begin, files[file]))
    rng.shuffle(out)
    return out


@pytest.mark.parametrize("seed", range(30))
def test_every_byte_wanted_is_fetched_once_and_few_others(seed: int) -> None:
    """A byte too many is paid for by whoever extracts; one too few is no sidecar."""
    rng = random.Random(seed)
    wanted = wanted_of(rng)
    plan = plan_fetch(wanted, part_nbytes=1_000)
    fetched = [(part.file, at) for part in plan.parts for at in range(part.begin, part.end)]
    needed = {(one.file, at) for one in wanted for at in range(one.begin, one.end)}
    assert len(fetched) == len(set(fetched)) == plan.nbytes
    assert needed <= set(fetched)
    assert plan.nbytes <= 1.02 * len(needed)
    assert plan.wanted_nbytes == len(needed)
    assert all(0 < part.nbytes <= 1_000 for part in plan.parts)
    rng.shuffle(wanted)
    assert plan_fetch(wanted, part_nbytes=1_000) == plan, "a second run would not find what the first one fetched"


@pytest.mark.parametrize("seed", range(10))
def test_the_parts_that_cover_a_range_are_found_in_order(seed: int) -> None:
    wanted = wanted_of(random.Random(seed))
    plan = plan_fetch(wanted, part_nbytes=700)
    for one in wanted:
        parts = list(plan.covering(one))
        covered = [at for part in parts for at in range(max(part.begin, one.begin), min(part.end, one.end))]
        assert covered == list(range(one.begin, one.end))


def test_neighbours_are_one_request_and_a_far_gap_is_not_fetched() -> None:
    plan = plan_fetch([ByteRange("a", 0, 100_000), ByteRange("a", 100_500, 200_000), ByteRange("a", 10**7, 10**7 + 5)])
    assert plan.parts == (ByteRange("a", 0, 200_000), ByteRange("a", 10**7, 10**7 + 5))
