"""What is found out while ranks load ends the run before its first token, naming the host and what is wrong there."""

import json
import shutil
import socket
from pathlib import Path

import mlx.core as mx
import pytest
from cluster_rings import WITH_LOOKUP, Notes, ring
from cluster_tiny import save_tiny

from skulk_core.cluster import epoch
from skulk_core.cluster.backends import settings_for
from skulk_core.cluster.joining import Reserved
from skulk_core.errors import HostMismatch, RingError, WorkerFailed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama-sliding", tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("what", ["config.json", "model.safetensors"])
def test_a_host_with_another_revision_is_refused(
    what: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers would compute another model's hidden states, and the text would be nobody's."""
    other = tmp_path / "other"
    shutil.copytree(model, other)
    if what == "config.json":
        config = json.loads((model / what).read_text())
        (other / what).write_text(json.dumps({**config, "rope_theta": 2 * config["rope_theta"]}))
    else:
        tensors = mx.load(str(model / what))
        assert isinstance(tensors, dict)
        tensors["model.layers.3.mlp.down_proj.weight"] *= 2
        mx.save_safetensors(str(other / what), tensors, {"format": "mlx"})
    notes, epochs = Notes(), list[epoch.Epoch]()
    compare = epoch.Epoch._compare_found
    monkeypatch.setattr(
        epoch.Epoch, "_compare_found", lambda self, found: (epochs.append(self), compare(self, found))[1]
    )
    refused = ring(model, (0, 2, 4), WITH_LOOKUP, notes=notes, elsewhere={0: other})
    with pytest.raises(HostMismatch) as caught, refused:
        pass
    error = caught.value
    assert error.host == "local#1"
    assert error.what == f"the digest of {'the configuration' if what == 'config.json' else what}"
    assert error.theirs != error.ours
    assert all(said in str(error) for said in (error.theirs, error.ours, "on local#2"))
    # nobody was started again for it, and nobody's weights were waited for
    assert notes.lines == []
    assert epochs[-1].loaded == []


def test_a_port_that_another_program_took_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its being given back and the ring's taking it: a number of an error tells nobody what to look for."""
    took: list[socket.socket] = []

    def settings(backend, hosts, addresses, called=None):  # type: ignore[no-untyped-def]
        took.append(socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))))
        return settings_for(backend, hosts, addresses, called)

    monkeypatch.setattr(epoch, "settings_for", settings)
    with pytest.raises(WorkerFailed) as caught, ring(model, (0, 2, 4), WITH_LOOKUP):
        pass
    (program,) = took
    assert (caught.value.host, caught.value.error) == ("local#1", "RingError")
    assert f"127.0.0.1:{program.getsockname()[1]} cannot be listened at: Address already in use" in str(caught.value)
    program.close()


def test_ports_that_are_kept_for_a_ring() -> None:
    """Two ranks or runs of one host must not be given the same; and early callers must not be connected to nobody."""
    kept = [Reserved("127.0.0.1") for _ in range(20)]
    assert len({port for one in kept for port in (one.port, one.tried_port)}) == 40
    for one in kept:
        socket.create_connection(("127.0.0.1", one.tried_port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.port))
        one.release()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.tried_port))


def test_an_address_of_another_host_is_named() -> None:
    """A pinned link that has gone since the plan was made."""
    with pytest.raises(RingError, match="192.0.2.1 cannot be used here: Cannot assign requested address"):
        Reserved("192.0.2.1")
