"""A host that has no memory for more of a text ends it, with its text; nothing is aborted, and the next one works."""

from pathlib import Path

import pytest
from cli_runner import Program
from cluster_rings import Notes, answer, one_host, ring
from demo import demo, prompts

from skulk_core.errors import MemoryFull

# Each rank of two holds so much of the demo.
WEIGHTS_NBYTES = 14_740_000
NUM_TOKENS = 900


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


@pytest.mark.parametrize(("rank", "depth", "room_nbytes"), [(0, 3, 1_600_000), (1, 0, 5_000_000)])
def test_a_rank_that_is_full_in_mid_text(rank: int, depth: int, room_nbytes: int) -> None:
    """One that decides nothing, and the decider: the answer ends with what there is, and nobody is taken for lost."""
    notes, limits = Notes(), [None, None]
    limits[rank] = WEIGHTS_NBYTES + room_nbytes
    with ring("demo", (0, 4, 8), notes=notes, memory_nbytes=limits) as engine:
        tokens = answer(engine, encoded(0), depth, NUM_TOKENS)
        full, number = engine.stats.full, engine.epoch.number
        assert 100 < len(tokens) < NUM_TOKENS
        assert tokens == one_host(demo().target, None, encoded(0), 0, len(tokens))
        assert full is not None
        assert full.host == f"local#{rank + 1}"
        assert full.needed_nbytes > full.left_nbytes
        # what a shorter text needs is there
        assert answer(engine, encoded(1), depth, 20) == one_host(demo().target, None, encoded(1), 0, 20)
        assert (engine.stats.full, engine.stats.recoveries) == (None, 0)
        if rank == 1:
            # where the decider is full the ring is as it was, after a prompt that cannot be read too
            with pytest.raises(MemoryFull):
                answer(engine, (100 * encoded(2))[:3000], 0, 20)
            assert answer(engine, encoded(1), 0, 5) == one_host(demo().target, None, encoded(1), 0, 5)
            assert engine.epoch.number == number
    assert notes.lines == []


def test_one_host_that_is_full(tmp_path: Path) -> None:
    """`skulk run` without peers: the answer ends with its text, and a conversation goes on."""
    skulk = Program(tmp_path, "http://127.0.0.1:9", {"SKULK_MEMORY_GB": "0.0355"})
    prompt = prompts()[0]
    finished = skulk.run("run", "demo", prompt, "--max-tokens", "900", "--draft-depth", "2", "--json")
    assert finished.code == 0, finished.stderr
    answer = finished.answer
    assert answer["finish_reason"] == "length"
    assert "this host is full: what comes next takes" in answer["full"]
    assert "--context" in finished.stderr
    tokens = answer["tokens"]
    assert 100 < len(tokens) < 900
    assert tokens == one_host(demo().target, None, encoded(0), 0, len(tokens))

    lines = f"{prompt}\n{100 * 'more of it '}\n/reset\n/set max-tokens 20\n{prompt}\n"
    chat = skulk.run("run", "demo", "--chat", "--max-tokens", "900", "--draft-depth", "2", stdin=lines.encode())
    assert chat.code == 0, chat.stderr
    assert chat.stdout.startswith(answer["text"])
    assert chat.stderr.count("is full") == 2
    assert "/reset begins a new conversation, which needs less" in chat.stderr
    assert "20 tokens" in chat.stderr
