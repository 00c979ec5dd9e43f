"""What this machine has, what it lacks, and the command that installs it. Examines; installs and prints nothing."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from skulk_core.errors import BackendError, OptionError
from skulk_core.runtime import blas, device, huge_pages
from skulk_core.runtime.blas import BlasChoice, Build
from skulk_core.runtime.blas_advice import remedy
from skulk_core.runtime.device import DeviceFacts
from skulk_core.runtime.packages import system_command
from skulk_core.types import Finding, Report

# A verify pass of four rows over a weight of 64 MiB: past every cache, so the product reads memory as a model does.
_ROWS, _OUTPUTS, _INPUTS = 4, 4096, 4096
_TIMING_S = 0.3
_PROBE_TIMEOUT_S = 60
_NEEDED_DISK_NBYTES = 5 * 10**9
_PROBE = "import sys; sys.path.insert(0, sys.argv[1]); from skulk_core.runtime import doctor; doctor.print_probe()"


def examine() -> Report:
    """Look at this machine. On a Linux CPU this times products in two short processes, about three seconds in all."""
    findings = _version_findings()
    try:
        choice = blas.prepare()
        facts = device.device_facts()
    except (BackendError, OptionError) as error:
        return Report((Finding("backend", "none", False, str(error)), *findings, _disk_finding()))
    findings = [*_device_findings(facts), *findings]
    if facts.backend is Build.CPU and sys.platform == "linux":
        findings += [_blas_finding(choice), _blas_speed_finding(choice), _compiler_finding(), _pages_finding()]
    return Report((*findings, _memory_finding(facts), _disk_finding()))


def print_probe() -> None:
    """Time the product with the BLAS that the environment asks for; one JSON object on stdout, milliseconds."""
    choice = blas.prepare()
    mx = device.load_mlx()
    weight, rows = mx.random.normal((_OUTPUTS, _INPUTS)), mx.random.normal((_ROWS, _INPUTS))
    mx.eval(rows @ weight.T)
    times: list[float] = []
    end = time.perf_counter() + _TIMING_S
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        mx.eval(rows @ weight.T)
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"name": choice.name, "ms": statistics.median(times)}))


def _device_findings(facts: DeviceFacts) -> list[Finding]:
    return [
        Finding("backend", facts.backend.value, True),
        Finding("device", facts.name, True),
        Finding("dtype", facts.auto_dtype, True),
    ]


def _version_findings() -> list[Finding]:
    found = []
    for name, version in device.versions().items():
        if version is not None:
            found.append(Finding(name, version, True))
        elif name == "skulk-mtp":
            found.append(Finding(name, "not installed: run from a checkout", True))
        else:
            found.append(Finding(name, "not installed", False, f"pip install {name}"))
    return found


def _blas_finding(choice: BlasChoice) -> Finding:
    threads = "" if choice.threads is None else f", {choice.threads} thread{'s' if choice.threads > 1 else ''}"
    value = f"{choice.name}{threads}: {choice.path or choice.why}"
    if choice.name == blas.REFERENCE:
        return Finding("BLAS", value, False, remedy(choice))
    # where OpenBLAS has AVX-512 the weights are laid out for it, and BLIS is not faster
    faster = None if blas.openblas_core() in blas.AVX512_CORES else system_command("blis")
    if choice.name in ("scipy-openblas", "openblas") and faster is not None:
        return Finding("BLAS", value, True, f"{faster} (BLIS decodes faster)")
    return Finding("BLAS", value, True)


def _blas_speed_finding(choice: BlasChoice) -> Finding:
    """How much faster the chosen BLAS is than the one MLX is linked to."""
    name = f"{_ROWS} rows x [{_OUTPUTS}, {_INPUTS}]"
    try:
        reference_ms = _probe("none")
        chosen_ms = reference_ms if choice.name == blas.REFERENCE else _probe(None)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Finding("BLAS speed", "not measured", False, f"a process that multiplies matrices failed: {error}")
    value = f"{name}: {chosen_ms:.1f} ms, reference BLAS {reference_ms:.1f} ms, {reference_ms / chosen_ms:.1f}x"
    return Finding("BLAS speed", value, True)


def _probe(choice: str | None) -> float:
    """Milliseconds of the product in a process of its own: a process cannot change the BLAS it has opened."""
    environment = dict(os.environ)
    if choice is not None:
        environment[blas.CHOICE_VARIABLE] = choice
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(root)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_PROBE_TIMEOUT_S,
    )
    return float(json.loads(done.stdout)["ms"])


def _compiler_finding() -> Finding:
    path = device.compiler_path()
    if path is not None:
        return Finding("compiler", str(path), True)
    command = system_command("g++") or "install g++ with the packages of your system"
    return Finding("compiler", "none", True, f"{command} (fused operations decode a little faster)")


def _pages_finding() -> Finding:
    value, advice = huge_pages.state()
    return Finding("memory pages", value, True, advice)


def _memory_finding(facts: DeviceFacts) -> Finding:
    value = f"{_gigabytes(facts.available_nbytes)} available of {_gigabytes(facts.total_nbytes)}"
    return Finding("memory", value, True)


def _disk_finding() -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    value = f"{_gigabytes(free)} free in {cache}"
    if free >= _NEEDED_DISK_NBYTES:
        return Finding("disk", value, True)
    return Finding("disk", value, False, "hf cache prune, or set HF_HOME to a folder on a larger disk")


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
