"""One rank of two that share every layer of one tiny model after another: `python cluster_sharing.py RANK ADDRESS…`.

Rank 0 says in JSON which families gave the tokens that it gave alone, before its layers were cut.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress

from skulk_core.runtime.device import load_mlx

# before anything imports MLX it must have its BLAS
load_mlx()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
from cluster_rings import GREEDY, one_host  # noqa: E402
from tiny_models import Case, build, case  # noqa: E402

from skulk_core.cluster.backends import ring_settings  # noqa: E402
from skulk_core.cluster.joining import join  # noqa: E402
from skulk_core.cluster.lap import Windows  # noqa: E402
from skulk_core.cluster.links import Links  # noqa: E402
from skulk_core.cluster.tensor import Follower, TensorExchange  # noqa: E402
from skulk_core.decode.decoder import Decoder  # noqa: E402
from skulk_core.errors import RingError  # noqa: E402
from skulk_core.heads.ngram import NgramHead  # noqa: E402
from skulk_core.models.base import Target  # noqa: E402
from skulk_core.models.registry import make_target  # noqa: E402
from skulk_core.runtime import blas  # noqa: E402
from skulk_core.sampling.greedy import GreedySampler  # noqa: E402
from skulk_core.sampling.settings import SamplingSettings  # noqa: E402
from skulk_core.sampling.stochastic import make_sampler  # noqa: E402

# whole groups of a quantisation in every share
_WIDE = {"hidden_size": 64, "intermediate_size": 128, "linear_value_head_dim": 16}
CASES = {
    "qwen3_5-one-kv-head": case("qwen3_5-tied", num_key_value_heads=1),
    "qwen3_5-4-bit": case("qwen3_5", **_WIDE),
    "qwen3_5_moe": case("qwen3_5_moe"),
    "llama-biased": case("llama-tied-biased"),
    "llama-sliding": case("llama-sliding"),
    "llama-4-bit": case("llama", hidden_size=64, intermediate_size=128),
    "qwen2": case("qwen2"),
    "qwen3": case("qwen3-tied"),
    "qwen3_moe": case("qwen3_moe"),
}
# a text that repeats itself, so that looking tokens up drafts something that is sometimes right; and longer than what
# a header holds
PROMPT = [5, 9, 17, 33, 65, 2] * 4
NUM_TOKENS = 16
TEXTS = ((0, GREEDY), (3, SamplingSettings(temperature=0.3, seed=5)))


def make(found: Case, name: str) -> Target:
    model = build(found)
    if name.endswith("4-bit"):
        nn.quantize(model, group_size=32, bits=4)
    return make_target(model)


def alone(target: Target) -> list[list[int]]:
    return [one_host(target, NgramHead(), PROMPT, depth, NUM_TOKENS, sampling) for depth, sampling in TEXTS]


def shared(target: Target, links: Links, epoch: int) -> Iterator[list[int]]:
    decoder = Decoder(target, NgramHead(), GreedySampler(), TensorExchange(target, links, epoch))
    for depth, sampling in TEXTS:
        out = [decoder.prefill(PROMPT, depth, sampler=make_sampler(sampling))]
        for round_ in decoder.rounds(NUM_TOKENS - 1):
            out += round_.tokens
        yield out


def main() -> None:
    rank, addresses = int(sys.argv[1]), sys.argv[2:]
    blas.set_threads(1)
    told = ring_settings(addresses)[rank]
    links = Links(*join("ring", told.environment, told.files, addresses[rank]), patient=True)
    agree = {}
    for epoch, (name, found) in enumerate(CASES.items(), start=1):
        target = make(found, name)
        expected = alone(target) if rank == 0 else []
        target.take_share(rank, len(addresses), decides=rank == 0)
        if rank == 0:
            agree[name] = list(shared(target, links, epoch)) == expected
            # the next model's number: the other rank lets go of this one
            windows = Windows(epoch + 1)
            mx.eval(links.broadcast(windows.header(0, 1, 0, keep_all=True).packed(mx.zeros((1,), mx.int32))))
        else:
            with suppress(RingError):
                Follower(target, links, epoch).serve()
    if rank == 0:
        json.dump(agree, sys.stdout)


if __name__ == "__main__":
    main()
