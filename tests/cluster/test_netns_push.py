"""`--push`: a host that has nothing gets the files of its layers, whole and verified, and computes with them."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import netns
import pytest
from cli_checkpoints import DEMO, DEMO_SIDECAR, read_file, write_file
from cli_runner import TIMEOUT_S, Program
from netns import Cluster
from test_netns_hosts import Home

from skulk_core.cluster.receiving import RECEIVED_FILE, Announced, announced_text, receive, sha256_of
from skulk_core.errors import FileError
from skulk_core.formats.elsewhere import ELSEWHERE_FILE

ANSWER = ("The server handles each", "--max-tokens", "24", "--sidecar", DEMO_SIDECAR, "--draft-depth", "2", "--json")

# What `run --push` does before anything is loaded, for layers 0 to 3, the embedding and a head.
PUSH = """
import sys
from pathlib import Path
from skulk_core.cluster.peers import Host
from skulk_core.cluster.push import Pusher
from skulk_core.formats.hosts import parse_address
from skulk_core.hub.headers import read_checkpoint_headers
folder, program, peer = sys.argv[1:]
parts = ("mtp.", "embed", *(f"layers.{layer}." for layer in range(4)))
needed = lambda name: any(part in name for part in parts)
pusher = Pusher(Path(folder), read_checkpoint_headers(Path(folder)))
print(pusher.push(Host(name="a", ssh=parse_address(peer), command=(program,)), needed))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    yield from netns.cluster_or_skip(tmp_path / "cluster", num_hosts=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo in files of two layers each, and a fifth."""
    folder = tmp_path / "my 'model'"
    folder.mkdir()
    for file in DEMO.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    tensors, _ = read_file(DEMO / "model.safetensors")
    weight_map = {}
    for name in tensors:
        layer = re.search(r"layers\.(\d+)\.", name)
        weight_map[name] = f"model-{int(layer[1]) // 2 + 1 if layer else 5:05}-of-00005.safetensors"
    for file_name in set(weight_map.values()):
        write_file(folder / file_name, {name: one for name, one in tensors.items() if weight_map[name] == file_name})
    (folder / "mtp.safetensors").write_bytes(DEMO_SIDECAR.read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def test_a_host_without_the_model_gets_its_part_and_goes_on_where_a_copy_broke(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program = Program(tmp_path, "http://127.0.0.1:9", {"TMPDIR": str(temporary)})
    cluster.write_hosts(program.home / "config")
    home, a = Home(cluster, program), cluster["a"]
    run = ("run", model, *ANSWER)
    alone = home.run(*run)
    assert alone.code == 0, alone.stderr
    spread = home.run(*run, "--peers", "a", "--split", "4,4", "--push")
    assert spread.code == 0, spread.stderr
    assert spread.answer["tokens"] == alone.answer["tokens"]

    (place,) = (a.folder / "home" / ".cache" / "skulk" / "pushed").iterdir()
    held = {file.name for file in place.glob("*.safetensors")}
    # layers 0 to 3, and the embedding; it has no head to draft with
    assert held == {f"model-{number:05}-of-00005.safetensors" for number in (1, 2, 5)}
    assert (place / ELSEWHERE_FILE).exists()
    assert not list(place.glob("*.part"))
    for name in held:
        assert sha256_of(place / name) == sha256_of(model / name)

    _break_off(home, model, place)
    # MLX keeps its kernels there
    assert {file.name for file in temporary.iterdir()} <= {"mlx"}

    # a copy that broke in the middle, and a file that another program has spoilt
    broken, spoilt = (place / f"model-0000{number}-of-00005.safetensors" for number in (1, 2))
    content = broken.read_bytes()
    broken.unlink()
    (place / f"{broken.name}.part").write_bytes(content[: len(content) // 2])
    spoilt.write_bytes(b"\0" * spoilt.stat().st_size)
    assert home.python(PUSH, model, a.folder / "skulk", a.peer) == f"{place}\n"
    assert broken.read_bytes() == content
    # a host that decides needs the head that lies beside the model's own files
    assert sha256_of(place / "mtp.safetensors") == sha256_of(DEMO_SIDECAR)
    assert sha256_of(spoilt) == sha256_of(model / spoilt.name)
    home.assert_nothing_left()


def _break_off(home: Home, model: Path, place: Path) -> None:
    """Push a file by a slow link, by `kill -9` and by Ctrl-C not to its end: nothing goes on here or there."""
    (a,) = home.cluster.hosts
    # sftp and the kernel have 2 MB under way: more than that, or it would arrive whole
    (model / "notes.txt").write_bytes(bytes(8 << 20))
    part = place / "notes.txt.part"
    for number in (signal.SIGKILL, signal.SIGINT):
        part.unlink(missing_ok=True)
        home.cluster.home.limit(1)
        launcher = home.start_python(PUSH, model, a.folder / "skulk", a.peer)
        until_s = time.monotonic() + TIMEOUT_S
        while not part.exists():
            assert launcher.poll() is None, launcher.communicate()[1].decode()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        launcher.send_signal(number)
        launcher.communicate(timeout=TIMEOUT_S)
        assert launcher.returncode == -number
        home.cluster.home.wait_gone("sftp")
        # what this machine's kernel still has to send
        home.cluster.home.limit(10_000)
        a.wait_gone("sftp")
        assert part.stat().st_size < 8 << 20
    (model / "notes.txt").unlink()
    part.unlink()


def test_only_what_was_announced_gets_its_name(tmp_path: Path) -> None:
    """A file is used as soon as it has its name: by then it must be the one that was sent."""
    good = tmp_path / "good"
    good.write_bytes(b"weights")
    announced = Announced(7, sha256_of(good))
    folder = tmp_path / "place"
    assert receive(folder, {"w": announced}) == {"w": 0}
    part = folder / "w.part"
    part.write_bytes(b"wei")
    assert receive(folder, {"w": announced}) == {"w": 3}
    part.write_bytes(b"weighty")
    assert receive(folder, {"w": announced}) == {"w": 0}
    assert not part.exists()
    # what came with the announcement
    assert receive(folder, {"t": announced_text("ö")}, {"t": "ö"}) == {}
    assert (folder / "t").read_text(encoding="utf-8") == "ö"
    (folder / "t").unlink()
    part.write_bytes(b"weights")
    assert receive(folder, {"w": announced}) == {}
    assert (folder / "w").read_bytes() == b"weights"
    assert {file.name for file in folder.iterdir()} == {"w", RECEIVED_FILE}
    # spoilt afterwards: what was remembered of it does not hold any more
    (folder / "w").write_bytes(b"nothing")
    assert receive(folder, {"w": announced}) == {"w": 0}
    with pytest.raises(FileError, match="not a plain file name"):
        receive(folder, {"../w": announced})
