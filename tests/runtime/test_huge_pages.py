"""A program starts anew to be given large pages: once, as it was called, and only where that is what it takes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
print(os.environ.get("GLIBC_TUNABLES"), os.environ.get("SKULK_HUGE_PAGES"), huge_pages.state())
"""

on_glibc = pytest.mark.skipif(huge_pages._glibc() < (2, 35), reason="another C library, or an old one")


def modes(folder: Path, chosen: str) -> Path:
    file = folder / "enabled"
    file.write_text(" ".join(f"[{mode}]" if mode == chosen else mode for mode in ("always", "madvise", "never")))
    return file


@on_glibc
@pytest.mark.parametrize("tunables", [None, "glibc.malloc.tcache_count=9"])
def test_a_program_that_must_ask_starts_anew_once(
    tmp_path: Path, environment: dict[str, str], tunables: str | None
) -> None:
    """With its arguments, interpreter options, input and process id, and the user's own tunables."""
    environment = {name: value for name, value in environment.items() if name != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    command = [sys.executable, "-X", "dev", "-c", RESTART, str(modes(tmp_path, "madvise")), "a b", "--c"]
    done = subprocess.run(command, env=environment, input="typed\n", capture_output=True, text=True, timeout=60)
    first, second, runs, told = done.stdout.splitlines()
    assert first == second
    assert runs == f"runs {first.split()[1]} ['a b', '--c'] True typed"
    asked = "glibc.malloc.hugetlb=1" if tunables is None else f"{tunables}:glibc.malloc.hugetlb=1"
    assert told == f"{asked} 1 ('2 MiB, asked for', None)"


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
    file = tmp_path / "none" if mode is None else modes(tmp_path, mode)
    done = run_python(RESTART, str(file), **settings)
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["began", "runs"]


def test_a_program_that_cannot_start_anew_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_MODES", modes(tmp_path, "madvise"))
    monkeypatch.setattr(huge_pages, "_glibc", lambda: (2, 36))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    for name in ("SKULK_HUGE_PAGES", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    huge_pages.restart()


@pytest.mark.parametrize(
    ("mode", "settings", "pages", "advice"),
    [
        ("always", {}, "2 MiB, given by the system", None),
        ("never", {}, "4 KiB", "echo madvise | sudo tee"),
        ("madvise", {"SKULK_HUGE_PAGES": "0"}, "4 KiB", "unset SKULK_HUGE_PAGES"),
    ],
)
def test_the_doctor_is_told_what_it_is_and_what_would_help(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    settings: dict[str, str],
    pages: str,
    advice: str | None,
) -> None:
    monkeypatch.setattr(huge_pages, "_MODES", modes(tmp_path, mode))
    monkeypatch.setattr(huge_pages, "_glibc", lambda: (2, 36))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    told, remedy = huge_pages.state()
    assert told == pages
    assert (remedy or "").startswith(advice or "")
    assert (remedy is None) == (advice is None)


@on_glibc
@pytest.mark.skipif(huge_pages._mode() != "madvise", reason="this system gives large pages to all or to none")
def test_skulk_has_large_pages(environment: dict[str, str]) -> None:
    """The program as it is installed: its memory, told by the kernel while it reads a model."""
    environment = {name: value for name, value in environment.items() if name != "GLIBC_TUNABLES"}
    code = "import os, sys; sys.argv[0] = 'skulk'; from cli.skulk import main; main()"
    command = [sys.executable, "-c", code, "run", "demo", "-", "--max-tokens", "3000"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"A list")
        running.stdin.close()
        os.read(running.stdout.fileno(), 1)
        told = Path(f"/proc/{running.pid}/smaps_rollup").read_text()
        running.terminate()
        running.stdout.read()
    huge = re.search(r"AnonHugePages: +(\d+) kB", told)
    assert huge is not None
    # the demo's weights alone are 25 MB
    assert int(huge.group(1)) > 20_000
