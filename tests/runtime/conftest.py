import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("SKULK_", "OPENBLAS_", "GOTO_", "OMP_", "BLIS_", "MKL_", "LD_")

RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody has chosen a BLAS, with a cache of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return inherited | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def run_python(environment: dict[str, str]) -> RunPython:
    """Run code in a fresh interpreter: a process can open a BLAS and import MLX only once."""

    def run(code: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=120)

    return run
