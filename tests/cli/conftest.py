import socket
from collections.abc import Iterator
from pathlib import Path

import cli_checkpoints
import pytest
from cli_runner import Program


@pytest.fixture(scope="session")
def nobody() -> Iterator[str]:
    """An address on loopback at which connections are refused: bound, so that nobody else takes it, not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="session")
def skulk(nobody: str, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program on a machine without a network, used for the first time."""
    return Program(tmp_path_factory.mktemp("home"), nobody)


@pytest.fixture(scope="session")
def plain_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that no head was ever made for."""
    return cli_checkpoints.plain_llama(tmp_path_factory.mktemp("models") / "plain")
