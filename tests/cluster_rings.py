"""Rings of real worker processes on this machine, and the one-host decoding that they must equal."""

import select
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skulk_core.cluster.assignment import Assignment, Drafting, Shard
from skulk_core.cluster.delay_line import LinkShape
from skulk_core.cluster.engine import ClusterEngine, Hooks
from skulk_core.cluster.epoch import Member, Starter
from skulk_core.cluster.peers import Host
from skulk_core.cluster.recovery import Recovery
from skulk_core.cluster.transport import start
from skulk_core.decode.decoder import Decoder
from skulk_core.decode.depth import DepthPolicy
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler
from skulk_core.types import Exactness

GREEDY = SamplingSettings()
WITH_HEAD = Drafting("head", needed=True)
WITH_LOOKUP = Drafting("ngram")
# Reached only when a test fails.
PATIENCE_S = 300.0


@dataclass
class Notes:
    """What a person would have been told."""

    lines: list[str] = field(default_factory=list)

    def hooks(self, check: Callable[[], None] = lambda: None) -> Hooks:
        return Hooks(check=check, note=self.lines.append)


def evenly(num_ranks: int, num_layers: int) -> list[int]:
    return [num_layers * rank // num_ranks for rank in range(num_ranks + 1)]


def local_hosts(count: int) -> list[Host]:
    return [Host(name=f"local#{number + 1}") for number in range(count)]


def ring(
    model: Path | str,
    edges: Sequence[int],
    drafting: Drafting = WITH_HEAD,
    *,
    notes: Notes | None = None,
    starter: Starter = start,
    lease_s: float = 8.0,
    check: Callable[[], None] = lambda: None,
    tensor: bool = False,
    links: LinkShape | None = None,
    memory_nbytes: Sequence[int | None] = (),
    elsewhere: Mapping[int, Path] | None = None,
) -> ClusterEngine:
    """An engine over ``len(edges) - 1`` workers, not started; after a loss the layers are shared out evenly.

    ``memory_nbytes``: what MLX may hold on each rank of all of them. ``elsewhere``: ranks on whose hosts the model is
    another one, that of the folder.
    """
    hosts = local_hosts(len(edges) - 1)

    def place(epoch: int, left: Sequence[Host]) -> list[Member]:
        cut = edges if len(left) == len(hosts) else evenly(len(left), edges[-1])
        return [
            Member(host, assignment(epoch, rank, len(left), (cut[rank], cut[rank + 1])))
            for rank, host in enumerate(left)
        ]

    def assignment(epoch: int, rank: int, size: int, layers: tuple[int, int]) -> Assignment:
        if tensor:
            layers = (0, edges[-1])
        return Assignment(
            shard=Shard.TENSOR if tensor else Shard.PIPELINE,
            epoch=epoch,
            rank=rank,
            size=size,
            start=layers[0],
            end=layers[1],
            model=str((elsewhere or {}).get(rank, model)),
            dtype="float32",
            threads=1,
            patient=True,
            memory_nbytes=memory_nbytes[rank] if size == len(memory_nbytes) else None,
            drafting=drafting,
        )

    hooks = (notes or Notes()).hooks(check)
    return ClusterEngine(Recovery(hosts, place), hooks, starter=starter, lease_s=lease_s, links=links)


def answer(
    engine: ClusterEngine,
    prompt: Sequence[int],
    depth: int | DepthPolicy,
    num_tokens: int,
    sampling: SamplingSettings = GREEDY,
    *,
    go_on: bool = False,
    after_round: Callable[[int], None] = lambda number: None,
) -> list[int]:
    """Tokens of a text from the ring; ``after_round`` is told of every round that was taken."""
    out = [engine.prefill(prompt, depth, sampling, Exactness.ARGMAX, go_on=go_on)]
    for number, round_ in enumerate(engine.rounds(num_tokens - 1, frozenset())):
        out += round_.tokens
        after_round(number)
    return out


def one_host(
    target: Target,
    head: DraftHead | None,
    prompt: Sequence[int],
    depth: int,
    num_tokens: int,
    sampling: SamplingSettings = GREEDY,
) -> list[int]:
    """The same from a decoder in this process."""
    decoder = Decoder(target, head, GreedySampler())
    out = [decoder.prefill(prompt, depth, sampler=make_sampler(sampling))]
    for round_ in decoder.rounds(num_tokens - 1):
        out += round_.tokens
    return out


def wait_until_gone(descriptors: Sequence[int]) -> bool:
    """Whether the processes behind these pidfds end in time."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    while left:
        ended = poll.poll(PATIENCE_S * 1000)
        if not ended:
            return False
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            left -= 1
    return True
