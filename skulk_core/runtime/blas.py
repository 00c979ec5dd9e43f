"""What must happen before MLX is first imported on a Linux CPU: put a real BLAS in front of the one it is linked to.

MLX's Linux CPU wheel is linked to the reference BLAS, whose products cost in proportion to their rows: a verify pass
over four rows costs four plain steps and speculation cannot win. MLX needs three of its symbols, so a library that
exports them, opened with ``RTLD_GLOBAL`` before MLX, is the one that MLX binds to.

Measured on a 2-core AMD EPYC (Zen 3) virtual machine, milliseconds, the best of the medians of five interleaved runs:
the demo model in float32 (8 layers, hidden size 256), one token of mlx-lm's generation, passes over 1 and 4 rows, a
prefill of 256 rows; then single products of 1 and 4 rows with a float32 weight:

=====================  =====  =====  ======  =======  ============  ============
library, threads       token  1 row  4 rows  prefill  [4096, 4096]  [49152, 576]
=====================  =====  =====  ======  =======  ============  ============
reference               13.2   15.6    43.8     1994   17.5 / 69.6    27.4 / 121
OpenBLAS 0.3.21, 1       9.6   10.5    12.7      327   12.7 / 11.6   21.0 / 21.8
OpenBLAS 0.3.21, 2       8.5   10.5    15.0      389    6.1 / 10.5   12.7 / 19.7
scipy-openblas32, 1      9.5   10.1    12.7      364   11.6 / 10.8   21.2 / 20.0
scipy-openblas32, 2     11.4   13.8    17.3      360    5.9 /  7.0   12.2 / 13.6
BLIS 0.9.0, 1            7.6    7.9    12.4      359    2.9 /  7.3    7.5 / 11.0
BLIS 0.9.0, 2            7.6    6.8    19.6      341    2.9 /  4.4    7.6 /  7.1
MKL 2026.2, 1            7.2    7.5    12.7      387    3.0 /  9.5    8.0 / 18.9
MKL 2026.2, 2            7.8    6.8    25.6      365    3.1 / 10.3    8.0 / 18.7
=====================  =====  =====  ======  =======  ============  ============

That is with weights as checkpoints hold them. Stored in another order (`models.dense_layout`, which has the figures)
OpenBLAS copies nothing where the CPU has AVX-512: it is nearly as fast as BLIS for one row of such weights, faster for
the few of a verify pass, and faster for both on smaller ones. So it comes first there, and elsewhere BLIS, which
multiplies single rows 3 to 4 times as fast. The two OpenBLAS are alike, and the
packaged one is of a known version. One thread, because a second costs more than it gives on weights below about 2048 x
2048 (`threads_for`). MKL is not looked for: it is large and proprietary, and it ends the process where its OpenMP
library is missing. `SKULK_BLAS` takes its path.
"""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import metadata, util
from pathlib import Path

from skulk_core.errors import BackendError, OptionError
from skulk_core.runtime.library_copy import NoPatchelf, check_private, make_renamed_copy
from skulk_core.runtime.packages import CPU_BLAS, pip_command

NEEDED_SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
CHOICE_VARIABLE = "SKULK_BLAS"
THREADS_VARIABLE = "SKULK_BLAS_THREADS"
REFERENCE = "reference"
# OpenBLAS's names of cores for which it has kernels for small products, which copy nothing
AVX512_CORES = ("SkylakeX", "Cooperlake", "SapphireRapids")
_THREADED_HIDDEN_SIZE = 2048
# A few cores use up the memory's bandwidth, which is what products of few rows wait for.
_MAX_THREADS = 8


class Build(StrEnum):
    """Which of MLX's builds is installed; they overwrite each other's files."""

    METAL = "metal"
    CUDA = "cuda"
    CPU = "cpu"


@dataclass(frozen=True)
class Skipped:
    """A library that was considered and is not used; `remedy` says what would mend it, where that is known."""

    name: str
    reason: str
    is_installed: bool = True
    remedy: str = ""


@dataclass(frozen=True)
class BlasChoice:
    """The BLAS that MLX's float32 products run on. `path` and `threads` are None where they are not ours to know."""

    name: str
    path: Path | None
    threads: int | None
    why: str
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class _Family:
    """How one family of libraries is told how many threads to use."""

    variables: tuple[str, ...]
    setters: tuple[str, ...]
    getters: tuple[str, ...]


_FAMILIES = (
    _Family(
        ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
        ("openblas_set_num_threads", "scipy_openblas_set_num_threads"),
        ("openblas_get_num_threads", "scipy_openblas_get_num_threads"),
    ),
    _Family(
        ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
        ("bli_thread_set_num_threads",),
        ("bli_thread_get_num_threads",),
    ),
    _Family(("MKL_NUM_THREADS", "OMP_NUM_THREADS"), ("MKL_Set_Num_Threads",), ("MKL_Get_Max_Threads",)),
)


