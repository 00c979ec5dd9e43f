"""The commands that errors and `doctor` give must install what the package itself would."""

import re
import tomllib
from pathlib import Path

from skulk_core.runtime import packages

EXTRAS = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def test_each_command_names_the_packages_of_its_extra() -> None:
    without_markers = {name: tuple(one.partition(";")[0].strip() for one in listed) for name, listed in EXTRAS.items()}
    assert without_markers["cpu"] == packages.CPU + packages.CPU_BLAS
    assert without_markers["cuda"] == packages.CUDA
    assert without_markers["publish"] == packages.PUBLISH
    for requirement in EXTRAS["cpu"]:
        machines = re.findall(r"platform_machine == '(\w+)'", requirement)
        assert tuple(machines) == (() if requirement in packages.CPU else packages.BLAS_MACHINES)


def test_no_command_installs_our_own_distribution_from_an_index() -> None:
    """It is on none: whoever takes the name there would be installed."""
    root = Path(__file__).resolve().parents[2]
    for folder in ("cli", "skulk_core", "swp", "templates"):
        for file in (root / folder).rglob("*"):
            if file.suffix in (".py", ".j2"):
                assert not re.search(r"install [^\n]*skulk-mtp", file.read_text()), file
