"""On a Linux CPU a person would lose most of the speed, without a word, if MLX kept the BLAS it is linked to."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from skulk_core.runtime.blas import Build, installed_build

pytestmark = pytest.mark.skipif(installed_build() is not Build.CPU, reason="only MLX's Linux CPU wheel needs a BLAS")

RunPython = Callable[..., subprocess.CompletedProcess[str]]

REPORT = """
import json, os, pathlib, subprocess, sys
from skulk_core.runtime import blas
choice = blas.prepare()
assert blas.prepare() is choice
import mlx.core as mx
left, right = mx.arange(6.0).reshape(2, 3), mx.arange(12.0).reshape(3, 4)
child = [sys.executable, "-c", "import os; print(*os.environ)"]
print(json.dumps({
    "name": choice.name,
    "path": choice.path and str(choice.path),
    "threads": choice.threads,
    "skipped": {skipped.name: skipped.reason for skipped in choice.skipped},
    "product": (left @ right).tolist(),
    "mapped": sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}),
    "child": subprocess.run(child, capture_output=True, text=True, check=True).stdout.split(),
}))
"""
PRODUCT = [[20.0, 23.0, 26.0, 29.0], [56.0, 68.0, 80.0, 92.0]]


def report(run_python: RunPython, **settings: str) -> dict[str, Any]:
    done = run_python(REPORT, **settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["product"] == PRODUCT
    return found


def report_with_bindings(run_python: RunPython, folder: Path, **settings: str) -> tuple[dict[str, Any], Path]:
    """The report, and the file that the dynamic linker says it bound libmlx's `cblas_sgemm` to."""
    output = folder / "linker"
    found = report(run_python, LD_DEBUG="bindings", LD_BIND_NOW="1", LD_DEBUG_OUTPUT=str(output), **settings)
    text = "".join(path.read_text() for path in folder.glob("linker.*"))
    bound = re.findall(r"binding file \S+/libmlx\.so \[0\] to (\S+) \[0\]: normal symbol `cblas_sgemm'", text)
    assert len(bound) == 1
    return found, Path(bound[0]).resolve()


@pytest.mark.parametrize("choice", ["", "scipy-openblas"])
def test_mlx_binds_to_the_chosen_library(run_python: RunPython, tmp_path: Path, choice: str) -> None:
    found, bound = report_with_bindings(run_python, tmp_path, SKULK_BLAS=choice)
    assert found["name"] == choice or not choice
    assert found["name"] != "reference"
    assert bound == Path(found["path"])
    assert str(bound) in found["mapped"]


def test_none_keeps_the_blas_that_mlx_came_with(run_python: RunPython, tmp_path: Path) -> None:
    found, bound = report_with_bindings(run_python, tmp_path, SKULK_BLAS="none")
    assert (found["name"], found["path"]) == ("reference", None)
    assert bound.parent.name == "mlx_cpu.libs"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("/nowhere/libblas.so", "No such file"), ("libm.so.6", "lacks cblas_sgemm"), (__file__, "invalid ELF header")],
)
def test_a_library_that_cannot_be_used_is_recorded_and_not_replaced(
    run_python: RunPython, choice: str, reason: str
) -> None:
    found = report(run_python, SKULK_BLAS=choice)
    assert found["name"] == "reference"
    assert reason in found["skipped"][choice]


@pytest.mark.parametrize(("has_avx512", "chosen"), [(False, "scipy-openblas blis"), (True, "scipy-openblas")])
def test_without_a_blas_of_the_system_the_packaged_one_is_used(
    run_python: RunPython, has_avx512: bool, chosen: str
) -> None:
    """Where OpenBLAS is the faster of the two, no other is looked for."""
    code = f"""
from skulk_core.runtime import blas
blas._SONAMES["blis"] = ("libnowhere.so",)
blas._has_avx512 = lambda: {has_avx512}
choice = blas.prepare()
print(choice.name, *(skipped.name for skipped in choice.skipped))
"""
    assert run_python(code, PATH="/usr/bin:/bin").stdout == f"{chosen}\n"


