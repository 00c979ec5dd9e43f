"""A run that is slow for want of a BLAS says so, and what to do; nobody would look for it."""

from pathlib import Path

import pytest
from cli_runner import Program

from skulk_core.runtime.blas import Build, installed_build

pytestmark = pytest.mark.skipif(installed_build() is not Build.CPU, reason="only MLX's Linux CPU wheel needs a BLAS")

RUN = ("run", "demo", "hi", "--max-tokens", "2")


def test_the_reference_blas_is_told_of_unless_it_was_asked_for(skulk: Program, tmp_path: Path) -> None:
    misspelt = skulk.run(*RUN, "--verbose", SKULK_BLAS="opneblas")
    assert misspelt.code == 0
    note, used, *_ = misspelt.stderr.splitlines()
    assert note.startswith("slow: MLX computes with the reference BLAS, because SKULK_BLAS=opneblas cannot be used; ")
    assert "unset SKULK_BLAS; opneblas: " in note
    assert used == "BLAS: reference, threads 1 (SKULK_BLAS=opneblas cannot be used)"

    file = tmp_path / "file"
    file.write_text("")
    unwritable = skulk.run(*RUN, SKULK_BLAS="scipy-openblas", XDG_CACHE_HOME=str(file))
    assert unwritable.stderr.startswith("slow: ")
    assert "scipy-openblas: [Errno 20] Not a directory" in unwritable.stderr
    assert "XDG_CACHE_HOME chooses another" in unwritable.stderr

    asked = skulk.run(*RUN, SKULK_BLAS="none")
    assert len(asked.stderr.splitlines()) == 1
