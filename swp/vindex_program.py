"""The external program `larql`: finding it, asking for its version, running it so that nothing is left behind."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from skulk_core.errors import ProgramError, ProgramMissing
from skulk_core.formats.statement import record_file
from skulk_core.formats.vindex import Program

LARQL = "larql"

_VERSION_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0
_STDERR = 2
_MAX_VERSION_LENGTH = 200
# What lets a process log in to the Hub: the program has no need of it.
_LOGIN = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def find_program(named: Path | None) -> Path:
    """The executable: the one that was named, else `larql` on PATH. Raises `ProgramMissing`."""
    found = shutil.which(LARQL if named is None else named.expanduser())
    if found is not None:
        return Path(found).absolute()
    if named is None:
        raise ProgramMissing(LARQL, "is not on PATH")
    raise ProgramMissing(str(named), "is not a file that can be executed")


def identify(executable: Path) -> Program:
    """What the program says when it is asked for its version, and its digest. Raises `ProgramError`."""
    try:
        asked = subprocess.run(
            [executable, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment({}),
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise ProgramError(str(executable), f"cannot be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError(str(executable), f"gave no version within {_VERSION_TIMEOUT_S:.0f} s") from error
    said = asked.stdout.decode("utf-8", errors="replace").strip().partition("\n")[0].strip()
    name, _, version = said.partition(" ")
    if asked.returncode or not version.strip() or not said.isprintable() or len(said) > _MAX_VERSION_LENGTH:
        raise ProgramError(str(executable), "does not say its version; a vindex is of no use without it")
    record = record_file(executable.parent, executable.name)
    return Program(name, version.strip(), record.sha256, record.nbytes)


def run_program(executable: Path, arguments: Sequence[str], folder: Path, changes: Mapping[str, str]) -> None:
    """Run it in `folder` with `changes` to the environment; all that it writes goes to stderr, and it reads nothing.

    Returns when it has ended well. On Ctrl-C, or any other end of the wait, the program and whatever it started are
    ended first. Raises `ProgramError`.
    """
    try:
        process = subprocess.Popen(
            [executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            stderr=_STDERR,
            cwd=folder,
            env=environment(changes),
            # a group of its own: Ctrl-C reaches us alone, and the group can be ended as a whole
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(str(executable), f"cannot be started: {error.strerror or error}") from error
    try:
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    if status:
        name = _signal_name(-status) if status < 0 else f"exit status {status}"
        raise ProgramError(executable.name, f"{' '.join(arguments[:1])} failed ({name})")


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Ours with `changes`, without the login to the Hub."""
    return {key: value for key, value in os.environ.items() if key not in _LOGIN} | dict(changes)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process group: politely first. Whatever happens meanwhile, it is killed in the end."""
    try:
        _signal_group(process.pid, signal.SIGTERM)
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        # what macOS says of a group of which only ended processes are left
        pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
