"""Which address every rank listens on: that of the fastest link which it shares with the rank before it.

In the ring rank `i` is called by rank `i - 1`, the first by the last. The ring's sockets know no login and no
encryption, so a rank binds to the chosen address alone, and a public one is refused unless somebody says otherwise.
"""

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from skulk_core.cluster.peers import Host
from skulk_core.cluster.report import HostReport, Interface
from skulk_core.errors import LinkError, OptionError, PublicLink

LOOPBACK = "127.0.0.1"
LINK_OPTION = "--link"


@dataclass(frozen=True)
class RankAddress:
    """Where a rank listens, and why there. `interface` is empty for an address that is only known from outside."""

    address: str
    interface: str
    speed_mbps: int | None
    because: str


@dataclass(frozen=True)
class Pins:
    """`--link`: an interface, address or network for every host (`everywhere`), or for one by name."""

    everywhere: str | None = None
    by_host: tuple[tuple[str, str], ...] = ()

    def of(self, host: Host) -> str | None:
        """The pin of ``host``: of the command line, else of hosts.yaml."""
        return dict(self.by_host).get(host.name) or self.everywhere or host.link


def read_pins(values: Sequence[str], hosts: Sequence[Host]) -> Pins:
    """`[HOST=]LINK` as given with `--link`. Raises `OptionError`."""
    names = [host.name for host in hosts]
    everywhere, by_host = None, {}
    for value in values:
        name, equals, link = value.partition("=")
        if not equals:
            if everywhere is not None:
                raise OptionError(LINK_OPTION, value, f"{everywhere} is given for every host already")
            everywhere = value
        elif name not in names:
            raise OptionError(LINK_OPTION, value, f"{name!r} is no host of --peers: {', '.join(names)}")
        else:
            by_host[name] = link
        if not (link if equals else value):
            raise OptionError(LINK_OPTION, value, "names no interface, address or network")
    return Pins(everywhere, tuple(by_host.items()))


def choose_addresses(
    hosts: Sequence[Host],
    reports: Sequence[HostReport],
    pins: Pins | None = None,
    *,
    allow_public: bool = False,
    cut: Collection[tuple[str, str]] = (),
) -> tuple[RankAddress, ...]:
    """The address of every rank. Raises `LinkError`, `PublicLink`.

    ``cut`` are names of hosts with addresses to which they could not connect: taken only where there is no other.
    """
    pins = pins or Pins()
    usable = [_usable(host, report, pins.of(host)) for host, report in zip(hosts, reports, strict=True)]
    return tuple(
        _listen_at(rank, hosts, reports, usable, pins, cut, allow_public=allow_public) for rank in range(len(hosts))
    )


def _usable(host: Host, report: HostReport, pin: str | None) -> list[Interface]:
    """The host's interfaces, less those that a pin excludes. Raises `LinkError` for a pin that fits none."""
    if pin is None:
        return [one for one in report.interfaces if not ipaddress.ip_address(one.address).is_loopback]
    pinned = [one for one in report.interfaces if _fits(one, pin)]
    if not pinned:
        there = ", ".join(f"{one.name} {one.address}/{one.prefix}" for one in report.interfaces) or "none"
        raise LinkError(host.name, f"has no link {pin}; its links: {there}")
    return pinned


def _fits(one: Interface, pin: str) -> bool:
    if pin in (one.name, one.address):
        return True
    try:
        return "/" in pin and ipaddress.ip_address(one.address) in ipaddress.ip_network(pin, strict=False)
    except ValueError:
        return False


def _listen_at(
    rank: int,
    hosts: Sequence[Host],
    reports: Sequence[HostReport],
    usable: Sequence[list[Interface]],
    pins: Pins,
    cut: Collection[tuple[str, str]],
    *,
    allow_public: bool,
) -> RankAddress:
    host, caller = hosts[rank], rank - 1
    if reports[caller].machine == reports[rank].machine and pins.of(host) is None:
        return RankAddress(LOOPBACK, "", None, f"{hosts[caller].name} is on the same machine")
    shared = [
        (own, min(own.speed_mbps or 0, other.speed_mbps or 0))
        for own in usable[rank]
        for other in usable[caller]
        if _same_network(own, other)
    ]
    private = [(own, speed) for own, speed in shared if not is_public(own.address)]
    if shared and not private and not allow_public:
        raise PublicLink(host.name, shared[0][0].address)
    if candidates := private or shared:
        own, speed = max(candidates, key=lambda found: ((hosts[caller].name, found[0].address) not in cut, found[1]))
        because = f"{f'{speed} Mbit/s' if speed else 'a link'} shared with {hosts[caller].name}"
        return RankAddress(own.address, own.name, speed or None, because)
    return _routed(host, hosts[caller], reports[rank], reports[caller], usable[rank], pins, allow_public=allow_public)


def _routed(
    host: Host,
    caller: Host,
    report: HostReport,
    callers: HostReport,
    usable: Sequence[Interface],
    pins: Pins,
    *,
    allow_public: bool,
) -> RankAddress:
    """Hosts without a common network: the pinned address, else the one by which the launcher and the host met."""
    pinned = usable[0].address if pins.of(host) is not None else None
    address = pinned or (callers.reached_from if host.is_local else report.reached_at)
    own = next((one for one in report.interfaces if one.address == address), None)
    if address is None or own is None:
        raise LinkError(host.name, f"shares no network with {caller.name}, and no address of it is known to be reached")
    if is_public(address) and not allow_public:
        raise PublicLink(host.name, address)
    why = "pinned" if pinned else "the address that ssh met; no network is shared"
    return RankAddress(address, own.name, own.speed_mbps, why)


def _same_network(own: Interface, other: Interface) -> bool:
    # one address on both sides is a network that every machine has for itself, as container programs make
    return own.address != other.address and _network(own) == _network(other)


def _network(one: Interface) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{one.address}/{one.prefix}", strict=False)


def is_public(address: str) -> bool:
    """Whether the whole Internet may reach it."""
    return ipaddress.ip_address(address).is_global
