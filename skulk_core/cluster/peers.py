"""`--peers`: which hosts take part, in the order of their ranks.

An item of the list is `user@host[:port]`, a name from hosts.yaml, or `local[:N]` for N processes on this machine. This
machine is the last rank as well, the one that decides, unless the list names it; `local:0` makes it drive only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from skulk_core.errors import DuplicateHost, OptionError
from skulk_core.formats.hosts import DEFAULT_COMMAND, LOCAL, HostEntry, HostsFile, SshAddress, parse_address
from skulk_core.formats.suggest import near_miss

OPTION = "--peers"
_MOST_LOCAL = 64


@dataclass(frozen=True, kw_only=True)
class Host:
    """One rank's place. `name` is how messages call it; `ssh` is None for a process on this machine.

    `command` are the words that start `skulk` there; `~` at the beginning of a word is that host's own. `link`,
    `memory_nbytes`, `speed` and `rdma` are as in hosts.yaml.
    """

    name: str
    ssh: SshAddress | None = None
    command: tuple[str, ...] = DEFAULT_COMMAND
    link: str | None = None
    memory_nbytes: int | None = None
    speed: float | None = None
    rdma: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether its process is a child of this one."""
        return self.ssh is None


def parse_peers(text: str, hosts_file: HostsFile) -> tuple[Host, ...]:
    """The ranks' hosts that ``text`` asks for, at least one; an empty text asks for every host of the file.

    Raises `OptionError` for what cannot be read or is not known, `DuplicateHost` for a host listed twice.
    """
    items = _all_names(hosts_file) if text == "" else [item.strip() for item in text.split(",")]
    hosts: list[Host] = []
    num_local: int | None = None
    for item in items:
        if item == LOCAL or item.startswith(f"{LOCAL}:"):
            if num_local is not None:
                raise OptionError(OPTION, text, f"names {LOCAL} twice; local:N is N processes")
            num_local = _count(item)
            hosts += _local_hosts(num_local, hosts_file)
        else:
            _add(hosts, _remote_host(item, hosts_file))
    if num_local is None:
        hosts += _local_hosts(1, hosts_file)
    if not hosts:
        raise OptionError(OPTION, text, "leaves no host to decode on")
    return tuple(hosts)


def _all_names(hosts_file: HostsFile) -> list[str]:
    if not hosts_file.hosts:
        why = "lists no hosts" if hosts_file.exists else "does not exist"
        raise OptionError(OPTION, "", f"alone means every host of {hosts_file.path}, which {why}")
    return [entry.name for entry in hosts_file.hosts]


def _count(item: str) -> int:
    number = item.removeprefix(LOCAL).removeprefix(":")
    if item == LOCAL:
        return 1
    if not number.isascii() or not number.isdigit() or int(number) > _MOST_LOCAL:
        raise OptionError(OPTION, item, f"local:N takes a number of processes from 0 to {_MOST_LOCAL}")
    return int(number)


def _local_hosts(count: int, hosts_file: HostsFile) -> list[Host]:
    if count == 1:
        return [Host(name=LOCAL, rdma=hosts_file.local_rdma)]
    return [Host(name=f"{LOCAL}#{number + 1}") for number in range(count)]


def _remote_host(item: str, hosts_file: HostsFile) -> Host:
    entry = hosts_file.get(item)
    if entry is not None:
        return _listed(entry)
    address = parse_address(item)
    if address is None:
        raise OptionError(OPTION, item or "''", "not user@host[:port], local[:N] or a name from hosts.yaml")
    if address.user is None:
        known = [LOCAL, *(entry.name for entry in hosts_file.hosts)]
        raise OptionError(
            OPTION,
            item,
            f"no such name in {hosts_file.path}{near_miss(item, known)}; an address is user@host[:port], with the user",
        )
    return Host(name=item, ssh=address)


def _listed(entry: HostEntry) -> Host:
    return Host(
        name=entry.name,
        ssh=entry.ssh,
        command=entry.command,
        link=entry.link,
        memory_nbytes=entry.memory_nbytes,
        speed=entry.speed,
        rdma=entry.rdma,
    )


def _add(hosts: list[Host], host: Host) -> None:
    """Append ``host`` unless one of the same name, or at the same address and port, is there."""
    for other in hosts:
        if other.name == host.name or _place(other) == _place(host):
            raise DuplicateHost(host.name, other.name)
    hosts.append(host)


def _place(host: Host) -> object:
    # two logins of one machine are one machine
    return host.name if host.ssh is None else (host.ssh.host.lower(), host.ssh.port or 22)
