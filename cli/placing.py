"""Where `--peers` puts a model: the hosts are asked, the model is weighed, and whoever is left is planned for."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cli.loading import Choice
from cli.plan import check_shares, describe, read_numbers
from cli.render import Reporter
from skulk_core.errors import OptionError

if TYPE_CHECKING:
    from skulk_core.cluster.peers import Host
    from skulk_core.cluster.planning import Planner
    from skulk_core.hub.sources import ModelSource
    from skulk_core.models.loading import LoadedModel
    from skulk_core.types import LayerRange


def make_planner(
    choice: Choice,
    hosts: "Sequence[Host]",
    *,
    shard: str,
    split: str | None,
    backend: str,
    link: Sequence[str],
    allow_public: bool,
    context: int | None,
    expected: int,
    reporter: Reporter,
) -> "Planner":
    """Ask ``hosts`` and weigh the model of ``choice``; raises what a host or the model lacks, before anything loads."""
    from skulk_core.cluster.addresses import read_pins
    from skulk_core.cluster.assignment import Shard
    from skulk_core.cluster.backends import Backend, settings_for
    from skulk_core.cluster.planning import Planner, Wishes, ask_hosts, in_rank_order

    wishes = Wishes(
        shard=Shard.TENSOR if shard == "tensor" else Shard.PIPELINE,
        split=None if split is None else read_numbers(split),
        pins=read_pins(link, hosts),
        allow_public=allow_public,
    )
    # what it lacks must show before anything is loaded; the real ports are known later
    settings_for(backend, in_rank_order(hosts, wishes.shard), ["0.0.0.0:0"] * len(hosts))
    check_shares(choice.model, wishes.shard, len(hosts))
    reporter.step(f"asking {', '.join(host.name for host in hosts)}")
    reports = ask_hosts(hosts)
    on_cpu = [host.name for host, report in zip(hosts, reports, strict=True) if report.backend == "cpu"]
    if backend == Backend.NCCL and on_cpu:
        why = f"needs an NVIDIA GPU on every host, and MLX computes on the CPU of {', '.join(on_cpu)}; use ring"
        raise OptionError("--backend", backend, why)
    reporter.step(f"weighing {choice.model}")
    writes_scores = any(report.backend == "cpu" for report in reports)
    sidecar = choice.sidecar if choice.depth != 0 else None
    _, needs, _ = describe(choice.model, sidecar, choice.dtype, context, writes_scores=writes_scores, expected=expected)
    planner = Planner(needs, hosts, reports, wishes)
    for stage in planner.plan(hosts).stages:
        share = f"1/{len(hosts)} of " if wishes.shard is Shard.TENSOR else ""
        layers = f"{share}layers [{stage.layers.start}, {stage.layers.end})"
        has = f"{stage.available_nbytes / 1e9:.2f} GB"
        reporter.detail(f"{stage.host}: {layers}, needs {stage.need.total / 1e9:.2f} GB of {has}")
    return planner


def make_pusher(source: "ModelSource", model: "LoadedModel", reporter: Reporter) -> "Callable[[Host, LayerRange], str]":
    """What copies a stage's files to a host, and says where they are there. Raises `OptionError`, `PeerError`."""
    from skulk_core.cluster.push import Pusher
    from skulk_core.models.stage_source import needed_by

    if source.gguf is not None:
        raise OptionError("--push", "", "copies checkpoints in safetensors, of which a host needs a part; this is GGUF")
    pusher = Pusher(source.folder, model.headers, reporter.bytes)

    def push(host: "Host", layers: "LayerRange") -> str:
        return pusher.push(host, needed_by(model.config, str(source), layers))

    return push