@dataclass
class _State:
    """What this process has chosen; the one mutable thing here."""

    choice: BlasChoice | None = None
    handle: ctypes.CDLL | None = None


_state = _State()


def prepare() -> BlasChoice:
    """Choose a BLAS and open it, once per process and before MLX is imported; later calls return the first choice.

    The environment variable ``SKULK_BLAS`` names a candidate (`blis`, `scipy-openblas`, `openblas`), a library's
    path or soname, or `none`; without it the fastest candidate that is installed is taken. A library that
    cannot be used is recorded in `skipped`; one that was asked for by name is not replaced by another.

    Raises `BackendError` if MLX is already imported and the choice would come too late, `OptionError` if
    ``SKULK_BLAS_THREADS`` is no number of threads.
    """
    if _state.choice is None:
        _state.choice = _prepare()
    return _state.choice


def openblas_core() -> str | None:
    """OpenBLAS's name for the kind of core whose kernels it runs; None for other libraries, or one we did not open."""
    prepare()
    for name in ("openblas_get_corename", "scipy_openblas_get_corename"):
        if _state.handle is not None and hasattr(_state.handle, name):
            ask = getattr(_state.handle, name)
            ask.restype = ctypes.c_char_p
            return str(ask().decode())
    return None


def set_threads(num_threads: int) -> BlasChoice:
    """Have the BLAS use `num_threads` threads from now on, unless the person who runs the program has set a number.

    Changes nothing, and says so in the result, where the BLAS is not one that `prepare` opened.
    """
    assert num_threads > 0
    choice = prepare()
    if _state.handle is not None and THREADS_VARIABLE not in os.environ:
        _state.choice = replace(choice, threads=_limit_threads(_state.handle, num_threads))
    return prepare()


