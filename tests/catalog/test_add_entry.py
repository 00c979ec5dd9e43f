"""Adding to a person's own catalog: what they wrote stays as they wrote it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skulk_core.catalog import AssistantEntry, Change, SidecarEntry, VindexEntry, add_entry
from skulk_core.errors import EntryExists, FileError, FormatError
from skulk_core.formats.catalog import Entry, Fingerprint, read_catalog
from skulk_core.types import Conventions

ROOT = Path(__file__).resolve().parent.parent.parent

WRITTEN = """\
# mine
schema: 1

entries:
  # the first
  - kind: sidecar   # a head
    base: me/A
    repo: 'me/a-mtp'
    layout: qwen_mtp
    licence: mit
    conventions: &wired
      norm_offset: 1.0
      concat_order: embedding_first
      hidden_tap: post_norm  # measured
      chain_tap: post_norm
      position_rule: running
    depth_by_hosts: {3: 0, 2: 1}  # a slow link

  # the second
  - {kind: assistant, base: me/B, repo: me/b-draft, layout: x, licence: mit, conventions: *wired}
  # nothing below
"""
ABOVE = WRITTEN.removesuffix("  # nothing below\n")
NEW = SidecarEntry(
    base="me/C",
    repo="me/c-mtp",
    licence="apache-2.0",
    layout="nextn",
    revision="0" * 40,
    source_sha="1" * 40,
    conventions=Conventions(),
    default_depth=2,
    depth_by_hosts=((2, 1), (4, 0)),
    fingerprint=Fingerprint(model_type="x", hidden_size=8, vocab_size=99, num_hidden_layers=2),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(WRITTEN)
    return path


def test_a_first_entry_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "config" / "skulk" / "catalog.yaml"
    assert add_entry(path, NEW) is Change.ADDED
    assert read_catalog(path) == (NEW,)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "entry",
    [
        NEW,
        AssistantEntry(base="me/A", repo="me/a-draft", licence="mit", layout="gemma4_assistant"),
        VindexEntry(base="me/A", repo="me/a-vindex", licence="mit, other", quant="q4k", program="larql 0.3.1"),
    ],
)
def test_an_entry_is_put_after_the_others_and_nothing_else_changes(path: Path, entry: Entry) -> None:
    before = read_catalog(path)
    assert add_entry(path, entry) is Change.ADDED
    assert read_catalog(path) == (*before, entry)
    assert path.read_text().startswith(ABOVE)
    assert path.read_text().endswith("  # nothing below\n")


def test_the_same_entry_again_writes_nothing(path: Path) -> None:
    add_entry(path, NEW)
    text, written_ns = path.read_text(), path.stat().st_mtime_ns
    assert add_entry(path, NEW) is Change.UNCHANGED
    assert (path.read_text(), path.stat().st_mtime_ns) == (text, written_ns)


def test_another_entry_of_the_same_base_is_refused(path: Path) -> None:
    other = SidecarEntry(base="Me/a", repo="me/a2-mtp", licence="mit", layout="qwen_mtp")
    with pytest.raises(EntryExists, match="lists another sidecar of Me/a already"):
        add_entry(path, other)
    assert path.read_text() == WRITTEN


def test_a_replaced_entry_keeps_its_place_and_the_comments(path: Path) -> None:
    """The alias of the second entry pointed into the first one: it keeps its meaning."""
    _, second = read_catalog(path)
    other = SidecarEntry(
        base="me/A", repo="me/a2-mtp", licence="mit", layout="qwen_mtp", source_sha="2" * 40, default_depth=1
    )
    assert add_entry(path, other, replace=True) is Change.REPLACED
    assert read_catalog(path) == (other, second)
    text = path.read_text()
    for comment in ("# mine", "# the first", "# a head", "# the second", "# nothing below"):
        assert comment in text
    wired = SidecarEntry(base="me/A", repo="me/a2-mtp", licence="mit", layout="y", conventions=Conventions())
    add_entry(path, wired, replace=True)
    assert read_catalog(path) == (wired, second)


def test_only_what_differs_is_rewritten(path: Path) -> None:
    first, _ = read_catalog(path)
    assert isinstance(first, SidecarEntry)
    deeper = SidecarEntry(
        base=first.base,
        repo=first.repo,
        licence=first.licence,
        layout=first.layout,
        conventions=first.conventions,
        depth_by_hosts=first.depth_by_hosts,
        default_depth=3,
    )
    add_entry(path, deeper, replace=True)
    kept = [line for line in WRITTEN.splitlines() if line not in path.read_text().splitlines()]
    assert kept == []
    assert len(path.read_text().splitlines()) == len(WRITTEN.splitlines()) + 1


@pytest.mark.parametrize(
    "text",
    [
        "schema: 1\nentries: []\n",
        "entries:\n- kind: vindex\n  base: a/b\n  repo: a/c\n  licence: mit\nschema: 1\n",
        "schema: 1\nentries: [{kind: vindex, base: a/b, repo: a/c, licence: mit}]  # short\n",
        '{"schema": 1, "entries": [{"kind": "vindex", "base": "a/b", "repo": "a/c", "licence": "mit"}]}',
        "schema: 1\r\nentries:\r\n    - kind: vindex\r\n      base: a/b\r\n      repo: a/c\r\n      licence: mit\r\n",
    ],
)
def test_files_of_every_form_take_an_entry(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_bytes(text.encode())
    before = read_catalog(path)
    add_entry(path, NEW)
    assert read_catalog(path) == (*before, NEW)


def test_a_file_with_a_mistake_is_not_touched(path: Path) -> None:
    broken = WRITTEN.replace("base: me/B", "bsae: me/B")
    path.write_text(broken)
    with pytest.raises(FormatError, match="did you mean 'base'"):
        add_entry(path, NEW)
    assert path.read_text() == broken


def test_values_that_break_the_schema_are_not_written(path: Path) -> None:
    with pytest.raises(FormatError, match="'nonsense' is not OWNER/NAME"):
        add_entry(path, VindexEntry(base="nonsense", repo="a/b", licence="mit"))
    assert path.read_text() == WRITTEN


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        add_entry(tmp_path / "file" / "catalog.yaml", NEW)


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "catalog.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    add_entry(link, NEW)
    assert link.is_symlink()
    assert len(read_catalog(path)) == 3


WRITER = """
import sys
from pathlib import Path
from skulk_core.catalog import VindexEntry, add_entry
writer = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(6):
    add_entry(Path(sys.argv[1]), VindexEntry(base=f"w{writer}/m{number}", repo="a/b", licence="mit"))
"""


def test_programs_that_write_at_once_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(read_catalog(path)) == 2 + 3 * 6
    assert path.read_text().startswith(ABOVE)