def test_a_blas_already_in_the_process_stays(run_python: RunPython, tmp_path: Path) -> None:
    own = report(run_python, SKULK_BLAS="scipy-openblas")["path"]
    found, bound = report_with_bindings(run_python, tmp_path, LD_PRELOAD=own)
    assert (found["path"], found["threads"]) == (own, None)
    assert bound == Path(own)


def test_the_renamed_copy_is_kept_under_the_version_of_its_package(run_python: RunPython, tmp_path: Path) -> None:
    copies = tmp_path / "cache" / "skulk" / "blas"
    outdated = copies / "0.0.0" / "libskulk_openblas-x86_64.so"
    outdated.parent.mkdir(parents=True)
    outdated.write_bytes(b"of another version")
    first = Path(report(run_python, SKULK_BLAS="scipy-openblas")["path"])
    made = first.stat()
    assert first.parent == copies / metadata.version("scipy-openblas32")
    assert report(run_python, SKULK_BLAS="scipy-openblas")["path"] == str(first)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_two_processes_that_make_the_copy_at_once_both_use_it(environment: dict[str, str], tmp_path: Path) -> None:
    code = "input()" + REPORT
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment | {"SKULK_BLAS": "scipy-openblas"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [one["product"] for one in found] == [PRODUCT, PRODUCT]
    assert found[0]["path"] == found[1]["path"]
    assert list(Path(found[0]["path"]).parent.iterdir()) == [Path(found[0]["path"])]


@pytest.mark.parametrize("writable", ["cache", "cache/skulk/blas/{version}"])
def test_no_library_is_loaded_from_a_folder_that_everyone_can_write(
    run_python: RunPython, tmp_path: Path, writable: str
) -> None:
    folder = tmp_path / writable.format(version=metadata.version("scipy-openblas32"))
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    found = report(run_python, SKULK_BLAS="scipy-openblas")
    assert found["name"] == "reference"
    assert "writable by everyone" in found["skipped"]["scipy-openblas"]


def test_a_choice_that_comes_too_late_is_refused(run_python: RunPython) -> None:
    code = "import mlx.core\nfrom skulk_core.runtime import blas\nprint(blas.prepare().name)"
    done = run_python(code)
    assert done.returncode != 0
    assert "BackendError: MLX was imported before" in done.stderr
    assert run_python(code, SKULK_BLAS="none").stdout == "reference\n"


def test_no_thread_setting_reaches_child_processes(run_python: RunPython) -> None:
    found = report(run_python, SKULK_BLAS="scipy-openblas")
    assert found["threads"] == 1
    assert not [name for name in found["child"] if name.endswith("_NUM_THREADS")]


@pytest.mark.parametrize("setting", ["SKULK_BLAS_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_a_number_of_threads_that_was_asked_for_stays(run_python: RunPython, setting: str) -> None:
    code = "from skulk_core.runtime import blas\nprint(blas.prepare().threads, blas.set_threads(1).threads)"
    assert run_python(code, SKULK_BLAS="scipy-openblas", **{setting: "2"}).stdout == "2 2\n"


def test_the_number_of_threads_can_follow_the_model(run_python: RunPython) -> None:
    code = "from skulk_core.runtime import blas\nprint(blas.prepare().threads, blas.set_threads(2).threads)"
    assert run_python(code, SKULK_BLAS="scipy-openblas").stdout == "1 2\n"


@pytest.mark.parametrize("number", ["0", "many", ""])
def test_a_number_of_threads_that_is_none_is_an_error(run_python: RunPython, number: str) -> None:
    done = run_python("from skulk_core.runtime import blas\nblas.prepare()", SKULK_BLAS_THREADS=number)
    assert "OptionError: SKULK_BLAS_THREADS" in done.stderr