def threads_for(hidden_size: int) -> int:
    """How many threads suit the products of a model, for `set_threads`.

    Milliseconds with 2 threads and with 1, square weights of 256, 1024 and 2048, 4 rows, same machine as above:
    BLIS 0.13 and 0.03, 0.41 and 0.43, 1.1 and 1.7; OpenBLAS 0.04 and 0.03, 0.46 and 0.52, 1.8 and 2.6.
    """
    if hidden_size < _THREADED_HIDDEN_SIZE or sys.platform != "linux":
        return 1
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def installed_build() -> Build | None:
    """MLX's build as the installed packages tell it, without importing any; None if there is none, or one from source.

    On Linux the package `mlx` alone holds no build.
    """
    if sys.platform == "darwin":
        return Build.METAL if _version("mlx") else None
    if _version("mlx-cuda-13") or _version("mlx-cuda-12"):
        return Build.CUDA
    return Build.CPU if _version("mlx-cpu") else None


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/skulk/blas`, or `~/.cache/skulk/blas`. It may not exist yet."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "skulk" / "blas"


def _prepare() -> BlasChoice:
    build = installed_build()
    if build is Build.METAL:
        return BlasChoice("accelerate", None, None, "MLX computes with Metal and Accelerate on macOS")
    if build is not Build.CPU:
        return BlasChoice("as built", None, None, "only MLX's Linux CPU wheel is known to need another BLAS")
    present = _provider()
    if present is not None:
        return BlasChoice(present.name, present, None, "the process already had a BLAS before MLX")
    wanted = os.environ.get(CHOICE_VARIABLE, "")
    if wanted == "none":
        return BlasChoice(REFERENCE, None, 1, f"{CHOICE_VARIABLE}=none")
    if "mlx.core" in sys.modules:
        raise BackendError(
            "MLX was imported before skulk_core.runtime.blas.prepare(): it keeps the slow reference BLAS"
        )
    return _open_first([wanted] if wanted else _in_order(), f"{CHOICE_VARIABLE}={wanted}" if wanted else None)


def _in_order() -> list[str]:
    """The candidates, the fastest on this machine first."""
    return ["scipy-openblas", "blis", "openblas"] if _has_avx512() else ["blis", "scipy-openblas", "openblas"]


def _has_avx512() -> bool:
    """Whether the CPU has what kernels of `AVX512_CORES` need; OpenBLAS may still have been told to run others."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return all(f" avx512{part}" in flags for part in ("f", "bw", "cd", "dq", "vl"))


def _open_first(names: list[str], asked_for: str | None) -> BlasChoice:
    skipped = []
    for name in names:
        opened = _open_candidate(name)
        if isinstance(opened, Skipped):
            skipped.append(opened)
            continue
        path, _state.handle = opened
        threads = _limit_threads(_state.handle, _wanted_threads())
        why = asked_for or f"the fastest of what is installed, in the order {', '.join(names)}"
        return BlasChoice(name, path, threads, why, tuple(skipped))
    broken = [one.name for one in skipped if one.is_installed]
    none = f"{' and '.join(broken)} cannot be used" if broken else "no other BLAS is installed"
    why = f"{asked_for} cannot be used" if asked_for else none
    return BlasChoice(REFERENCE, None, 1, why, tuple(skipped))


def _open_candidate(name: str) -> tuple[Path, ctypes.CDLL] | Skipped:
    located = _scipy_openblas() if name == "scipy-openblas" else _SONAMES.get(name, (name,))
    if isinstance(located, Skipped):
        return located
    reasons = []
    for file in located:
        try:
            return _open(file)
        except OSError as error:
            reasons.append(str(error))
    there = [reason for reason in reasons if "No such file" not in reason]
    return Skipped(name, (there or reasons)[-1], is_installed=bool(there))


def _open(file: str) -> tuple[Path, ctypes.CDLL]:
    """Open `file` for the whole process. Raises `OSError` if it is no library, or not one that MLX would bind to."""
    with _started_with_one_thread():
        handle = ctypes.CDLL(file, mode=os.RTLD_LOCAL)
    missing = [symbol for symbol in NEEDED_SYMBOLS if not hasattr(handle, symbol)]
    if missing:
        raise OSError(f"{file}: lacks {', '.join(missing)}")
    handle = ctypes.CDLL(file, mode=os.RTLD_GLOBAL)
    provider = _provider()
    if provider is None or _address(handle) != _address(ctypes.CDLL(None)):
        raise OSError(f"{file}: opened, but {NEEDED_SYMBOLS[0]} resolves to {provider}")
    return provider, handle


@contextmanager
def _started_with_one_thread() -> Iterator[None]:
    """OpenBLAS starts a thread per core as it is opened; the variable that prevents it must not reach children."""
    variable, *synonyms = _FAMILIES[0].variables
    if any(name in os.environ for name in (variable, *synonyms)):
        yield
        return
    os.environ[variable] = "1"
    try:
        yield
    finally:
        del os.environ[variable]


def _wanted_threads() -> int:
    text = os.environ.get(THREADS_VARIABLE)
    if text is None:
        return 1
    if not (text.isdecimal() and int(text) > 0):
        raise OptionError(THREADS_VARIABLE, text, "must be a number of threads, 1 or more")
    return int(text)


def _limit_threads(handle: ctypes.CDLL, num_threads: int) -> int | None:
    """Set the library's threads unless its own variables do; the number it then reports, None if it reports none."""
    for family in _FAMILIES:
        setter = next((getattr(handle, name) for name in family.setters if hasattr(handle, name)), None)
        getter = next((getattr(handle, name) for name in family.getters if hasattr(handle, name)), None)
        if setter is None or getter is None:
            continue
        if THREADS_VARIABLE in os.environ or not any(name in os.environ for name in family.variables):
            setter(ctypes.c_long(num_threads))
        reported = int(getter())
        return reported if reported > 0 else None
    return None


class _SymbolInfo(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


def _provider() -> Path | None:
    """The file whose symbols MLX binds to: the first in the process that exports them globally."""
    process = ctypes.CDLL(None)
    if not hasattr(process, NEEDED_SYMBOLS[0]):
        return None
    info = _SymbolInfo()
    found = process.dladdr(ctypes.c_void_p(_address(process)), ctypes.byref(info))
    assert found, "dladdr knows every symbol that dlsym found"
    return Path(os.fsdecode(info.dli_fname)).resolve()


def _address(handle: ctypes.CDLL) -> int | None:
    return ctypes.cast(getattr(handle, NEEDED_SYMBOLS[0]), ctypes.c_void_p).value


def _scipy_openblas() -> tuple[str, ...] | Skipped:
    """The packaged OpenBLAS under the names MLX asks for, made now if this version has no copy yet."""
    name = "scipy-openblas"
    version, spec = _version("scipy-openblas32"), util.find_spec("scipy_openblas32")
    if version is None or spec is None or spec.origin is None:
        return Skipped(name, "the package scipy-openblas32 is not installed", is_installed=False)
    packaged = Path(spec.origin).parent / "lib" / "libscipy_openblas.so"
    copy = cache_dir() / version / f"libskulk_openblas-{platform.machine()}.so"
    try:
        check_private(copy)
        if not copy.exists():
            make_renamed_copy(packaged, copy, {f"scipy_{symbol}": symbol for symbol in NEEDED_SYMBOLS})
        check_private(copy)
    except NoPatchelf as error:
        return Skipped(name, str(error), remedy=pip_command(CPU_BLAS[1:]))
    except (OSError, subprocess.SubprocessError) as error:
        folder = f"{copy.parent} must be a folder that you and nobody else can write"
        return Skipped(name, str(error), remedy=f"{folder}; XDG_CACHE_HOME chooses another")
    return (str(copy),)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_SONAMES = {"blis": ("libblis.so.4",), "openblas": ("libopenblas.so.0", "libopenblasp.so.0")}
