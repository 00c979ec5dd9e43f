"""Several hosts on one machine: network namespaces on a bridge, each with an sshd of its own.

Nothing outside a temporary folder is read or written: host keys, user key, client configuration and known hosts are
made for the occasion, and the programs under test find an `ssh` on their PATH that is the real one with that
configuration. Root, `ip` and `sshd` are needed; `missing()` says which of them are not there.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
SSHD = "/usr/sbin/sshd"
WAIT_S = 30  # longest wait for the system, reached only when a test fails
_PREFIX, _NUMBERS = "skt", itertools.count()
# sshd separates its privileges in /run/sshd: `ip netns exec` has mounts of its own, where one can be made for it alone
_IN_OWN_RUN = 'mount -t tmpfs -o mode=755 none /run && mkdir /run/sshd && exec "$0" "$@"'
_NETWORK = "10.77.{link}.{number}"

_SSHD_CONFIG = """
Port 22
Port 2222
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
Subsystem sftp internal-sftp
"""
_CLIENT_CONFIG = """
Host *
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""


def missing() -> str:
    """What this machine lacks for such hosts; empty if nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "root is needed for network namespaces"
    lacking = [program for program in ("ip", "tc", "ssh", "ssh-keygen", "sftp") if shutil.which(program) is None]
    lacking += [] if Path(SSHD).exists() else ["sshd"]
    if lacking:
        return f"not installed: {', '.join(lacking)} (Debian: openssh-server openssh-client iproute2)"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if made.returncode == 0 else "network namespaces cannot be made here"


def _do(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class NetHost:
    """One host: a namespace with `link0`, and `link1` where the cluster has two networks, and an sshd on port 22."""

    name: str
    namespace: str
    folder: Path
    addresses: tuple[str, ...]

    @property
    def peer(self) -> str:
        """The host as `--peers` takes it."""
        return f"root@{self.addresses[0]}"

    def pids(self) -> list[int]:
        """Every process in it, sshd's own too."""
        return [int(pid) for pid in _do("ip", "netns", "pids", self.namespace).split()]

    def processes(self, word: str) -> dict[int, str]:
        """Command lines that have ``word`` in them, by process."""
        return {pid: line for pid in self.pids() if word in (line := _command_line(pid))}

    def listening(self) -> set[int]:
        """TCP ports that somebody listens on."""
        lines = self.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        rows = [line.split() for line in lines if not line.lstrip().startswith("sl")]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}

    def received_nbytes(self, link: int = 0) -> int:
        """Bytes that have come in by a link."""
        return int(self.run("cat", f"/sys/class/net/link{link}/statistics/rx_bytes"))

    def wait_gone(self, word: str) -> None:
        """Wait until no process has ``word`` in its command line."""
        deadline = time.monotonic() + WAIT_S
        while left := self.processes(word):
            assert time.monotonic() < deadline, f"{self.name} still runs {left}"
            time.sleep(0.05)

    def run(self, *command: str | Path) -> str:
        """The output of a command in the namespace."""
        return _do("ip", "netns", "exec", self.namespace, *command)

    def set_link(self, up: bool, link: int = 0) -> None:
        """Plug or cut the cable."""
        _do("ip", "-n", self.namespace, "link", "set", f"link{link}", "up" if up else "down")

    def limit(self, megabits: int, link: int = 0) -> None:
        """Let no more than so many Mbit/s out."""
        rate = ["rate", f"{megabits}mbit", "burst", "64kb", "latency", "50ms"]
        _do("tc", "-n", self.namespace, "qdisc", "replace", "dev", f"link{link}", "root", "tbf", *rate)

    def kill_all(self, word: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to every process with ``word`` in its command line; they are returned."""
        found = list(self.processes(word))
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return found


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


class Cluster:
    """Hosts `a`, `b`, … and `home`, from where they are reached. Use as a context manager."""

    def __init__(self, folder: Path, num_hosts: int = 2, num_links: int = 1) -> None:
        self.folder = folder
        self._tag = f"{_PREFIX}{os.getpid()}x{next(_NUMBERS)}"
        names = [chr(ord("a") + index) for index in range(num_hosts)]
        self.hosts = [self._named(name, number + 1, num_links) for number, name in enumerate(names)]
        self.home = self._named("home", 254, num_links)
        self._sshds: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()

    def _named(self, name: str, number: int, num_links: int) -> NetHost:
        addresses = tuple(_NETWORK.format(link=link, number=number) for link in range(num_links))
        return NetHost(name, f"{self._tag}-{name}", self.folder / name, addresses)

    def __getitem__(self, name: str) -> NetHost:
        return next(host for host in self.hosts if host.name == name)

    def __enter__(self) -> "Cluster":
        _sweep()
        with ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            for host in (self.home, *self.hosts):
                host.folder.mkdir()
                _do("ip", "netns", "add", host.namespace)
                stack.callback(_remove, host)
                _do("ip", "-n", host.namespace, "link", "set", "lo", "up")
            self._lay_cables()
            self._make_keys()
            for host in self.hosts:
                self._start_sshd(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        for process in self._sshds:
            process.wait(WAIT_S)
        shutil.rmtree(self.folder)

    def _lay_cables(self) -> None:
        home = self.home.namespace
        for link, address in enumerate(self.home.addresses):
            _do("ip", "-n", home, "link", "add", f"link{link}", "type", "bridge")
            _do("ip", "-n", home, "addr", "add", f"{address}/24", "dev", f"link{link}")
            _do("ip", "-n", home, "link", "set", f"link{link}", "up")
            for host in self.hosts:
                cable = f"to-{host.name}{link}"
                end = ["peer", "name", f"link{link}", "netns", host.namespace]
                _do("ip", "-n", home, "link", "add", cable, "type", "veth", *end)
                _do("ip", "-n", home, "link", "set", cable, "master", f"link{link}")
                _do("ip", "-n", home, "link", "set", cable, "up")
                _do("ip", "-n", host.namespace, "addr", "add", f"{host.addresses[link]}/24", "dev", f"link{link}")
                _do("ip", "-n", host.namespace, "link", "set", f"link{link}", "up")

    def _make_keys(self) -> None:
        self._keygen(self.folder / "user_key")
        known = []
        for host in self.hosts:
            self._keygen(host.folder / "host_key")
            shutil.copy(self.folder / "user_key.pub", host.folder / "authorized_keys")
            key = (host.folder / "host_key.pub").read_text()
            known += [f"{address} {key}" for address in host.addresses]
        (self.folder / "known_hosts").write_text("".join(known))
        config = self.folder / "ssh_config"
        config.write_text(_CLIENT_CONFIG.format(user="root", folder=self.folder))
        (self.folder / "bin").mkdir()
        for program in ("ssh", "sftp"):
            script = self.folder / "bin" / program
            script.write_text(f'#!/bin/sh\nexec {shutil.which(program)} -F {config} "$@"\n')
            script.chmod(0o755)

    def _keygen(self, file: Path) -> None:
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", file)

    def _start_sshd(self, host: NetHost) -> None:
        config = host.folder / "sshd_config"
        config.write_text(_SSHD_CONFIG.format(folder=host.folder))
        with (host.folder / "sshd.log").open("wb") as log:
            command = [
                "ip",
                "netns",
                "exec",
                host.namespace,
                "sh",
                "-c",
                _IN_OWN_RUN,
                SSHD,
                "-D",
                "-e",
                "-f",
                str(config),
            ]
            self._sshds.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        deadline = time.monotonic() + WAIT_S
        while 22 not in host.listening():
            assert self._sshds[-1].poll() is None, (host.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"

    def forget_host_key(self, host: NetHost) -> None:
        """As before the first login: ssh does not know its key."""
        known = self.folder / "known_hosts"
        lines = [line for line in known.read_text().splitlines(keepends=True) if line.split()[0] not in host.addresses]
        known.write_text("".join(lines))

    def remember_host_key(self, host: NetHost, key: Path | None = None) -> None:
        """Trust the host's key, or ``key`` in its place."""
        text = (key or host.folder / "host_key.pub").read_text()
        with (self.folder / "known_hosts").open("a") as known:
            known.writelines(f"{address} {text}" for address in host.addresses)

    def write_program(self, host: NetHost, settings: Mapping[str, str], torch: bool = False) -> Path:
        """The `skulk` of a host: this checkout, with ``settings`` as its environment and a home of its own."""
        (host.folder / "home").mkdir(exist_ok=True)
        script = host.folder / "skulk"
        own = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(host.folder / "home"),
            "XDG_CONFIG_HOME": str(host.folder / "home" / "config"),
            "HF_HOME": str(host.folder / "home" / "hf"),
        }
        lines = [f"export {name}='{value}'" for name, value in {**own, **settings}.items()]
        start = "import runpy, sys; " + ("" if torch else "sys.modules['torch'] = None; ")
        start += "runpy.run_module('cli.skulk', run_name='__main__', alter_sys=True)"
        lines += [f'exec {sys.executable} -c "{start}" "$@"']
        script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        script.chmod(0o755)
        return script

    def write_hosts(self, config: Path, **more: Mapping[str, str]) -> Path:
        """A hosts.yaml in the folder ``config``: every host with its program, and what ``more`` says of others."""
        listed = {
            host.name: {"ssh": host.peer, "command": str(self.write_program(host, {}))}
            for host in self.hosts
            if host.name not in more
        }
        lines = ["schema: 1", "hosts:"]
        for name, keys in {**listed, **more}.items():
            lines += [f"  {name}:", *(f"    {key}: {value}" for key, value in keys.items())]
        file = config / "skulk" / "hosts.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([*lines, ""]))
        return file

    def environment(self) -> dict[str, str]:
        """What the programs under test need, to find our ssh."""
        return {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def at_home(self, command: Sequence[str | Path]) -> list[str | Path]:
        """``command``, run where the hosts can be reached."""
        return ["ip", "netns", "exec", self.home.namespace, *command]


def _remove(host: NetHost) -> None:
    """End everything in the namespace, then the namespace."""
    deadline = time.monotonic() + WAIT_S
    while pids := host.pids():
        assert time.monotonic() < deadline, f"processes do not end: {[_command_line(pid) for pid in pids]}"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                # a zombie of ours is a process until we have heard of it
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
    _do("ip", "netns", "delete", host.namespace)


def namespaces() -> list[str]:
    """Names of the namespaces that clusters of this process have."""
    return [name for name in _names() if name.startswith(f"{_PREFIX}{os.getpid()}x")]


def _names() -> list[str]:
    return [line.split()[0] for line in _do("ip", "netns", "list").splitlines() if line.strip()]


def _sweep() -> None:
    """Remove what test processes that were killed have left."""
    for name in _names():
        number = name.removeprefix(_PREFIX).partition("x")[0]
        if name.startswith(_PREFIX) and number.isdigit() and not Path(f"/proc/{number}").exists():
            _remove(NetHost(name, name, Path(), ()))


def cluster_or_skip(folder: Path, num_hosts: int, num_links: int = 1) -> Iterator[Cluster]:
    """For a fixture. Where hosts cannot be made the test is skipped, but fails if SKULK_TEST_HOSTS is `required`."""
    import pytest

    if lacking := missing():
        if os.environ.get("SKULK_TEST_HOSTS") == "required":
            pytest.fail(lacking)
        pytest.skip(lacking)
    with Cluster(folder, num_hosts, num_links) as cluster:
        yield cluster
