"""`catalog.yaml` as people edit it: every mistake is named by file, line and key."""

import json
from pathlib import Path

import pytest

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.catalog import (
    WHOLE,
    AssistantEntry,
    Fingerprint,
    SidecarEntry,
    VindexEntry,
    read_catalog,
    to_mapping,
)
from skulk_core.types import Conventions

GOOD = """\
schema: 1
entries:
  - kind: sidecar
    base: owner/Model
    repo: other/model-mtp
    layout: qwen_mtp
    licence: mit
    source_sha: 0123456789abcdef0123456789abcdef01234567
    revision: fedcba9876543210fedcba9876543210fedcba98
    conventions: &wiring
      norm_offset: 1
      concat_order: embedding_first
      hidden_tap: post_norm
      chain_tap: post_norm
      position_rule: running
    default_depth: 2
    depth_by_hosts: {4: 0, 2: 1}
    fingerprint: {model_type: x_text, hidden_size: 8, vocab_size: 99, num_hidden_layers: 2, num_experts: 4}
  - kind: assistant
    base: owner/Model
    repo: owner/Model-assistant
    layout: gemma4_assistant
    licence: mit
    conventions: *wiring
  - kind: vindex
    base: owner/Model
    repo: owner/model-vindex
    licence: mit
    quant: q4k
    slice: expert-server
    program: larql 0.3.1
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_three_kinds(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    sidecar, assistant, vindex = read_catalog(path)
    assert sidecar == SidecarEntry(
        base="owner/Model",
        repo="other/model-mtp",
        layout="qwen_mtp",
        licence="mit",
        source_sha="0123456789abcdef0123456789abcdef01234567",
        revision="fedcba9876543210fedcba9876543210fedcba98",
        fingerprint=Fingerprint(model_type="x_text", hidden_size=8, vocab_size=99, num_hidden_layers=2, num_experts=4),
        conventions=Conventions(norm_offset=1.0),
        default_depth=2,
        depth_by_hosts=((2, 1), (4, 0)),
        origin=path,
    )
    assert isinstance(assistant, AssistantEntry)
    assert assistant.conventions == Conventions(norm_offset=1.0)
    assert (assistant.source_sha, assistant.default_depth, assistant.depth_by_hosts) == (None, None, ())
    assert vindex == VindexEntry(
        base="owner/Model",
        repo="owner/model-vindex",
        licence="mit",
        quant="q4k",
        slice="expert-server",
        program="larql 0.3.1",
    )
    assert vindex.key == ("vindex", "owner/model", "q4k", "expert-server")
    assert {entry.origin for entry in (sidecar, assistant, vindex)} == {path}


@pytest.mark.parametrize(("num_hosts", "depth"), [(1, 2), (2, 1), (3, 1), (4, 0), (9, 0)])
def test_depth_follows_the_number_of_hosts(tmp_path: Path, num_hosts: int, depth: int) -> None:
    entry = read_catalog(write(tmp_path, GOOD))[0]
    assert isinstance(entry, SidecarEntry)
    assert entry.depth(num_hosts) == depth


def test_a_depth_nobody_measured_is_none(tmp_path: Path) -> None:
    entry = read_catalog(write(tmp_path, GOOD))[1]
    assert isinstance(entry, AssistantEntry)
    assert entry.depth(1) is None


@pytest.mark.parametrize(
    ("old", "new", "where", "reason"),
    [
        ("schema: 1", "schema: 2", "line 1, schema", "this program reads schema 1"),
        ("schema: 1", "schema: one", "line 1, schema", "whole number"),
        ("schema: 1\n", "", "line 1, schema", "missing"),
        ("schema: 1", "schema: 1\nentires: []", "line 2, entires", "did you mean 'entries'"),
        ("kind: vindex", "kind: vidnex", "line 25, entries[2].kind", "'vidnex' is not one of sidecar, assistant"),
        ("    layout: qwen_mtp\n", "", "line 3, entries[0].layout", "missing"),
        ("layout: qwen_mtp", "layot: qwen_mtp", "line 6, entries[0].layot", "did you mean 'layout'"),
        ("layout: qwen_mtp", "layout: ''", "line 6, entries[0].layout", "must be a text"),
        ("repo: other/model-mtp", "repo: model-mtp", "line 5, entries[0].repo", "is not OWNER/NAME"),
        ("repo: other/model-mtp", "repo: 7", "line 5, entries[0].repo", "must be a text, not 7"),
        ("source_sha: 0", "source_sha: x", "line 8, entries[0].source_sha", "40 hexadecimal digits"),
        ("norm_offset: 1", "norm_offset: yes please", "line 11, entries[0].conventions.norm_offset", "a number"),
        ("      norm_offset: 1\n", "", "line 10, entries[0].conventions.norm_offset", "missing"),
        ("hidden_tap: post_norm", "hidden_tap: postnorm", "line 13, entries[0].conventions.hidden_tap", "'post_norm'"),
        ("hidden_tap: post", "hiden_tap: post", "line 13, entries[0].conventions.hiden_tap", "mean 'hidden_tap'"),
        ("conventions: *wiring", "conventions: qwen", "line 24, entries[1].conventions", "must be a mapping"),
        ("default_depth: 2", "default_depth: -1", "line 16, entries[0].default_depth", "whole number from 0"),
        ("default_depth: 2", "default_depth: true", "line 16, entries[0].default_depth", "not True"),
        ("{4: 0, 2: 1}", "{0: 1}", "line 17, entries[0].depth_by_hosts.0", "whole number from 1"),
        ("{4: 0, 2: 1}", "{4: x}", "line 17, entries[0].depth_by_hosts.4", "whole number from 0"),
        ("revision: f", "revision: main-f", "line 9, entries[0].revision", "40 hexadecimal digits"),
        ("hidden_size: 8", "hidden_size: 0", "line 18, entries[0].fingerprint.hidden_size", "whole number from 1"),
        ("hidden_size: 8, ", "", "line 18, entries[0].fingerprint.hidden_size", "missing"),
        ("num_experts", "n_experts", "line 18, entries[0].fingerprint.n_experts", "did you mean 'num_experts'"),
        ("norm_offset: 1", "norm_offset: .nan", "line 11, entries[0].conventions.norm_offset", "a number, not nan"),
        ("repo: other/model-mtp", "repo: other/--x", "line 5, entries[0].repo", "is not OWNER/NAME"),
        ("quant: q4k", "quant: 4", "line 29, entries[2].quant", "must be a text"),
        ("kind: vindex\n", "kind: vindex\n    layout: x\n", "line 26, entries[2].layout", "unknown key"),
        ("kind: assistant", "kind: sidecar", "line 20, entries[1].base", "owner/Model stands here twice"),
        ("    repo: other", "    base: again/Model\n    repo: other", "line 5", "duplicate key"),
        ("entries:", "entries: [", "line", "expected"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, where: str, reason: str) -> None:
    assert GOOD.count(old) >= 1
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        read_catalog(path)
    assert caught.value.path == path
    assert caught.value.where.startswith(where)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "line 1", "must be a mapping"),
        ("- kind: sidecar\n", "line 1", "must be a mapping"),
        ("schema: 1\n", "line 1, entries", "missing"),
        ("schema: 1\nentries: {}\n", "line 2, entries", "must be a list"),
        ("schema: 1\nentries:\n- kind: vindex\n- word\n", "line 3, entries[0].base", "missing"),
        ("schema: 1\nentries:\n- word\n", "line 3, entries[0]", "must be a mapping, not 'word'"),
    ],
)
def test_a_file_of_another_shape(tmp_path: Path, text: str, where: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        read_catalog(write(tmp_path, text))
    assert caught.value.where == where


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_catalog(tmp_path / "nope.yaml")
    binary = tmp_path / "catalog.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not UTF-8"):
        read_catalog(binary)


def test_the_whole_of_a_vindex_and_its_slices_stand_side_by_side(tmp_path: Path) -> None:
    more = "  - {kind: vindex, base: owner/model, repo: owner/whole, licence: mit, quant: q4k}\n"
    *_, cut, whole = read_catalog(write(tmp_path, GOOD + more))
    assert isinstance(cut, VindexEntry)
    assert isinstance(whole, VindexEntry)
    assert (cut.slice, whole.slice) == ("expert-server", WHOLE)
    with pytest.raises(FormatError, match="stands here twice as vindex q4k whole"):
        read_catalog(write(tmp_path, GOOD + more + more))


def test_what_is_merged_in_is_named_at_the_entry(tmp_path: Path) -> None:
    """`<<` brings keys of another place: an error about them has no line of its own here."""
    text = "schema: 1\nentries:\n- &a {kind: vindex, base: o/a, repo: o/b, licence: mit}\n- <<: *a\n  base: 1\n"
    with pytest.raises(FormatError) as caught:
        read_catalog(write(tmp_path, text))
    assert caught.value.where == "line 5, entries[1].base"
    with pytest.raises(FormatError, match=r"line 3, entries\[0\]\.repo: '7' is not"):
        read_catalog(write(tmp_path, text.replace("repo: o/b", "repo: '7'")))
    merged = text.replace("  base: 1", "  kind: sidecar\n  layout: x\n  repo: o/c\n  licence: [mit]")
    with pytest.raises(FormatError, match=r"line 8, entries\[1\]\.licence: must be a text"):
        read_catalog(write(tmp_path, merged))


@pytest.mark.parametrize("text", ["schema: 1\nentries: " + "[" * 1200, "schema: 1\nentries: 2001-99-99\n"])
def test_values_that_break_the_reader_are_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError, match="a value that cannot be read"):
        read_catalog(write(tmp_path, text))


def test_an_entry_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for number, entry in enumerate(read_catalog(path)):
        again = tmp_path / f"{number}.yaml"
        again.write_text(
            json.dumps({"schema": 1, "entries": [to_mapping(entry)]}).replace('"4":', "4:").replace('"2":', "2:")
        )
        assert read_catalog(again) == (entry,)
