"""`skulk bench`: arms side by side, and figures that belong together."""

import json

import pytest
from cli_runner import in_process

from skulk_core.bench.arms import ArmResult
from skulk_core.bench.costs import Costs


def test_a_small_bench_reports_every_arm() -> None:
    """Otherwise nobody can tell what speculation gains on their machine."""
    done = in_process(
        "bench", "demo", "--draft-depth", "2", "--tokens", "8", "--runs", "1", "--against", "mlx-lm", "--json"
    )
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert [arm["arm"] for arm in report["arms"]] == ["mlx-lm", 0, 2]
    assert all(arm["same_as_reference"] for arm in report["arms"])
    plain, deep = report["arms"][1:]
    assert plain["speedup"] == 1.0
    assert plain["tokens_per_round"] == 1.0
    assert deep["tokens_per_round"] > 1.0
    assert len(deep["acceptance"]) <= 2
    for arm in (plain, deep):
        assert arm["measured_over_predicted"] == pytest.approx(arm["tokens_per_s"] / arm["predicted_tokens_per_s"])


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--draft-depth", "1,x", "whole numbers"),
        ("--draft-depth", "-1", "at least 0"),
        ("--tokens", "1", "at least 2"),
        ("--against", "vllm", "mlx-lm"),
        ("--prefill", "9999", "4096"),
        ("--prompts", "/nowhere/prompts.txt", "No such file"),
    ],
)
def test_what_cannot_be_measured_is_refused(option: str, value: str, says: str) -> None:
    done = in_process("bench", "demo", option, value)
    assert done.code != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_speedup_pairs_runs_of_the_same_turn() -> None:
    """A ratio of medians would call drift of the machine a gain."""
    plain = ArmResult(0, [1.0, 4.0, 2.0])
    assert ArmResult(2, [0.5, 2.0, 1.0]).speedup(plain) == 2.0
    assert ArmResult(2, [0.5, 4.0, 1.0]).speedup(plain) == 2.0


def test_a_round_costs_what_its_parts_cost() -> None:
    costs = Costs({1: 1.0, 3: 2.0}, {2: 0.5}, {1: 0.1, 2: 0.2, 3: 0.3}, 0.05)
    assert costs.round_s(0) == pytest.approx(1.05)
    assert costs.round_s(2) == pytest.approx(2.8)
    assert costs.mean(costs).round_s(2) == pytest.approx(2.8)
    result = ArmResult(2, [1.0], rounds=2, tokens=4)
    result.predict(costs)
    assert result.predicted_tokens_per_s == pytest.approx(2 / 2.8)
