"""What ssh is told, and what its messages mean.

ssh is used as the user set it up: its configuration, agent and host-key policy are left alone. We only take away what
would make it ask, wait for ever, or leave something behind.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

from skulk_core.cluster.peers import Host
from skulk_core.errors import HostKeyRefused, LoginRefused, PeerError, PeerUnreachable, SkulkMissing

CONNECT_TIMEOUT_S = 10
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 5, 3
_SSH_FAILED, _NOT_FOUND, _NOT_RUNNABLE = 255, 127, 126

OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "ConnectionAttempts=1",
    f"ServerAliveInterval={_ALIVE_INTERVAL_S}",
    f"ServerAliveCountMax={_ALIVE_COUNT}",
    # a shared connection that is there is used; one that would stay behind is not made
    "ControlMaster=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    # what went wrong must be said, whatever the configuration wants to hear; banners need not
    "LogLevel=ERROR",
)


def ssh_options() -> list[str]:
    """The options as arguments of ssh and of sftp."""
    return [word for option in OPTIONS for word in ("-o", option)]


def ssh_command(host: Host, script: str) -> list[str]:
    """The arguments that run ``script``, a line for the login shell of ``host``, without a terminal."""
    assert host.ssh is not None
    port = [] if host.ssh.port is None else ["-p", str(host.ssh.port)]
    return ["ssh", "-T", *ssh_options(), *port, "--", host.ssh.login, script]


def remote_script(command: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The line that starts a program: words are quoted for any shell, but for a leading `~/`, which is the host's."""
    words = [_word(word) for word in command] + [shlex.quote(argument) for argument in arguments]
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    # exec: the shell that login began must not stand between us and the program
    return " ".join(["exec", *(["env", *settings] if settings else []), *words])


def _word(word: str) -> str:
    return f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word)


def kill_script(pid: int) -> str:
    """The line that ends the process ``pid`` if it is one of ours: by now the number may be another's."""
    look = f"{{ tr '\\0' ' ' </proc/{pid}/cmdline || ps -o args= -p {pid}; }} 2>/dev/null"
    return f'exec sh -c {shlex.quote(f"""case "$({look})" in *worker*--lease*) kill -9 {pid};; esac""")}'


# Of OpenSSH's client, whose messages are in English whatever the language.
_HOST_KEY = re.compile(r"host key verification failed|remote host identification has changed|host key is known", re.I)
_LOGIN = re.compile(r"permission denied|too many authentication failures|no more authentication methods", re.I)
# Also of an sshd that has too many logins at once.
_ANSWERED = re.compile(r"connection (refused|reset|closed)|kex_exchange_identification", re.I)
_NO_COMMAND = re.compile(r"no such command '?\w+", re.I)


def why_it_ended(host: Host, code: int | None, stderr: str) -> PeerError:
    """What it means that the program on ``host`` ended with ``code`` before it said that it had begun."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    command = shlex.join(host.command)
    if host.ssh is not None and code == _SSH_FAILED:
        login = host.ssh.login if host.ssh.port is None else f"-p {host.ssh.port} {host.ssh.login}"
        if _HOST_KEY.search(stderr):
            changed = "identification has changed" in stderr.lower()
            return HostKeyRefused(
                host.name,
                "its host key is not the one that ssh knows" if changed else "ssh does not know its host key",
                login,
            )
        if _LOGIN.search(stderr):
            return LoginRefused(host.name, f"ssh may not log in: {last}", login)
        answered = _ANSWERED.search(stderr) is not None
        return PeerUnreachable(host.name, f"ssh cannot connect: {last or 'no reason given'}", login, answered=answered)
    if code in (_NOT_FOUND, _NOT_RUNNABLE):
        return SkulkMissing(host.name, command, f"`{command}` cannot be run there: {last or 'not found'}")
    if _NO_COMMAND.search(stderr):
        return SkulkMissing(host.name, command, f"`{command}` there is another version, which has no such command")
    said = f", saying: {last}" if last else ", saying nothing"
    return SkulkMissing(host.name, command, f"`{command}` ended there with status {code}{said}")
