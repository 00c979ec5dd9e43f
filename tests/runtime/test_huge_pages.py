"""A program starts anew to be given large pages: once, as it was called, and only where that is what it takes."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from cli import skulk
from skulk_core.runtime import huge_pages

RunPython = Callable[..., subprocess.CompletedProcess[str]]

# Says its process id before and after; argument 1 stands for the system's own file.
RESTART = """
import os, sys
from pathlib import Path
from skulk_core.runtime import huge_pages
huge_pages._MODES = Path(sys.argv[1])
print("began", os.getpid(), flush=True)
huge_pages.restart()
print("runs", os.getpid(), sys.argv[2:], sys.flags.dev_mode, sys.stdin.readline().strip())
print(os.environ.get("GLIBC_TUNABLES"), *(name for name in os.environ if "BEFORE" in name), huge_pages.state())
"""

on_glibc = pytest.mark.skipif(not huge_pages._can_ask(), reason="another C library, or an old one")


def modes(folder: Path, chosen: str | None) -> Path:
    file = folder / "enabled"
    if chosen is not None:
        told = (f"[{mode}]" if mode == chosen else mode for mode in ("always", "madvise", "never"))
        file.write_text(" ".join(told))
    return file


@on_glibc
@pytest.mark.parametrize("tunables", [None, "glibc.malloc.tcache_count=9"])
def test_a_program_that_must_ask_starts_anew_once(
    tmp_path: Path, environment: dict[str, str], tunables: str | None
) -> None:
    """With its arguments, interpreter options, input and process id; what it starts has the user's own tunables."""
    environment = {name: value for name, value in environment.items() if name != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    command = [sys.executable, "-X", "dev", "-c", RESTART, str(modes(tmp_path, "madvise")), "a b", "--c"]
    done = subprocess.run(command, env=environment, input="typed\n", capture_output=True, text=True, timeout=60)
    first, second, runs, told = done.stdout.splitlines()
    assert first == second
    assert runs == f"runs {first.split()[1]} ['a b', '--c'] True typed"
    assert told == f"{tunables} ('2 MiB, asked for', None)"


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("always", {}),
        ("never", {}),
        (None, {}),
        ("madvise", {"SKULK_HUGE_PAGES": "0"}),
        ("madvise", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}),
    ],
)
def test_where_there_is_nothing_to_ask_for_it_goes_on(
    tmp_path: Path, run_python: RunPython, mode: str | None, settings: dict[str, str]
) -> None:
    done = run_python(RESTART, str(modes(tmp_path, mode)), **settings)
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["began", "runs"]


@on_glibc
def test_what_is_piped_into_an_interpreter_goes_on(tmp_path: Path, environment: dict[str, str]) -> None:
    """Started anew it would have nothing left to read."""
    text = RESTART.replace("sys.argv[1]", repr(str(modes(tmp_path, "madvise")))).replace("sys.stdin.readline()", "''")
    done = subprocess.run([sys.executable], env=environment, input=text, capture_output=True, text=True, timeout=60)
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["began", "runs"], done.stderr


@on_glibc
def test_a_program_that_cannot_start_anew_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Mapping[str, str]] = []

    def fail(_: str, __: list[str], environment: Mapping[str, str]) -> NoReturn:
        tried.append(environment)
        raise PermissionError

    monkeypatch.setattr(huge_pages, "_MODES", modes(tmp_path, "madvise"))
    monkeypatch.setattr(os, "execve", fail)
    monkeypatch.delenv("SKULK_HUGE_PAGES", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    huge_pages.restart()
    assert [environment["GLIBC_TUNABLES"] for environment in tried] == ["glibc.malloc.hugetlb=1"]


@pytest.mark.parametrize(
    ("arguments", "asks"), [(["run", "demo"], True), (["worker"], True), (["plan", "run"], False), ([], False)]
)
def test_skulk_asks_first(arguments: list[str], asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything that would be done twice, and where it is for something."""

    class Asked(Exception):
        pass

    def ask() -> NoReturn:
        raise Asked

    class Ran(Exception):
        pass

    def run(_: object) -> NoReturn:
        raise Ran

    monkeypatch.setattr(sys, "argv", ["skulk", *arguments])
    monkeypatch.setattr(huge_pages, "restart", ask)
    monkeypatch.setattr(skulk, "run_program", run)
    with pytest.raises(Asked if asks else Ran):
        skulk.main()


ADVICE = {
    "always": ("always", {}, True, "2 MiB, given by the system", None),
    "never": ("never", {}, True, "4 KiB", "echo madvise | sudo tee"),
    "not wanted": ("madvise", {"SKULK_HUGE_PAGES": "0"}, True, "4 KiB", "unset SKULK_HUGE_PAGES"),
    "asked for by the user": ("madvise", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, True, "2 MiB, asked for", None),
    "refused by the user": ("madvise", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, True, "4 KiB", None),
    "a kernel without": (None, {}, True, "as the system gives them", None),
    "another C library": ("never", {}, False, "as the system gives them", None),
}


@pytest.mark.parametrize("case", ADVICE)
def test_the_doctor_is_told_what_it_is_and_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    mode, settings, can_ask, pages, advice = ADVICE[case]
    monkeypatch.setattr(huge_pages, "_MODES", modes(tmp_path, mode))
    monkeypatch.setattr(huge_pages, "_can_ask", lambda: can_ask)
    for name in ("SKULK_HUGE_PAGES", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    told, remedy = huge_pages.state()
    assert told == pages
    assert (remedy or "").startswith(advice or "")
    assert (remedy is None) == (advice is None)


@on_glibc
@pytest.mark.skipif(huge_pages._mode() != "madvise", reason="this system gives large pages to all or to none")
def test_skulk_has_asked(environment: dict[str, str]) -> None:
    """The program itself: the kernel's flag of its memory, while it decodes."""
    environment = {name: value for name, value in environment.items() if name != "GLIBC_TUNABLES"}
    code = "import sys; sys.argv[0] = 'skulk'; from cli.skulk import main; main()"
    command = [sys.executable, "-c", code, "run", "demo", "-", "--max-tokens", "3000"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"A list")
        running.stdin.close()
        os.read(running.stdout.fileno(), 1)
        mappings = Path(f"/proc/{running.pid}/smaps").read_text().split("VmFlags:")
        running.terminate()
        running.stdout.read()
    heap = next(place for place, mapping in enumerate(mappings) if "[heap]" in mapping)
    assert " hg " in mappings[heap + 1].splitlines()[0] + " "
