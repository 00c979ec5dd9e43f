"""What a host says of itself before anything is planned: versions, device, memory, links, and a model's files.

A host makes it with `examine`, in a process of its own; `fetch_reports` starts such processes and
collects what they say.
"""

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from skulk_core.cluster.frames import FrameError, read_frame, skip_banner
from skulk_core.cluster.peers import Host
from skulk_core.cluster.transport import StartedProcess, start
from skulk_core.errors import BackendError, PeerError, PeerUnreachable, SkulkMissing
from skulk_core.hub.presence import Presence, presence_of
from skulk_core.runtime.device import device_facts, load_mlx, versions

REPORT_COMMAND = "host-report"
REPORT_KIND = "report"
_TIMEOUT_S = 90.0
_SPEED_ROWS, _SPEED_COLUMNS = 4096, 4096  # 64 MiB in float32: past every cache
_SPEED_S = 0.2
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWN_NETWORK = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Interface:
    """One IPv4 address of a host. `speed_mbps` is None where the system does not say."""

    name: str
    address: str
    prefix: int
    speed_mbps: int | None = None


@dataclass(frozen=True)
class HostReport:
    """One host. `machine` is equal for two reports of one machine and network, `memory` for two that share a memory.

    `reached_at` is the address that ssh connected to, `reached_from` the one it came from. `nbytes_per_s` is how fast
    weights are read by a product of one row, None if it was not measured. `model` says which of a model's files are
    there, None if no model was asked for.
    """

    hostname: str
    machine: str
    memory: str
    versions: Mapping[str, str | None]
    backend: str
    device: str
    total_nbytes: int
    available_nbytes: int
    auto_dtype: str
    interfaces: tuple[Interface, ...] = ()
    reached_at: str | None = None
    reached_from: str | None = None
    nbytes_per_s: float | None = None
    model: Presence | None = None

    def as_frame(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": REPORT_KIND, **asdict(self)}


def read_report(frame: Mapping[str, Any]) -> HostReport:
    """What `HostReport.as_frame` wrote. Raises `KeyError` or `TypeError` for anything else."""
    values = {name: frame[name] for name in HostReport.__dataclass_fields__}
    interfaces = tuple(Interface(**one) for one in values.pop("interfaces"))
    model = values.pop("model")
    return HostReport(**values, interfaces=interfaces, model=None if model is None else Presence(**model))


def examine(model: str | None = None, *, measure: bool = False) -> HostReport:
    """What this host is. ``measure`` times a product, a fifth of a second. Raises `BackendError`."""
    facts = device_facts()
    machine, memory = _identity()
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return HostReport(
        hostname=socket.gethostname(),
        machine=machine,
        memory=memory,
        versions=versions(),
        backend=facts.backend.value,
        device=facts.name,
        total_nbytes=facts.total_nbytes,
        available_nbytes=facts.available_nbytes,
        auto_dtype=facts.auto_dtype,
        interfaces=interfaces(),
        reached_at=connection[2] if len(connection) == 4 else None,
        reached_from=connection[0] if len(connection) == 4 else None,
        nbytes_per_s=_speed() if measure else None,
        model=None if model is None else presence_of(model),
    )


def interfaces() -> tuple[Interface, ...]:
    """IPv4 addresses of interfaces that are up, loopback's last."""
    states = psutil.net_if_stats()
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        state = states.get(name)
        if state is None or not state.isup:
            continue
        for address in addresses:
            if address.family == socket.AF_INET and address.address and address.netmask:
                prefix = sum(bin(int(part)).count("1") for part in address.netmask.split("."))
                found.append(Interface(name, address.address, prefix, state.speed or None))
    return tuple(sorted(found, key=lambda one: (one.address.startswith("127."), one.name, one.address)))


def _identity() -> tuple[str, str]:
    """What names this machine with its network, and what names its memory."""
    if _BOOT_ID.exists():
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        network = _OWN_NETWORK.stat().st_ino if _OWN_NETWORK.exists() else 0
        return f"{boot}/{network}", boot
    boot = f"{socket.gethostname()}/{int(psutil.boot_time())}"
    return boot, boot


def _speed() -> float:
    """Bytes of weights that a product of one row reads in a second, median."""
    mx = load_mlx()
    weight, row = mx.ones((_SPEED_ROWS, _SPEED_COLUMNS)), mx.ones((1, _SPEED_COLUMNS))
    mx.eval(row @ weight.T)
    seconds: list[float] = []
    end = time.perf_counter() + _SPEED_S
    while time.perf_counter() < end or len(seconds) < 3:
        began = time.perf_counter()
        mx.eval(row @ weight.T)
        seconds.append(time.perf_counter() - began)
    return float(weight.nbytes) / statistics.median(seconds)


def fetch_reports(
    hosts: Sequence[Host], model: str | None = None, *, measure: bool = False
) -> list[HostReport | PeerError]:
    """The reports of all ``hosts``, those of other machines asked at the same time.

    What a host failed with stands in its place. Raises `ProgramMissing` where there is no ssh, `BackendError` where
    this machine has no MLX.
    """
    arguments = [REPORT_COMMAND, *(["--model", model] if model else []), *(["--measure"] if measure else [])]
    processes: dict[str, StartedProcess] = {}
    try:
        for host in hosts:
            if not host.is_local:
                processes[host.name] = start(host, arguments, {})
        with ThreadPoolExecutor(max(len(processes), 1)) as pool:
            try:
                asked = {name: pool.submit(_answer, process) for name, process in processes.items()}
                own = examine(model, measure=measure) if any(host.is_local for host in hosts) else None
                answers = {name: answer.result() for name, answer in asked.items()}
            finally:
                # whoever still waits for an answer then has one
                _end(processes.values())
    finally:
        _end(processes.values())
    return [own if host.is_local and own is not None else answers[host.name] for host in hosts]


def _answer(process: StartedProcess) -> HostReport | PeerError:
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
    try:
        frame = read_frame(process.stdout) if skip_banner(process.stdout) is None else None
    except (FrameError, OSError) as error:
        return PeerError(process.host, f"its answer cannot be read: {error}")
    finally:
        timer.cancel()
    if late.is_set():
        return PeerUnreachable(process.host, f"no answer within {_TIMEOUT_S:.0f} s")
    if frame is None:
        return process.failure()
    if frame["kind"] == "error":
        return PeerError(process.host, str(frame.get("message")))
    try:
        return read_report(frame)
    except (KeyError, TypeError):
        command = " ".join(process.place.command)
        return SkulkMissing(process.host, command, "skulk there is another version: its report is not of ours")


def _end(processes: Iterable[StartedProcess]) -> None:
    for process in processes:
        with suppress(OSError):
            process.stdin.close()
        process.kill()


def say_report(model: str | None, *, measure: bool) -> dict[str, Any]:
    """The frame that answers `fetch_report`: the report, or why there is none."""
    try:
        return examine(model, measure=measure).as_frame()
    except BackendError as error:
        return {"kind": "error", "message": f"{error} (on {sys.platform})"}
