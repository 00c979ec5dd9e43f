"""`skulk doctor` is what a person runs when something is slow or missing: every fact must be there, and the remedy."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skulk_core.runtime.blas import Build, installed_build

RunPython = Callable[..., subprocess.CompletedProcess[str]]

DOCTOR = """
import typer
from cli.doctor import doctor_command
app = typer.Typer()
app.command()(doctor_command)
app()
"""
WITHOUT_MLX = """
import sys
from skulk_core.runtime import blas
blas.installed_build = lambda: None
sys.modules["mlx.core"] = None
"""
WITHOUT_SYSTEM_BLAS = """
from skulk_core.runtime import blas
blas._SONAMES = {"blis": ("libno-blis.so",), "openblas": ("libno-openblas.so",)}
"""
ALWAYS = {"backend", "python", "skulk-mtp", "mlx", "mlx-lm", "huggingface-hub", "disk"}
WITH_A_DEVICE = {"device", "dtype", "memory"}
ON_A_LINUX_CPU = {"BLAS", "BLAS speed", "compiler", "memory pages"}

on_a_linux_cpu = pytest.mark.skipif(
    installed_build() is not Build.CPU, reason="only MLX's Linux CPU wheel needs a BLAS"
)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    assert report["ok"] == all(finding["ok"] for finding in report["findings"])
    found = {finding["name"]: finding for finding in report["findings"]}
    assert len(found) == len(report["findings"])
    assert all(finding["advice"] for finding in found.values() if not finding["ok"])
    return found


@on_a_linux_cpu
def test_json_has_every_finding(run_python: RunPython) -> None:
    found = findings(run_python(DOCTOR, "--json", SKULK_BLAS="scipy-openblas"))
    assert set(found) == ALWAYS | WITH_A_DEVICE | ON_A_LINUX_CPU
    assert found["backend"]["value"] == "cpu"
    assert found["dtype"]["value"] == "float32"
    assert "scipy-openblas, 1 thread: /" in found["BLAS"]["value"]
    assert " reference BLAS " in found["BLAS speed"]["value"]


@on_a_linux_cpu
def test_the_slow_blas_is_told_with_a_remedy(run_python: RunPython) -> None:
    chosen = findings(run_python(DOCTOR, "--json", SKULK_BLAS="none"))["BLAS"]
    assert (chosen["ok"], chosen["advice"]) == (False, "unset SKULK_BLAS")
    failed = findings(run_python(DOCTOR, "--json", SKULK_BLAS="/nowhere.so"))["BLAS"]
    assert failed["advice"].startswith("unset SKULK_BLAS; /nowhere.so: ")


@on_a_linux_cpu
def test_a_blas_that_is_there_and_cannot_be_used_is_told_first(run_python: RunPython, tmp_path: Path) -> None:
    """To install it again would change nothing."""
    file = tmp_path / "file"
    file.write_text("")
    found = findings(run_python(WITHOUT_SYSTEM_BLAS + DOCTOR, "--json", XDG_CACHE_HOME=str(file)))["BLAS"]
    assert "scipy-openblas cannot be used" in found["value"]
    assert found["advice"].startswith("scipy-openblas: ")
    assert "XDG_CACHE_HOME chooses another" in found["advice"]
    assert "pip install" not in found["advice"]


@on_a_linux_cpu
def test_a_missing_compiler_is_told(run_python: RunPython) -> None:
    compiler = findings(run_python(DOCTOR, "--json", PATH="/nowhere"))["compiler"]
    assert compiler["value"] == "none"
    assert "install g++" in compiler["advice"]


def test_without_a_backend_the_report_is_still_made(run_python: RunPython) -> None:
    found = findings(run_python(WITHOUT_MLX + DOCTOR, "--json"))
    assert set(found) == ALWAYS
    assert not found["backend"]["ok"]


@pytest.mark.skipif(installed_build() is Build.METAL, reason="on macOS MLX always comes with its build")
def test_loading_mlx_without_a_backend_names_the_packages(run_python: RunPython) -> None:
    done = run_python(WITHOUT_MLX + "from skulk_core.runtime.device import load_mlx\nload_mlx()")
    assert "BackendError: no MLX build is installed: pip install 'mlx[cpu]" in done.stderr
    assert "on an NVIDIA GPU pip install 'mlx[cuda13]" in done.stderr


def test_the_table_shows_every_finding(run_python: RunPython) -> None:
    done = run_python(WITHOUT_MLX + DOCTOR)
    assert done.returncode == 1
    assert all(name in done.stdout for name in ALWAYS)
    assert done.stderr == ""


@pytest.mark.parametrize(("before", "after"), [({}, "0"), ({"MLX_METAL_FAST_SYNCH": "1"}, "1")])
def test_metal_fast_synch_is_off_unless_asked_for(run_python: RunPython, before: dict[str, str], after: str) -> None:
    code = "import os\nfrom skulk_core.runtime.device import load_mlx\nload_mlx()\n"
    assert run_python(code + "print(os.environ['MLX_METAL_FAST_SYNCH'])", **before).stdout == f"{after}\n"
