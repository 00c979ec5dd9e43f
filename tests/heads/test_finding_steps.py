"""Where a head was looked for: what `skulk run --verbose` tells of the catalog."""

from pathlib import Path

from skulk_core.catalog import Catalog, Fingerprint, SidecarEntry
from skulk_core.heads.finding import NoHead, find_head
from skulk_core.hub.headers import CheckpointHeaders
from skulk_core.hub.refs import FolderRef
from skulk_core.hub.sources import ModelSource

SHAPE = '{"model_type": "x", "hidden_size": 8, "vocab_size": 99, "num_hidden_layers": 2}'


def test_every_step_is_told_where_nothing_is_found(tmp_path: Path) -> None:
    """Two bases of one shape: the person learns which two, and can choose with --sidecar."""
    folder = tmp_path / "my-tune"
    folder.mkdir()
    (folder / "config.json").write_text(SHAPE)
    shape = Fingerprint(model_type="x", hidden_size=8, vocab_size=99, num_hidden_layers=2)
    entries = tuple(
        SidecarEntry(base=base, repo=f"{base}-mtp", licence="mit", layout="qwen_mtp", fingerprint=shape)
        for base in ("a/One", "a/Two")
    )
    source = ModelSource(FolderRef(folder), folder)
    found = find_head(source, CheckpointHeaders(folder, ()), None, Catalog(entries))
    assert isinstance(found, NoHead)
    assert [step.partition(":")[0] for step in found.steps] == ["listed", "base_model", "config", "name"]
    assert (
        "the catalog (its configuration (x, hidden_size 8, vocab_size 99, num_hidden_layers 2) is that of a/One"
        in (found.looked_in[1])
    )
