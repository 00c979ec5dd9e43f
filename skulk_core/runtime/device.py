"""What this machine computes with: MLX's backend, its device and memory, and the versions of what is installed."""

import ctypes
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version
from types import ModuleType

from skulk_core.errors import BackendError
from skulk_core.runtime import blas, packages
from skulk_core.runtime.blas import Build

DISTRIBUTIONS = ("skulk-mtp", "mlx", "mlx-lm", "huggingface-hub")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class DeviceFacts:
    """The device that MLX computes on by default. `available_nbytes` is what a model can use now."""

    backend: Build
    name: str
    total_nbytes: int
    available_nbytes: int
    auto_dtype: str


def load_mlx() -> ModuleType:
    """Import `mlx.core` with everything that must come before it done.

    Sets ``MLX_METAL_FAST_SYNCH=0`` unless it is set: it has hung speculative decoding and two-host runs.
    Raises `BackendError`, naming what to install, if MLX has no build here or its build cannot be loaded.
    """
    os.environ.setdefault("MLX_METAL_FAST_SYNCH", "0")
    # float32 is asked for where tokens must be those of plain decoding; TF32 is not float32
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    blas.prepare()
    try:
        import mlx.core as mx
    except ImportError as error:
        if sys.platform == "darwin":
            raise BackendError(f"MLX cannot be loaded ({error}); it needs a Mac with Apple silicon") from error
        if blas.installed_build() is None:
            raise BackendError(f"no MLX build is installed: {_install()}") from error
        raise BackendError(f"MLX is installed but cannot be loaded: {error}") from error
    return mx


def _install() -> str:
    return f"{packages.cpu_command()}, or on an NVIDIA GPU {packages.pip_command(packages.CUDA)}"


def device_facts() -> DeviceFacts:
    """Facts about the default device. Raises `BackendError` as `load_mlx` does."""
    mx = load_mlx()
    information = mx.device_info(mx.default_device())
    name = str(information.get("device_name", "unknown"))
    if mx.metal.is_available():
        total = int(information["memory_size"])
        # Metal pages out what exceeds the working set, so memory beyond it is of no use to a model.
        available = min(_darwin_available_nbytes(total), int(information["max_recommended_working_set_size"]))
        return DeviceFacts(Build.METAL, name, total, available, auto_dtype())
    if mx.default_device() == mx.Device(mx.gpu):
        total, available = int(information["total_memory"]), int(information["free_memory"])
        return DeviceFacts(Build.CUDA, name, total, available, auto_dtype())
    total, available = host_memory()
    return DeviceFacts(Build.CPU, name, total, available, auto_dtype())


def auto_dtype() -> str:
    """`float32` on a Linux CPU, where only float32 products are fast; elsewhere `checkpoint`: as the file has it."""
    build = blas.installed_build()
    return "float32" if sys.platform == "linux" and build is not Build.CUDA else "checkpoint"


def versions(*more: str) -> dict[str, str | None]:
    """Python's version and those of the packages that matter, with ``more``; None for one that is not installed."""
    found: dict[str, str | None] = {"python": python_version()}
    for name in (*DISTRIBUTIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def compiler_path() -> Path | None:
    """The `g++` with which MLX's CPU build compiles fused kernels at first use, into ``$TMPDIR/mlx/VERSION/cpu``.

    Without one MLX evaluates operations one by one, and what would be fused differs by rounding. Measured with the
    demo model on a 2-core virtual machine: 8 kernels, 4 to 7 s once, then 8.8 ms a token against 10.4.
    """
    found = shutil.which("g++")
    return None if found is None else Path(found)


def host_memory() -> tuple[int, int]:
    """Total and available bytes for a CPU backend, no more than a container's limit leaves."""
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize")
        return total, _darwin_available_nbytes(total)
    lines = (line.split() for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
    total, available = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        total = min(total, int(text))
        available = min(available, max(0, int(text) - int(used.read_text(encoding="ascii"))))
    return total, available


def _darwin_available_nbytes(total: int) -> int:
    """The estimate of macOS, which counts what it would compress or drop, is a percentage of the memory."""
    return total * _sysctl("kern.memorystatus_level") // 100


def _sysctl(name: str) -> int:
    value = ctypes.c_uint64(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    status = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    assert status == 0, f"sysctl {name}"
    return value.value
