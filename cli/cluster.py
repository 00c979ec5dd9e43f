"""`--peers`: a model over several hosts, for the commands that decode."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.loading import NGRAM, Choice, Loaded, load_backend, with_card
from cli.options import one_of, read_conventions
from cli.program import INTERRUPTS
from cli.render import Reporter, say
from skulk_core.cluster.delay_line import LinkShape
from skulk_core.errors import OptionError
from skulk_core.hub.refs import RepoRef, parse_trunk
from skulk_core.runtime.device import auto_dtype
from skulk_core.types import LayerRange

if TYPE_CHECKING:
    from skulk_core.cluster.engine import ClusterEngine
    from skulk_core.cluster.epoch import Member
    from skulk_core.cluster.peers import Host
    from skulk_core.cluster.planning import Planner
    from skulk_core.cluster.recovery import Place
    from skulk_core.formats.elsewhere import AbsentTensor
    from skulk_core.hub.sources import ModelSource
    from skulk_core.models.loading import LoadedModel

Peers = Annotated[
    str | None,
    typer.Option(
        metavar="HOST,…",
        help="Decode over several hosts: user@host\\[:port] (by ssh), names from hosts.yaml, or local\\[:N] for N "
        "processes here. Alone: every host of hosts.yaml. This host is the last rank unless the list names `local`.",
    ),
]
ShardName = Literal["auto", "pipeline", "tensor"]
Shard = Annotated[
    ShardName,
    typer.Option(
        parser=one_of(ShardName),
        metavar="HOW",
        help="With --peers. pipeline: by layers. tensor: an equal share of every layer. auto: pipeline.",
    ),
]
Split = Annotated[
    str | None, typer.Option(metavar="N,N,…", help="With --peers: layers of each rank in turn. Default: by the hosts.")
]
BackendName = Literal["ring", "jaccl", "nccl"]
Backend = Annotated[
    BackendName,
    typer.Option(
        parser=one_of(BackendName),
        metavar="NAME",
        help="With --peers: what carries rows between hosts: ring (TCP), jaccl (RDMA), nccl.",
    ),
]
Link = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[HOST=]LINK",
        help="With --peers: the interface, address or network that the ring takes, everywhere or on one host. May be "
        "given more than once. Default: the fastest link that neighbours share.",
    ),
]
Push = Annotated[
    bool,
    typer.Option("--push", help="With --peers: copy the files that a host's layers need from this one, by sftp."),
]
AllowPublicLink = Annotated[
    bool,
    typer.Option(
        "--allow-public-link",
        help="With --peers: take a public address where there is no other. The ring has no login.",
    ),
]


LinkDelay = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="With --peers local:N: every message between neighbours arrives so many milliseconds later.",
    ),
]
LinkRate = Annotated[
    float | None,
    typer.Option(metavar="MBIT", help="With --peers local:N: every link carries so many Mbit/s each way, and no more."),
]
_MOST_DELAY_MS, _LEAST_RATE_MBPS = 10_000.0, 0.1


@dataclass(frozen=True)
class Spread:
    """How a model is spread over hosts, as the command line says it. ``links``: what the ring's are made to be.

    ``expected``: tokens of prompt and answer that are known to come.
    """

    peers: str
    shard: str
    split: str | None
    backend: str
    link: tuple[str, ...]
    allow_public_link: bool = False
    push: bool = False
    context: int | None = None
    links: LinkShape = LinkShape()
    expected: int = 0


def read_links(delay_ms: float | None, rate_mbps: float | None, peers: str | None, backend: str) -> LinkShape:
    """`--link-delay` and `--link-rate`. Raises `OptionError` for what cannot be had."""
    for option, value in (("--link-delay", delay_ms), ("--link-rate", rate_mbps)):
        if value is None:
            continue
        if peers is None:
            raise OptionError(option, value, "is of the links of a ring: it goes with --peers local:N")
        if backend != "ring":
            raise OptionError(option, value, f"is made of TCP connections, and --backend {backend} has none")
    if delay_ms is not None and not 0 <= delay_ms <= _MOST_DELAY_MS:
        raise OptionError("--link-delay", delay_ms, f"must be milliseconds from 0 to {_MOST_DELAY_MS:.0f}")
    if rate_mbps is not None and not _LEAST_RATE_MBPS <= rate_mbps < float("inf"):
        raise OptionError("--link-rate", rate_mbps, f"must be Mbit/s from {_LEAST_RATE_MBPS} on")
    return LinkShape((delay_ms or 0.0) / 1000, rate_mbps)


def _refuse_real_links(hosts: "Sequence[Host]", links: LinkShape) -> None:
    """Links that nothing of ours stands in: those of other machines, and none at all. Raises `OptionError`."""
    option, value = ("--link-delay", links.delay_s * 1000) if links.delay_s else ("--link-rate", links.rate_mbps)
    if elsewhere := [host.name for host in hosts if not host.is_local]:
        raise OptionError(
            option,
            f"{value:g}",
            f"is for links between processes of this machine (--peers local:N), and {', '.join(elsewhere)} is reached "
            "over a real one; to make that slower there is `tc qdisc`, where the system has netem",
        )
    if len(hosts) == 1:
        raise OptionError(option, f"{value:g}", "one process alone has no link; use --peers local:2 or more")


def refuse_alone(
    *,
    shard: str,
    split: str | None,
    backend: str,
    link: list[str] | None,
    push: bool = False,
    allow_public_link: bool = False,
) -> None:
    """Options that mean nothing on one host. Raises `OptionError`."""
    given = {
        "--shard": shard != "auto",
        "--split": split,
        "--backend": backend != "ring",
        "--link": link,
        "--push": push,
        "--allow-public-link": allow_public_link,
    }
    for option, value in given.items():
        if value:
            raise OptionError(option, "", "goes with --peers")


@contextmanager
def spread(choice: Choice, over: Spread, reporter: Reporter) -> Iterator[Loaded]:
    """``choice`` loaded by the workers of ``over``; they end with the block, however that ends."""
    load_backend(reporter)
    from cli.placing import make_planner, make_pusher
    from skulk_core.cluster.engine import ClusterEngine, Hooks
    from skulk_core.cluster.peers import parse_peers
    from skulk_core.cluster.recovery import Recovery
    from skulk_core.formats.hosts import HOSTS_FILE, read_hosts
    from skulk_core.hub.sources import locate_model
    from skulk_core.models.loading import outline
    from skulk_core.models.stage_source import locate_stage
    from skulk_core.runtime.userfiles import config_dir

    hosts = parse_peers(over.peers, read_hosts(config_dir() / HOSTS_FILE))
    if not over.links.is_real:
        _refuse_real_links(hosts, over.links)
    choice = with_card(choice, len(hosts), reporter)
    with reporter.working():
        reporter.step(f"loading {choice.model}")
        planner = make_planner(
            choice,
            hosts,
            shard=over.shard,
            split=over.split,
            backend=over.backend,
            link=over.link,
            allow_public=over.allow_public_link,
            context=over.context,
            expected=over.expected,
            reporter=reporter,
        )
        INTERRUPTS.check()
        if over.push:
            absent: tuple[AbsentTensor, ...] = ()
            source = locate_model(parse_trunk(choice.model), reporter.bytes)
        else:
            # this host's own part; without one the first layer's, by which the tokenizer and the shape come along
            plan = planner.plan(hosts)
            own = [one.layers for one, host in zip(plan.stages, plan.hosts, strict=True) if host.is_local]
            stage = locate_stage(parse_trunk(choice.model), own[-1] if own else LayerRange(0, 1), reporter.bytes)
            source, absent = stage.source, stage.absent
        model = outline(source.path, absent=absent)
        pushed = make_pusher(source, model, reporter) if over.push else None
        place = _placing(choice, over.backend, source, planner, pushed)
        INTERRUPTS.check()
        hooks = Hooks(
            check=INTERRUPTS.check,
            note=say,
            on_loading=reporter.bytes,
            impatient=lambda: INTERRUPTS.presses > 1,
        )
        reporter.step(f"starting {len(hosts)} workers")
        recovery = Recovery(hosts, place, planner.avoid)
        engine = ClusterEngine(recovery, hooks, links=over.links).__enter__()
    try:
        _tell(engine, reporter)
        _tell_of_head(engine, reporter)
        yield _loaded(choice, source, model, engine)
    finally:
        engine.close()


def _placing(
    choice: Choice,
    backend: str,
    source: "ModelSource",
    planner: "Planner",
    pushed: "Callable[[Host, LayerRange], str] | None",
) -> "Place":
    from skulk_core.cluster.assignment import Assignment, Drafting
    from skulk_core.cluster.epoch import Member
    from skulk_core.models.weighing import PROCESS_NBYTES

    drafting = Drafting(
        how="none" if choice.depth == 0 else "ngram" if choice.draft == NGRAM else "head",
        sidecar=choice.sidecar,
        precision=choice.head_precision,
        overrides=read_conventions(choice.conventions),
        needed=choice.depth is not None,
        allow_plain=choice.allow_plain,
    )
    name = f"{source.ref.repo}@{source.sha}" if isinstance(source.ref, RepoRef) else str(source.ref)
    dtype = auto_dtype() if choice.dtype == "auto" else choice.dtype

    def place(epoch: int, hosts: "Sequence[Host]") -> "Sequence[Member]":
        size, plan = len(hosts), planner.plan(hosts)
        # processes on one machine, containers' too: they share its cores
        memories = [report.memory for report in plan.reports]
        crowded = [memories.count(memory) > 1 for memory in memories]
        return [
            Member(
                host,
                Assignment(
                    epoch=epoch,
                    rank=rank,
                    size=size,
                    start=plan.stages[rank].layers.start,
                    end=plan.stages[rank].layers.end,
                    model=name if pushed is None or host.is_local else pushed(host, plan.stages[rank].layers),
                    dtype=dtype,
                    backend=backend,
                    shard=plan.shard,
                    address=plan.addresses[rank].address,
                    threads=1 if crowded[rank] else None,
                    patient=crowded[rank],
                    memory_nbytes=max(plan.stages[rank].available_nbytes - PROCESS_NBYTES, 1),
                    drafting=drafting,
                ),
            )
            for rank, host in enumerate(plan.hosts)
        ]

    return place


def _tell(engine: "ClusterEngine", reporter: Reporter) -> None:
    for member, frame in zip(engine.epoch.members, engine.epoch.loaded, strict=True):
        part, device = member.assignment, frame["device"]
        reporter.detail(
            f"rank {part.rank} on {member.host.name}: layers [{part.start}, {part.end}), "
            f"{frame['nbytes'] / 1e6:,.0f} MB of weights, {device['name']} ({device['backend']})"
        )


def _tell_of_head(engine: "ClusterEngine", reporter: Reporter) -> None:
    head = engine.drafter
    if head["name"] is None or not head["because"]:
        return
    if head["is_listed"]:
        reporter.note(f"drafting with {head['name']}: {head['because']}")
    size = f"{head['nbytes'] / 1e6:,.1f} MB, precision {head['precision']}"
    reporter.detail(f"head: {head['name']} ({head['because']}), {size}, conventions from {head['conventions_from']}")


def _loaded(choice: Choice, source: "ModelSource", model: "LoadedModel", engine: "ClusterEngine") -> Loaded:
    drafter = engine.drafter
    if drafter["name"] is None:
        because = choice.plain_because if choice.depth == 0 else drafter["plain_because"]
        return Loaded(source, model, None, None, 0, because, engine=engine)
    depth = drafter["default_depth"] if choice.depth is None else choice.depth
    return Loaded(source, model, None, drafter["name"], "auto" if depth is None else depth, None, engine=engine)
