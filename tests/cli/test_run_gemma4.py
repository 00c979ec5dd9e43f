"""`skulk run FOLDER` on Gemma 4 in the shape of its smallest release, without an assistant."""

from pathlib import Path

import pytest
from cli_runner import in_process
from gemma4_tiny import save_target, torch_target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(torch_target("E2B"), tmp_path_factory.mktemp("gemma4"), shards=2)


def test_a_folder_answers(folder: Path) -> None:
    """Plainly, as was asked for, from files with layer inputs and layers that read others' memory."""
    answered = in_process("run", folder, "w5 w6 w7", "--max-tokens", "20", "--draft-depth", "0", "--json")
    assert answered.code == 0, answered.stderr
    assert answered.answer["text"]


def test_float16_is_refused_by_its_option(folder: Path) -> None:
    answered = in_process("run", folder, "w5", "--draft-depth", "0", "--dtype", "float16")
    answered.assert_fails(2, "--dtype", "bfloat16")
