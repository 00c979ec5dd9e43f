"""What `mx.distributed` is told of its data plane: environment variables, and files whose paths it wants in others.

The names are those that MLX 0.32 reads (`mlx._distributed_utils.launch`). Only `ring` has been run by its authors here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from skulk_core.cluster.peers import Host
from skulk_core.errors import OptionError, RdmaMissing


class Backend(StrEnum):
    """Engines that carry the ring's messages: TCP, RDMA over Thunderbolt, NVIDIA's."""

    RING = "ring"
    JACCL = "jaccl"
    NCCL = "nccl"


@dataclass(frozen=True)
class RankSettings:
    """One rank's environment; `files` are contents, by the variable that must hold their path."""

    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


def settings_for(
    backend: str, hosts: Sequence[Host], addresses: Sequence[str], called: Sequence[str] | None = None
) -> tuple[RankSettings, ...]:
    """What every rank is told; ``addresses`` are `ip:port` by rank, ``called`` as `ring_settings` has it.

    Raises as `jaccl_settings` does.
    """
    assert called is None or backend == Backend.RING, "only the ring calls neighbours by addresses of our choice"
    match Backend(backend):
        case Backend.RING:
            return ring_settings(addresses, called)
        case Backend.JACCL:
            return jaccl_settings(hosts, addresses[0])
        case Backend.NCCL:
            return nccl_settings(len(hosts), addresses[0])


def ring_settings(addresses: Sequence[str], called: Sequence[str] | None = None) -> tuple[RankSettings, ...]:
    """TCP between neighbours; ``addresses`` are `ip:port` by rank.

    A rank listens at its own and calls the next one's, or what ``called`` has in the place of that.
    """
    settings = []
    for rank in range(len(addresses)):
        known = list(called or addresses)
        known[rank] = addresses[rank]
        hostfile = json.dumps([[address] for address in known])
        settings.append(RankSettings({"MLX_RANK": str(rank)}, {"MLX_HOSTFILE": hostfile}))
    return tuple(settings)


def jaccl_settings(hosts: Sequence[Host], coordinator: str) -> tuple[RankSettings, ...]:
    """RDMA in a ring. Every host must name its device towards both neighbours; ``coordinator`` is rank 0's `ip:port`.

    Raises `RdmaMissing` with the host and the neighbour for which hosts.yaml has no device, `OptionError` for several
    processes on this machine.
    """
    size = len(hosts)
    if sum(host.is_local for host in hosts) > 1:
        raise OptionError("--backend", Backend.JACCL, "joins machines, and --peers has several processes on this one")
    devices: list[list[str | None]] = []
    for rank, host in enumerate(hosts):
        for neighbour in {(rank - 1) % size, (rank + 1) % size} - {rank}:
            if hosts[neighbour].name not in host.rdma:
                raise RdmaMissing(host.name, hosts[neighbour].name)
        devices.append([host.rdma.get(other.name) for other in hosts])
    files = {"MLX_IBV_DEVICES": json.dumps(devices)}
    # two hosts are neighbours twice, which a mesh of two is as well
    ring = {"MLX_JACCL_RING": "1"} if size > 2 else {}
    return tuple(
        RankSettings({"MLX_RANK": str(rank), "MLX_JACCL_COORDINATOR": coordinator, **ring}, files)
        for rank in range(size)
    )


def nccl_settings(size: int, coordinator: str) -> tuple[RankSettings, ...]:
    """NVIDIA's collectives; ``coordinator`` is rank 0's `ip:port`."""
    address, _, port = coordinator.rpartition(":")
    common = {"NCCL_HOST_IP": address, "NCCL_PORT": port, "MLX_WORLD_SIZE": str(size)}
    return tuple(RankSettings({"MLX_RANK": str(rank), **common}) for rank in range(size))
