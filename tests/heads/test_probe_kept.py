"""A head is measured once: where the answer is kept, and when nobody asks for it again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import demo_heads
import pytest
from cli_checkpoints import DEMO, demo_with_own_head
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


def test_a_file_is_measured_once_whatever_it_is_called(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise every run begins with a wait."""
    first = settle(demo(), local(file))
    assert (first.conventions, first.probe, first.kept_in) == (WIRED, FOUND, probes_file())
    renamed = tmp_path / "elsewhere.safetensors"
    shutil.move(file, renamed)
    again = settle(demo(), local(renamed))
    assert (again.conventions, again.probe, counting.asked) == (WIRED, None, 1)
    head = load_head(demo(), sidecar_head(renamed), known=again.conventions, known_from=again.conventions_from)
    assert head.conventions == WIRED
    assert head.conventions_from == "a measurement on this machine, 68% of first drafts right"


def test_another_head_or_trunk_is_measured_anew(counting: Counting, file: Path) -> None:
    """Otherwise a head is wired as the one that stood in its place before."""
    settle(demo(), local(file))
    weights = demo_heads.weights()
    weights["mtp.fc.weight"][0, 0] += 1.0
    settle(demo(), local(demo_heads.write(file, weights, WIRED)))
    assert counting.asked == 2
    target = demo().target
    norm = target.text_model.model.norm
    before = norm.weight
    try:
        norm.weight = before + 1.0
        settle(demo(), local(file))
    finally:
        norm.weight = before
    assert counting.asked == 3
    settle(demo(), local(file))
    assert counting.asked == 3


def test_a_measurement_does_not_change_which_head_is_taken(counting: Counting, file: Path) -> None:
    """Otherwise trying a sidecar once makes it the model's own, and a copied entry hides later corrections of it."""
    entry = SidecarEntry(base="owner/base", repo=HEAD_REPO, licence="mit", layout="qwen_mtp", default_depth=3)
    for found in (from_hub(file), from_hub(file, entry)):
        probes_file().unlink(missing_ok=True)
        assert settle(demo(), found).kept_in == probes_file()
    assert not user_catalog().exists()


def test_what_measures_alike_is_not_called_measured(counting: Counting, file: Path) -> None:
    """Otherwise a guess passes for knowledge from the second run on."""
    other = Candidate(Conventions(norm_offset=0.0), 0.68, 0.72)
    counting.answer = replace(FOUND, candidates=(BEST, other), alike=(BEST, other))
    for said in (settle(demo(), local(file)), settle(demo(), local(file))):
        assert said.conventions == WIRED
        assert "could not tell 2 ways apart, of which this one is nearest to the releases" in said.conventions_from
    assert counting.asked == 1


def test_where_nothing_can_be_written_the_run_goes_on(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise a read-only home directory forbids decoding."""
    (tmp_path / "config").write_text("not a folder")
    kept = settle(demo(), local(file))
    assert (kept.conventions, kept.kept_in) == (WIRED, None)
    assert "cannot be written" in kept.not_kept


def test_what_was_kept_and_is_broken_is_named(counting: Counting, file: Path) -> None:
    """Otherwise a half-written file wires heads at random, or ends in a traceback."""
    settle(demo(), local(file))
    kept = probes_file()
    for old, new, where in (
        ('"hidden_first"', '"hiden_first"', r"probes\[0\]\.conventions\.concat_order: .*hidden_first"),
        ('"schema": 1', '"schema": 2', "schema: is 2; this program reads schema 1"),
        ('"agreement"', '"agrement"', r"probes\[0\]\.agrement: unknown key"),
    ):
        text = kept.read_text()
        kept.write_text(text.replace(old, new))
        with pytest.raises(FormatError, match=where):
            settle(demo(), local(file))
        kept.write_text(text)


def test_nothing_is_measured_of_what_somebody_says(counting: Counting, file: Path, tmp_path: Path) -> None:
    """Otherwise heads that say how they are wired cost a wait, too."""
    catalog = settle(demo(), replace(local(file), conventions=WIRED))
    assert (catalog.conventions, catalog.conventions_from) == (WIRED, "catalog")
    found = find_head(HERE, demo().headers, None, NOBODY)
    assert isinstance(found, HeadFound)
    assert settle(demo(), found).conventions is None
    options = {name: getattr(WIRED, name) for name in CONVENTION_NAMES}
    assert settle(demo(), local(file), overrides=options).conventions is None
    # the release says the rest
    assert settle(demo(), local(file), overrides={"norm_offset": 0.0}).conventions is None
    from skulk_core.models.loading import load

    folder = demo_with_own_head(tmp_path / "model")
    model = load(folder, "float32")
    own = find_head(ModelSource(FolderRef(folder), folder), model.headers, None, NOBODY)
    assert isinstance(own, HeadFound)
    assert settle(model, own).conventions is None
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
    kept = settle(unreleased(monkeypatch), local(file), overrides=given)
    assert (counting.options["fixed"], kept.kept_in) == (given, None)
    assert not probes_file().exists()


def test_a_model_that_writes_too_little_takes_the_release_or_asks(
    counting: Counting, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a guess is kept as if it had been measured."""
    counting.answer = ConventionsUnknown(file, "cannot be measured")
    released = settle(demo(), local(file))
    assert released.conventions == Conventions(norm_offset=1.0)
    assert "writes too little to measure by" in released.conventions_from
    with pytest.raises(ConventionsUnknown):
        settle(unreleased(monkeypatch), local(file))
    assert not probes_file().exists()


def test_a_dead_head_is_refused_and_not_remembered(counting: Counting, file: Path) -> None:
    """Otherwise it is used as if it were wired somehow."""
    counting.answer = replace(FOUND, picked=None, alike=())
    with pytest.raises(HeadDoesNotFit, match=r"mtp\.safetensors: no candidate"):
        settle(demo(), local(file))
    assert not probes_file().exists()


def test_a_model_without_a_head_has_nothing_to_measure() -> None:
    """The demo's trunk, as a quantised download is: without a head."""
    assert isinstance(find_head(ModelSource(FolderRef(DEMO), DEMO), demo().headers, None, NOBODY), NoHead)
