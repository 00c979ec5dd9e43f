"""Hosts that compute differently, and every kind of cache between them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cluster_shifted_worker
import mlx.core as mx
import pytest
from assistants import ASSISTANT, PROMPTS, TARGET, assistant
from assistants import target as gemma
from cli_runner import ROOT
from cluster_rings import GREEDY, WITH_HEAD, WITH_LOOKUP, Notes, answer, one_host, ring
from cluster_tiny import save_tiny
from demo import demo, demo_head, prompts
from gemma4_tiny import save_target, torch_target

from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.cluster.assignment import Drafting
from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.peers import Host
from skulk_core.cluster.transport import StartedProcess, start
from skulk_core.cluster.wire import AutoAtDecider
from skulk_core.heads.base import DraftHead
from skulk_core.heads.ngram import NgramHead
from skulk_core.models.base import Target
from skulk_core.models.loading import load
from skulk_core.runtime.resources import demo_folder
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import PositionRule

DRAWN = SamplingSettings(temperature=0.7, seed=3)


def start_shifted(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
    """The first rank computes differently."""
    if host.name != "local#1":
        return start(host, arguments, environment)
    process = subprocess.Popen(
        [sys.executable, cluster_shifted_worker.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    return StartedProcess(host, process)


def test_ranks_agree_although_they_compute_differently() -> None:
    """Only the decider looks at logits: another rank's arithmetic changes the text, never whose text it is.

    The text must be that of one model whose lower layers compute as the first rank's do.
    """
    target = load(demo_folder(), "float32").target
    exact = target.run_layer
    top_of_first = target.layers[3]

    def run_layer(layer: object, h: mx.array, *rest: object) -> mx.array:
        out = exact(layer, h, *rest)
        return cluster_shifted_worker.shifted(out) if layer is top_of_first else out

    target.run_layer = run_layer  # type: ignore[method-assign]
    notes, prompt = Notes(), demo().tokenizer.encode(prompts()[3])
    with ring("demo", (0, 4, 8), WITH_HEAD, notes=notes, starter=start_shifted) as engine:
        for depth, sampling in ((0, SamplingSettings()), (3, SamplingSettings()), (2, DRAWN)):
            tokens = answer(engine, prompt, depth, 60, sampling)
            assert tokens == one_host(target, demo_head().head, prompt, depth, 60, sampling)
    assert notes.lines == []
    # the arithmetic was different enough to matter
    assert tokens != one_host(demo().target, demo_head().head, prompt, 2, 60, DRAWN)


def assert_as_one_host(
    engine: ClusterEngine, target: Target, head: DraftHead, prompt: list[int], num_tokens: int, drawn: SamplingSettings
) -> None:
    """Greedy text at every depth and at the one that the ring chooses, and text that is drawn."""
    greedy = one_host(target, head, prompt, 0, num_tokens)
    expected = [(depth, GREEDY, greedy) for depth in (0, 1, 2, 3, 4, AutoAtDecider(4))]
    expected += [(depth, drawn, one_host(target, head, prompt, depth, num_tokens, drawn)) for depth in (0, 3)]
    accepted = dropped = 0
    for depth, sampling, tokens in expected:
        assert answer(engine, prompt, depth, num_tokens, sampling) == tokens, (depth, sampling)
        accepted += engine.stats.accepted
        dropped += engine.stats.drafted - engine.stats.accepted
    # caches had something to commit and something to drop
    assert accepted > 0
    assert dropped > 0


# A text that repeats itself, so that looking tokens up drafts something that is sometimes right.
REPEATING = [5, 9, 17, 33, 65, 2] * 4


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("llama-sliding", (0, 2, 4)),
        ("llama-sliding", (0, 1, 2, 3, 4)),
        ("qwen3_next", (0, 1, 4)),
        ("qwen3_next", (0, 2, 3, 4)),
    ],
)
def test_every_kind_of_cache(name: str, edges: tuple[int, ...], tmp_path: Path) -> None:
    """Windows and recurrent states must commit on every rank what the decider accepted."""
    folder = save_tiny(name, tmp_path)
    target = load(folder, "float32").target
    with ring(folder, edges, WITH_LOOKUP) as engine:
        assert_as_one_host(engine, target, NgramHead(), REPEATING, 80, SamplingSettings(temperature=0.2, seed=5))


@pytest.mark.parametrize("edges", [(0, 3, 10), (0, 1, 2, 3, 10)])
def test_gemma_4_whose_layers_share_keys_and_values(edges: tuple[int, ...], tmp_path: Path) -> None:
    """Half of the decider's layers remember nothing themselves, and every rank's have inputs made from the tokens."""
    folder = save_target(torch_target("E2B"), tmp_path, shards=2)
    target = load(folder, "float32").target
    assert any(isinstance(cache, BorrowedCache) for cache in target.make_caches())
    with ring(folder, edges, WITH_LOOKUP) as engine:
        assert_as_one_host(engine, target, NgramHead(), REPEATING, 40, SamplingSettings(temperature=0.4, seed=5))


def test_gemma_4_with_its_assistant() -> None:
    """The assistant reads keys and values of the decider's layers: on a ring they must be those of one host.

    Windows of 24 rows, and texts beyond them.
    """
    drafting = Drafting("head", str(ASSISTANT), overrides={"position_rule": PositionRule.LAST_COMMITTED}, needed=True)
    prompt = gemma().tokenizer.encode(PROMPTS[0])
    with ring(TARGET, (0, 1, 4, 6), drafting) as engine:
        assert_as_one_host(engine, gemma().target, assistant().head, prompt, 60, DRAWN)
