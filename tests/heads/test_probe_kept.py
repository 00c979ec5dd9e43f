"""A head is measured once: where the answer is kept, and when nobody asks for it again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import demo_heads
import pytest
from cli_checkpoints import DEMO, demo_copy, demo_with_own_head
from demo import demo

from skulk_core.catalog import Catalog, SidecarEntry, user_catalog
from skulk_core.errors import ConventionsUnknown, FormatError, HeadDoesNotFit
from skulk_core.heads import wiring
from skulk_core.heads.files import sidecar_head
from skulk_core.heads.finding import HeadFound, NoHead, find_head
from skulk_core.heads.loading import load_head
from skulk_core.heads.verdict import Candidate, Probe
from skulk_core.heads.wiring import probes_file, settle
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef
from skulk_core.hub.snapshot import Snapshot
from skulk_core.hub.sources import ModelSource
from skulk_core.models.loading import LoadedModel
from skulk_core.types import CONVENTION_NAMES, ConcatOrder, Conventions, HiddenTap

WIRED = Conventions(norm_offset=0.0, concat_order=ConcatOrder.HIDDEN_FIRST)
BEST = Candidate(WIRED, 0.68, 0.73)
FOUND = Probe((BEST,), BEST, (BEST,), 335, 0.07)
NOBODY = Catalog(())
HEAD_REPO = "someone/a-head"


class Counting:
    """A probe that knows the answer, and counts how often it was asked."""

    def __init__(self, answer: Probe | Exception = FOUND) -> None:
        self.answer, self.asked = answer, 0

    def __call__(self, *_: Any, **options: Any) -> Probe:
        self.asked += 1
        self.options = options
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counting:
    probe = Counting()
    monkeypatch.setattr(wiring, "probe", probe)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return probe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return demo_heads.write(tmp_path / "mtp.safetensors", demo_heads.weights(), WIRED)


HERE = ModelSource(DemoRef(), DEMO)


def local(file: Path, source: ModelSource = HERE) -> HeadFound:
    found = find_head(source, demo().headers, FileRef(file), NOBODY)
    assert isinstance(found, HeadFound)
    return found


def from_hub(file: Path, entry: SidecarEntry | None = None) -> HeadFound:
    return replace(local(file), snapshot=Snapshot(file.parent, HEAD_REPO, "a" * 40), entry=entry)


def snapshot_of(model: str, tmp_path: Path) -> ModelSource:
    """A checkpoint in the Hub's cache, which has its repository's name."""
    folder = tmp_path / f"models--{model.replace('/', '--')}" / "snapshots" / ("b" * 40)
    folder.parent.mkdir(parents=True)
    return ModelSource(FolderRef(folder), demo_copy(folder))


def test_a_file_is_measured_once_whatever_it_is_called(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise every run begins with a wait."""
    first = settle(demo(), HERE, local(file), NOBODY)
    assert (first.conventions, first.probe, first.kept_in) == (WIRED, FOUND, probes_file())
    renamed = tmp_path / "elsewhere.safetensors"
    shutil.move(file, renamed)
    again = settle(demo(), HERE, local(renamed), NOBODY)
    assert (again.conventions, again.probe, counting.asked) == (WIRED, None, 1)
    head = load_head(demo(), sidecar_head(renamed), known=again.conventions, known_from=again.conventions_from)
    assert head.conventions == WIRED
    assert head.conventions_from == "a measurement on this machine, 68% of first drafts right"


def test_another_head_or_trunk_is_measured_anew(counting: Counting, file: Path) -> None:
    """Otherwise a head is wired as the one that stood in its place before."""
    settle(demo(), HERE, local(file), NOBODY)
    weights = demo_heads.weights()
    weights["mtp.fc.weight"][0, 0] += 1.0
    settle(demo(), HERE, local(demo_heads.write(file, weights, WIRED)), NOBODY)
    assert counting.asked == 2
    target = demo().target
    norm = target.text_model.model.norm
    before = norm.weight
    try:
        norm.weight = before + 1.0
        settle(demo(), HERE, local(file), NOBODY)
    finally:
        norm.weight = before
    assert counting.asked == 3
    settle(demo(), HERE, local(file), NOBODY)
    assert counting.asked == 3


