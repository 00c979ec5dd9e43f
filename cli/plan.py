"""`skulk plan`: which host would hold what of a model, and why, without loading it."""

import json
from dataclasses import asdict
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli import cluster, options
from cli.errors import guarded
from cli.peers import known_hosts
from cli.render import Reporter, out, show, size, visible
from skulk_core.cluster.peers import parse_peers
from skulk_core.errors import HubError, OptionError, SplitError
from skulk_core.hub.refs import DEFAULT_REVISION, DemoRef, FileRef, FolderRef, RepoRef, parse_sidecar, parse_trunk
from skulk_core.runtime.device import auto_dtype, load_mlx
from skulk_core.runtime.resources import demo_sidecar

if TYPE_CHECKING:
    from skulk_core.cluster.assignment import Shard as Sharding
    from skulk_core.cluster.planning import Plan
    from skulk_core.memory.placement import ModelBytes
    from skulk_core.models.weighing import Weighed
    from skulk_core.models.weighing_heads import HeadBytes

JSON_SCHEMA = 1
DEFAULT_CONTEXT = 4096


@guarded
def plan_command(
    model: options.Model,
    peers: cluster.Peers = "local",
    shard: cluster.Shard = "auto",
    split: cluster.Split = None,
    link: cluster.Link = None,
    allow_public_link: cluster.AllowPublicLink = False,
    context: Annotated[
        int | None, typer.Option(help=f"Tokens of prompt and answer together. Default: {DEFAULT_CONTEXT}, or less.")
    ] = None,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show which host would hold which layers of MODEL, with bytes, addresses and reasons. Loads nothing.

    Of a model on the Hub that is not in the cache, only configuration and headers are read.
    """
    options.at_least("--context", context, 1)
    from skulk_core.cluster.addresses import read_pins
    from skulk_core.cluster.assignment import Shard
    from skulk_core.cluster.planning import Wishes, ask_hosts, make_plan

    hosts = parse_peers(peers or "", known_hosts())
    wishes = Wishes(
        shard=Shard.TENSOR if shard == "tensor" else Shard.PIPELINE,
        split=None if split is None else read_numbers(split),
        pins=read_pins(link or [], hosts),
        allow_public=allow_public_link,
    )
    reporter = Reporter(quiet=quiet, verbose=False)
    with reporter.working():
        check_shares(model, wishes.shard, len(hosts))
        reporter.step(f"asking {', '.join(host.name for host in hosts)}")
        reports = ask_hosts(hosts, model)
        reporter.step(f"reading the headers of {model}")
        weighed, needs, head = describe(
            model, sidecar, dtype, context, writes_scores=any(report.backend == "cpu" for report in reports)
        )
        plan = make_plan(needs, hosts, reports, wishes)
    if json_output:
        out(json.dumps(_as_json(weighed, needs, plan, head)) + "\n")
        return
    show(_table(weighed, needs, plan))
    for line in _explained(weighed, needs, plan, head):
        out(f"{visible(line)}\n")


def read_numbers(text: str) -> tuple[int, ...]:
    """`20,12`: layers of each rank. Raises `SplitError`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SplitError(f"--split {text}: not a list of whole numbers, as 20,12") from None


def check_shares(model: str, shard: "Sharding", size: int) -> None:
    """Raise `ShareError` if ``size`` hosts cannot share the layers; of the model only its configuration is read."""
    from skulk_core.cluster.assignment import Shard

    if shard is Shard.TENSOR and size > 1:
        load_mlx()
        from skulk_core.models.weighing import model_division

        model_division(parse_trunk(model), Event()).check(size)


def describe(
    model: str, sidecar: str | None, dtype: str, context: int | None, *, writes_scores: bool, expected: int = 0
) -> "tuple[Weighed, ModelBytes, str]":
    """What a plan must place, and where its draft head is from in words. Raises what reading the files raises.

    Without ``context`` it is for as many tokens as are ``expected``, or for `DEFAULT_CONTEXT` if those are more.
    """
    load_mlx()
    from skulk_core.models.weighing import weigh_model

    ref = parse_trunk(model)
    chosen = auto_dtype() if dtype == "auto" else dtype
    weighed = weigh_model(ref, chosen, writes_scores=writes_scores, cancel=Event())
    own = weighed.shape.context_tokens
    if context is not None and own is not None and context > own:
        raise OptionError("--context", context, f"the model was made for {own} tokens")
    weight, head = _head(weighed, ref, sidecar, chosen)
    usual = max(expected, DEFAULT_CONTEXT)
    return weighed, weighed.needs(context or min(own or usual, usual), weight), head


def _head(
    weighed: "Weighed", ref: DemoRef | FolderRef | FileRef | RepoRef, sidecar: str | None, dtype: str
) -> "tuple[HeadBytes, str]":
    """What the draft head weighs once loaded, and where it is from in words."""
    from skulk_core.models.weighing_heads import NO_HEAD, HeadBytes, weigh_head

    chosen = None if sidecar is None else parse_sidecar(sidecar)
    if chosen is None and isinstance(ref, DemoRef):
        chosen = FileRef(demo_sidecar())
    if chosen is None and weighed.weights.head:
        return HeadBytes(weighed.weights.head), "the checkpoint's own"
    if chosen is None and weighed.head_files:
        # stored as BF16
        nbytes = weighed.head_files_nbytes * weighed.item_nbytes // 2
        return HeadBytes(nbytes), f"{weighed.head_files[0]} beside the checkpoint"
    chosen = chosen or _listed(ref)
    if chosen is None:
        return NO_HEAD, "none known"
    try:
        return weigh_head(chosen, dtype, weighed.item_nbytes), str(chosen)
    except HubError as error:
        return NO_HEAD, f"{chosen}, not counted: {error.reason}"


def _listed(ref: DemoRef | FolderRef | FileRef | RepoRef) -> RepoRef | None:
    """The repository of the head that the catalog has for the model or its base."""
    from skulk_core.catalog import Catalog, Subject, resolve

    if not isinstance(ref, FolderRef | RepoRef):
        return None
    found = resolve(Subject.parse(str(ref)), Catalog.known().heads)
    return RepoRef(found.entries[0].repo, found.entries[0].revision or DEFAULT_REVISION) if found.entries else None


def _table(weighed: "Weighed", needs: "ModelBytes", plan: "Plan") -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("rank", "host", "layers", "weights", "head", "caches", "working", "needed", "available", "time"):
        table.add_column(name, justify="left" if name == "host" else "right", overflow="fold", min_width=len(name))
    for rank, stage in enumerate(plan.stages):
        need = stage.need
        sizes = (need.layers + need.parts, need.head, need.caches, need.working, need.total, stage.available_nbytes)
        table.add_row(
            str(rank),
            Text(visible(stage.host)),
            f"[{stage.layers.start}, {stage.layers.end})",
            *map(size, sizes),
            f"{stage.time:.0%}",
        )
    return table


def _explained(weighed: "Weighed", needs: "ModelBytes", plan: "Plan", head: str) -> list[str]:
    """Why it is so, in lines."""
    weights = weighed.weights.trunk / 1e9
    lines = [
        f"{weighed.where}: {weights:,.2f} GB of weights in {needs.num_layers} layers; context {needs.context} tokens",
        f"draft head: {head}",
    ]
    if len(plan.hosts) == 1:
        return lines
    speeds = ", ".join(f"{one.name} {one.speed:g}" for one in plan.capacities)
    how = "an equal share of every layer" if plan.shard == "tensor" else "layers by memory and speed"
    lines.append(f"{plan.shard}: {how} (speeds: {speeds}); time is of the slowest stage's")
    for stage, address in zip(plan.stages, plan.addresses, strict=True):
        lines.append(f"{stage.host} listens on {address.address}: {address.because}")
    return lines


def _as_json(weighed: "Weighed", needs: "ModelBytes", plan: "Plan", head: str) -> dict[str, Any]:
    stages = [
        {
            "rank": rank,
            "host": stage.host,
            "layers": [stage.layers.start, stage.layers.end],
            "needed_nbytes": stage.need.total,
            "available_nbytes": stage.available_nbytes,
            "parts": asdict(stage.need),
            "speed": capacity.speed,
            "time": stage.time,
            "link": asdict(address),
        }
        for rank, (stage, capacity, address) in enumerate(
            zip(plan.stages, plan.capacities, plan.addresses, strict=True)
        )
    ]
    return {
        "schema": JSON_SCHEMA,
        "model": weighed.where,
        "shard": str(plan.shard),
        "context": needs.context,
        "split_points": list(needs.split_points),
        "head": head,
        "layer_nbytes": list(weighed.weights.layers),
        "part_nbytes": dict(weighed.weights.parts),
        "stages": stages,
    }
