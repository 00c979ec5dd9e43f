"""`hosts.yaml`, schema 1: the machines that `--peers` may name, in `~/.config/skulk/` (or `$XDG_CONFIG_HOME/skulk/`).

    schema: 1
    hosts:
      studio:                          # the name that --peers takes
        ssh: ana@192.168.1.20:2222     # [user@]host[:port] as for ssh; a Host of ~/.ssh/config works too
        command: ~/.local/bin/skulk    # what starts skulk there, in the words of a shell; left out: skulk
        link: 10.0.0.2                 # the address, interface or network (10.0.0.0/24) its ring traffic takes
        memory_gb: 48                  # most that a plan may give it; left out: what it has available
        speed: 2.0                     # twice as fast as a host with 1.0, as one without counts; no host: measured
        rdma: {local: rdma_en5}        # RDMA devices towards other hosts of this file, for --backend jaccl
      mini:
        ssh: mini.local
      local:                           # this machine: its RDMA devices, and nothing else
        rdma: {studio: rdma_en4}

`--peers` alone means every host of the file, in its order, and this machine. Only `ssh` must be there.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skulk_core.formats.yaml_file import Section, read_yaml

SCHEMA = 1
HOSTS_FILE = "hosts.yaml"
DEFAULT_COMMAND = ("skulk",)

# Neither part may begin with a dash, which ssh would take for an option.
_USER = r"[A-Za-z0-9_.][^\s@:/'\"\\;|&<>$`()-]*(?:-[^\s@:/'\"\\;|&<>$`()-]*)*"
_ADDRESS = re.compile(
    rf"(?:(?P<user>{_USER})@)?(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>\w[\w.-]*))(?::(?P<port>\d{{1,5}}))?",
    re.ASCII,
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
# The name of this machine, in `--peers` too.
LOCAL = "local"
_LOCAL_KEYS = ("rdma",)
_KEYS = ("ssh", "command", "link", "memory_gb", "speed", "rdma")


@dataclass(frozen=True)
class SshAddress:
    """Where ssh connects; `user` and `port` are None where ssh's own configuration decides."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def login(self) -> str:
        """`user@host`, as ssh's first argument."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{self.user}@"
        return f"{user}{host}" + ("" if self.port is None else f":{self.port}")


def parse_address(text: str) -> SshAddress | None:
    """`[user@]host[:port]`, with an IPv6 address in brackets; None if `text` is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 65536:
        return None
    return SshAddress(found["v6"] or found["host"], found["user"], port)


@dataclass(frozen=True, kw_only=True)
class HostEntry:
    """One machine of the file; what is None the file leaves to us."""

    name: str
    ssh: SshAddress
    command: tuple[str, ...] = DEFAULT_COMMAND
    link: str | None = None
    memory_nbytes: int | None = None
    speed: float | None = None
    rdma: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostsFile:
    """The file's content. A file that does not exist has no hosts. `local_rdma` is of this machine, no host of it."""

    path: Path
    hosts: tuple[HostEntry, ...]
    exists: bool = True
    local_rdma: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> HostEntry | None:
        """The host called `name`."""
        return next((entry for entry in self.hosts if entry.name == name), None)


def read_hosts(path: Path) -> HostsFile:
    """Read the file. Raises `FileError` if it cannot be read, `FormatError` naming line and key if it is wrong."""
    if not path.exists():
        return HostsFile(path, (), exists=False)
    top = read_yaml(path, SCHEMA)
    top.only(("schema", "hosts"))
    hosts = top.section("hosts")
    entries = tuple(_entry(hosts, name) for name in hosts.data if name != LOCAL)
    local = _local_devices(hosts)
    _check_addresses(hosts, entries)
    for name, devices in ((LOCAL, local), *((entry.name, entry.rdma) for entry in entries)):
        _check_devices(hosts, name, devices)
    return HostsFile(path, entries, local_rdma=local)


def _entry(hosts: Section, name: object) -> HostEntry:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise hosts.error(str(name), "a host's name is letters, digits, dots and dashes")
    section = hosts.section(name)
    section.only(_KEYS)
    address = parse_address(section.text("ssh"))
    if address is None:
        raise section.error("ssh", f"must be [user@]host[:port], not {section.text('ssh')!r}")
    return HostEntry(
        name=name,
        ssh=address,
        command=_command(section),
        link=section.text("link") if section.has("link") else None,
        memory_nbytes=int(_positive(section, "memory_gb") * 1e9) if section.has("memory_gb") else None,
        speed=_positive(section, "speed") if section.has("speed") else None,
        rdma=_devices(section),
    )


def _command(section: Section) -> tuple[str, ...]:
    if not section.has("command"):
        return DEFAULT_COMMAND
    try:
        words = tuple(shlex.split(section.text("command")))
    except ValueError as error:
        raise section.error("command", f"is not a shell's line: {error}") from error
    if not words or words[0].startswith("-"):
        raise section.error("command", "must begin with a program")
    return words


def _positive(section: Section, key: str) -> float:
    value = section.number(key)
    if value <= 0:
        raise section.error(key, f"must be above 0, not {value:g}")
    return value


def _devices(section: Section) -> dict[str, str]:
    if not section.has("rdma"):
        return {}
    devices = section.section("rdma")
    return {str(name): devices.text(name) for name in devices.data}


def _local_devices(hosts: Section) -> dict[str, str]:
    if not hosts.has(LOCAL):
        return {}
    section = hosts.section(LOCAL)
    for key in section.data:
        if key not in _LOCAL_KEYS:
            raise section.error(str(key), f"{LOCAL} means this machine, of which only `rdma` can be said")
    return _devices(section)


def _check_addresses(hosts: Section, entries: tuple[HostEntry, ...]) -> None:
    """Refuse one address under two names. Raises `FormatError`."""
    first: dict[tuple[str, int | None], str] = {}
    for entry in entries:
        key = entry.ssh.host.lower(), entry.ssh.port
        if key in first:
            raise hosts.section(entry.name).error("ssh", f"is the address of {first[key]} already")
        first[key] = entry.name


def _check_devices(hosts: Section, name: str, devices: Mapping[str, str]) -> None:
    """Refuse RDMA devices towards hosts that are not there. Raises `FormatError`."""
    for other in devices:
        if other == name or (other != LOCAL and other not in hosts.data):
            reason = f"{other!r} is no other host of this file, and not {LOCAL}, this machine"
            raise hosts.section(name).error("rdma", reason)
