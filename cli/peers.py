"""`skulk peers`: each host, whether it can take part, and with what."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli import options
from cli.errors import advice, guarded
from cli.program import EXIT_FAILED
from cli.render import Reporter, out, say, show, visible
from skulk_core.cluster.peers import Host, parse_peers
from skulk_core.errors import PeerError, SkulkError
from skulk_core.formats.hosts import HOSTS_FILE, HostsFile, read_hosts
from skulk_core.runtime.userfiles import config_dir

if TYPE_CHECKING:
    from skulk_core.cluster.report import HostReport

JSON_SCHEMA = 1


def known_hosts() -> HostsFile:
    """The user's hosts.yaml. Raises `FileError`, `FormatError`."""
    return read_hosts(config_dir() / HOSTS_FILE)


@guarded
def peers_command(
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="HOST,…",
            help="Hosts as for `skulk run`: user@host\\[:port], names from hosts.yaml, local\\[:N]. Default: all of "
            "hosts.yaml, and this one.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Tell which of its files each host has already.")
    ] = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask every host what it is: versions, device, memory, links, and whether it has a model.

    Exits with 1 if a host cannot be used, or if the hosts cannot be used together.
    """
    from skulk_core.cluster.planning import check_hosts
    from skulk_core.cluster.report import fetch_reports

    hosts = _hosts(peers)
    reporter = Reporter(quiet=quiet, verbose=False)
    with reporter.working():
        reporter.step(f"asking {', '.join(host.name for host in hosts)}")
        answers = fetch_reports(hosts, model, measure=True)
    trouble = _together(hosts, answers, check_hosts)
    if json_output:
        out(json.dumps(_as_json(hosts, answers, trouble)) + "\n")
    else:
        show(_table(hosts, answers, with_model=model is not None))
        if trouble is not None:
            say(f"{trouble}\n  {advice(trouble)[0]}")
    if trouble is not None or any(isinstance(answer, PeerError) for answer in answers):
        raise typer.Exit(EXIT_FAILED)


def _hosts(peers: str | None) -> Sequence[Host]:
    known = known_hosts()
    if peers is None and not known.hosts:
        return parse_peers("local", known)
    return parse_peers(peers or "", known)


def _together(hosts: Sequence[Host], answers: "Sequence[HostReport | PeerError]", check: Any) -> SkulkError | None:
    """Why the hosts that answered cannot work together, None if they can."""
    pairs = [(h, a) for h, a in zip(hosts, answers, strict=True) if not isinstance(a, PeerError)]
    if not pairs:
        return None
    try:
        check([host for host, _ in pairs], [report for _, report in pairs])
    except SkulkError as error:
        return error
    return None


def _as_json(
    hosts: Sequence[Host], answers: "Sequence[HostReport | PeerError]", trouble: SkulkError | None
) -> dict[str, Any]:
    def one(host: Host, answer: "HostReport | PeerError") -> dict[str, Any]:
        said = {"host": host.name, "ssh": None if host.ssh is None else str(host.ssh), "command": list(host.command)}
        if isinstance(answer, PeerError):
            failed = {"error": type(answer).__name__, "message": str(answer), "advice": advice(answer)[0]}
            return {**said, "ok": False, **failed}
        return {**said, "ok": True, **asdict(answer)}

    together = None if trouble is None else {"error": type(trouble).__name__, "message": str(trouble)}
    listed = [one(host, answer) for host, answer in zip(hosts, answers, strict=True)]
    return {"schema": JSON_SCHEMA, "hosts": listed, "trouble": together}


def _table(hosts: Sequence[Host], answers: "Sequence[HostReport | PeerError]", *, with_model: bool) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for host, answer in zip(hosts, answers, strict=True):
        if isinstance(answer, PeerError):
            table.add_row(Text("✗", style="red"), _text(host.name), _text(answer.reason))
            table.add_row("", "", Text(f"→ {visible(advice(answer)[0])}", style="yellow"))
            continue
        first, *more = _lines(answer, with_model=with_model)
        table.add_row(Text("✓", style="green"), _text(host.name), _text(first))
        for line in more:
            table.add_row("", "", _text(line))
    return table


def _lines(report: "HostReport", *, with_model: bool) -> list[str]:
    """What a host said, for a person."""
    speed = "" if report.nbytes_per_s is None else f", weights read at {report.nbytes_per_s / 1e9:.1f} GB/s"
    links = [one for one in report.interfaces if not one.address.startswith("127.")]
    shown = ", ".join(f"{one.name} {one.address}/{one.prefix}{_speed(one.speed_mbps)}" for one in links) or "none"
    lines = [
        f"skulk {report.versions.get('skulk-mtp') or '?'}, mlx {report.versions.get('mlx') or '?'}, "
        f"mlx-lm {report.versions.get('mlx-lm') or '?'}",
        f"{report.device} ({report.backend}), {report.available_nbytes / 1e9:.1f} of "
        f"{report.total_nbytes / 1e9:.1f} GB free{speed}",
        f"links: {shown}",
    ]
    return [*lines, f"model: {report.model}"] if with_model else lines


def _speed(mbps: int | None) -> str:
    return "" if mbps is None else f" ({mbps / 1000:g} Gbit/s)"


def _text(text: str) -> Text:
    return Text(visible(text))