def test_a_head_of_the_hub_is_filed_under_its_model(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise the answer is lost on the next machine that a catalog is copied to."""
    source = snapshot_of("owner/tiny", tmp_path)
    kept = settle(demo(), source, from_hub(file), NOBODY)
    assert kept.kept_in == user_catalog()
    entry = Catalog.load(DEMO.parent.parent.parent / "catalog.yaml", user_catalog()).entry_of(HEAD_REPO)
    assert isinstance(entry, SidecarEntry)
    assert (entry.base, entry.conventions, entry.revision) == ("owner/tiny", WIRED, "a" * 40)
    assert entry.layout == "qwen_mtp"
    assert not probes_file().exists()


def test_an_entry_that_lacks_conventions_is_completed(counting: Counting, file: Path) -> None:
    """Otherwise what else the entry says, the depth for one, is lost with the measurement."""
    entry = SidecarEntry(base="owner/base", repo=HEAD_REPO, licence="mit", layout="qwen_mtp", default_depth=3)
    kept = settle(demo(), HERE, from_hub(file, entry), Catalog((entry,)))
    assert kept.kept_in == user_catalog()
    (written,) = Catalog.load(user_catalog(), None).entries
    assert written == replace(entry, conventions=WIRED)


def test_a_measurement_does_not_change_which_head_is_taken(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise trying a sidecar once makes it the model's own for good."""
    listed = SidecarEntry(
        base="owner/tiny", repo="owner/tiny-mtp", licence="mit", layout="qwen_mtp", conventions=Conventions()
    )
    kept = settle(demo(), snapshot_of("owner/tiny", tmp_path), from_hub(file), Catalog((listed,)))
    assert kept.kept_in == probes_file()
    assert not user_catalog().exists()


def test_where_nothing_can_be_written_the_run_goes_on(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise a read-only home directory forbids decoding."""
    (tmp_path / "config").write_text("not a folder")
    kept = settle(demo(), HERE, local(file), NOBODY)
    assert (kept.conventions, kept.kept_in) == (WIRED, None)
    assert "cannot be written" in kept.not_kept


def test_what_was_kept_and_is_broken_is_named(counting: Counting, file: Path) -> None:
    """Otherwise a half-written file wires heads at random, or ends in a traceback."""
    settle(demo(), HERE, local(file), NOBODY)
    kept = probes_file()
    for old, new, where in (
        ('"hidden_first"', '"hiden_first"', r"probes\[0\]\.conventions\.concat_order: .*hidden_first"),
        ('"schema": 1', '"schema": 2', "schema: is 2; this program reads schema 1"),
        ('"agreement"', '"agrement"', r"probes\[0\]\.agrement: unknown key"),
    ):
        text = kept.read_text()
        kept.write_text(text.replace(old, new))
        with pytest.raises(FormatError, match=where):
            settle(demo(), HERE, local(file), NOBODY)
        kept.write_text(text)


def test_nothing_is_measured_of_what_somebody_says(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise heads that say how they are wired cost a wait, too."""
    catalog = settle(demo(), HERE, replace(local(file), conventions=WIRED), NOBODY)
    assert (catalog.conventions, catalog.conventions_from) == (WIRED, "catalog")
    found = find_head(HERE, demo().headers, None, NOBODY)
    assert isinstance(found, HeadFound)
    assert settle(demo(), HERE, found, NOBODY).conventions is None
    options = {name: getattr(WIRED, name) for name in CONVENTION_NAMES}
    assert settle(demo(), HERE, local(file), NOBODY, overrides=options).conventions is None
    # the release says the rest
    assert settle(demo(), HERE, local(file), NOBODY, overrides={"norm_offset": 0.0}).conventions is None
    from skulk_core.models.loading import load

    folder = demo_with_own_head(tmp_path / "model")
    model = load(folder, "float32")
    own = find_head(ModelSource(FolderRef(folder), folder), model.headers, None, NOBODY)
    assert isinstance(own, HeadFound)
    assert settle(model, HERE, own, NOBODY).conventions is None
    assert counting.asked == 0


def unreleased(monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """The demo's model as one of a family that was never released with a head."""
    monkeypatch.setattr(type(demo().target), "released_conventions", None)
    return demo()


def test_where_no_release_says_the_rest_it_is_measured(
    counting: Counting, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one convention on the command line asks for the four others."""
    given = {"hidden_tap": HiddenTap.PRE_NORM}
    kept = settle(unreleased(monkeypatch), HERE, local(file), NOBODY, overrides=given)
    assert (counting.options["fixed"], kept.kept_in) == (given, None)
    assert not probes_file().exists()


def test_a_model_that_writes_too_little_takes_the_release_or_asks(
    counting: Counting, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a guess is kept as if it had been measured."""
    counting.answer = ConventionsUnknown(file, "cannot be measured")
    released = settle(demo(), HERE, local(file), NOBODY)
    assert released.conventions == Conventions(norm_offset=1.0)
    assert "writes too little to measure by" in released.conventions_from
    with pytest.raises(ConventionsUnknown):
        settle(unreleased(monkeypatch), HERE, local(file), NOBODY)
    assert not probes_file().exists()


def test_a_dead_head_is_refused_and_not_remembered(counting: Counting, file: Path) -> None:
    """Otherwise it is used as if it were wired somehow."""
    counting.answer = replace(FOUND, picked=None, alike=())
    with pytest.raises(HeadDoesNotFit, match=r"mtp\.safetensors: no candidate"):
        settle(demo(), HERE, local(file), NOBODY)
    assert not probes_file().exists()


def test_a_model_without_a_head_has_nothing_to_measure() -> None:
    """The demo's trunk, as a quantised download is: without a head."""
    assert isinstance(find_head(ModelSource(FolderRef(DEMO), DEMO), demo().headers, None, NOBODY), NoHead)
