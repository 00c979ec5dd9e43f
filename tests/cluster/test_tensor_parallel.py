"""Two ranks with half of every layer's heads give the tokens of one host."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cluster_sharing
import pytest
from cli_runner import ROOT, in_process
from cluster_rings import PATIENCE_S, answer, one_host, ring
from cluster_tiny import save_tiny
from demo import demo, demo_head, prompts
from tiny_models import case

from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.header import HEADER_SIZE
from skulk_core.cluster.joining import Reserved
from skulk_core.cluster.wire import AutoAtDecider
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

NUM_TOKENS = 24
GREEDY = SamplingSettings()
DRAWN = SamplingSettings(temperature=0.8, top_p=0.95, seed=7, repetition_penalty=1.1)


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


@cache
def expected(index: int, depth: int = 0, sampling: SamplingSettings = GREEDY) -> list[int]:
    return one_host(demo().target, demo_head().head, encoded(index), depth, NUM_TOKENS, sampling)


@pytest.fixture(scope="module")
def engine() -> Iterator[ClusterEngine]:
    """The demo, a hybrid of gated delta nets and attention, with its head on the first rank."""
    with ring("demo", (0, 4, 8), tensor=True) as started:
        yield started


def test_greedy_at_every_depth(engine: ClusterEngine) -> None:
    """A user would see another text, or none at all: ranks that run different passes wait for each other for ever."""
    for depth in (0, 1, 2, 3, 4):
        assert answer(engine, encoded(3), depth, NUM_TOKENS) == expected(3), depth
        assert bool(engine.stats.accepted) == bool(depth)
    assert answer(engine, encoded(3), AutoAtDecider(4), NUM_TOKENS) == expected(3)


def test_the_same_seed_draws_the_same_tokens(engine: ClusterEngine) -> None:
    for depth in (0, 3):
        assert answer(engine, encoded(6), depth, NUM_TOKENS, DRAWN) == expected(6, depth, DRAWN)


def test_one_window_a_round(engine: ClusterEngine) -> None:
    """Each rank sends the window's header and, in every layer, the rows of its mixer and of its MLP; nothing else."""
    size, hidden, sums = len(engine.epoch.members), demo().target.hidden_size, 2 * demo().target.num_layers
    for depth in (0, 3):
        answer(engine, encoded(4), depth, NUM_TOKENS)
        stats = engine.stats
        assert stats.messages == size * (1 + sums) * stats.rounds
        rows = stats.rounds + stats.drafted
        assert stats.message_nbytes == 4 * size * (HEADER_SIZE * stats.rounds + sums * hidden * rows)
        assert stats.synchronisations == stats.rounds + 1


def test_a_text_goes_on_after_one_that_was_left(engine: ClusterEngine) -> None:
    """A pass that was under way when nobody read on must not turn up in the next text."""
    for depth in (0, 3):
        engine.prefill(encoded(1), depth, GREEDY, Exactness.ARGMAX)
        rounds = engine.rounds(400, frozenset())
        next(rounds)
        rounds.close()
        first = answer(engine, encoded(3), depth, NUM_TOKENS)
        assert first == expected(3)
    more = encoded(3) + first + encoded(8)
    tokens = answer(engine, more, 3, 12, go_on=True)
    assert engine.stats.reused_tokens == len(encoded(3) + first) - 1
    assert tokens == one_host(demo().target, None, more, 0, 12)


def test_a_certificate_is_made_by_the_ranks_together(engine: ClusterEngine) -> None:
    tokens = answer(engine, encoded(5), 2, 20)
    found = engine.certify(encoded(5), tokens, 2, GREEDY)
    assert found.compared == len(tokens)
    assert not found.divergences


def test_a_rank_that_is_killed_costs_no_token(engine: ClusterEngine) -> None:
    """The others sit in a sum that never comes: they must learn of it, and a new ring must go on with the text."""

    def kill(rounds: int) -> None:
        if rounds == 3:
            pid = engine.epoch.pids[1]
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    # long enough not to be decoded before the signal
    tokens = answer(engine, encoded(3), 2, 400, after_round=kill)
    assert tokens == one_host(demo().target, None, encoded(3), 0, 400)
    assert engine.stats.recoveries == 1


def test_every_family_that_can_be_shared() -> None:
    """One pair of processes, one tiny model after another: recurrent, sliding, sparse, biased, quantised."""
    reserved = [Reserved("127.0.0.1") for _ in range(2)]
    addresses = [f"127.0.0.1:{one.port}" for one in reserved]
    for one in reserved:
        one.release()
    command = [sys.executable, cluster_sharing.__file__]
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ranks = [
        subprocess.Popen([*command, str(rank), *addresses], stdout=subprocess.PIPE, env={**os.environ, **path})
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE_S)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0, 0]
    assert json.loads(said[0]) == dict.fromkeys(cluster_sharing.CASES, True)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_family_without_shares_is_refused_by_its_configuration(command: str, tmp_path: Path) -> None:
    """Nobody should wait for hosts, downloads and loading to hear it: here is no host, and no weight at all."""
    (tmp_path / "config.json").write_text(json.dumps(case("qwen3_next").config))
    model = (tmp_path, "hi") if command == "run" else (tmp_path,)
    done = in_process(command, *model, "--peers", "x@127.0.0.9:1", "--shard", "tensor")
    done.assert_fails(2, "cannot divide the layers of qwen3_next models", "--shard pipeline")


def test_unequal_shares_are_refused(tmp_path: Path) -> None:
    """A third of four heads would be another model."""
    folder = save_tiny("llama", tmp_path)
    done = in_process("run", folder, "hi", "--peers", "local:3", "--shard", "tensor", "--draft", "ngram")
    done.assert_fails(2, "4 attention heads", "no 3 equal shares", "--shard pipeline")
    # and one that a host cannot hold, with the table, before anybody loads
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 10**9}))
    done = in_process("plan", folder, "--peers", "local:2", "--shard", "tensor", "--context", "900000000")
    done.assert_fails(1, "each of 2 hosts needs an equal share", "\n  local#1  ", "\n  local#2  ", "short by\n")
