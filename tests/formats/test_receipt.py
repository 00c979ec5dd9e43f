"""A bench receipt says what was measured, and nothing else can be made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from receipts import SIDECAR_SHA256, arm, case, receipt

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.receipt import CertificateRecord, Divergence
from skulk_core.formats.receipt_reading import read_receipt

Change = dict[str, Any]


def written(folder: Path, data: Any) -> Path:
    file = folder / "bench.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def test_an_arm_whose_text_was_wrong_cannot_pass_for_one_that_won(tmp_path: Path) -> None:
    worst = Divergence(0, 5, 1, 2, 3.0)
    wrong = arm(1, 3.0, certificate=CertificateRecord(2, 400, 1, worst, 0.01, 1e-5))
    file = tmp_path / "bench.json"
    file.write_text(receipt(cases=(case(arms=(arm(0, 1.0), wrong)),)).to_json(), encoding="utf-8")
    with pytest.raises(FormatError, match="failed: is null"):
        read_receipt(file)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Otherwise a card, a comparison or README would quote other figures than were measured."""
    file = tmp_path / "bench.json"
    file.write_text(receipt().to_json(), encoding="utf-8")
    assert read_receipt(file) == receipt()


def test_speed_times_time_is_tokens() -> None:
    """Must hold of every sample, or the speed is of something else."""
    for one in receipt().cases[0].arms:
        for sample in one.samples:
            assert sample.tokens_per_s * sample.decode_s == pytest.approx(sample.tokens)


def test_a_speed_up_pairs_texts_of_one_turn_and_prompt() -> None:
    """A ratio of medians would call drift of the machine, or a harder prompt, a gain."""
    measured = case()
    (third,) = [one for one in measured.arms if one.name == "depth 3"]
    found = measured.figures(third).speedup
    assert found is not None
    # every pair has the same ratio here, though turns and prompts differ by up to a third
    assert (found.least, found.median, found.greatest) == pytest.approx((1.92, 1.92, 1.92))
    assert measured.best is third


def test_a_failed_arm_has_no_speed_up_and_is_not_the_best() -> None:
    """A fast arm with a wrong text would be recommended."""
    wrong = case(arms=(arm(0, 1.0), arm(1, 1.4), arm(2, 3.0, failed="token 5 is another")))
    assert wrong.figures(wrong.arms[2]).speedup is None
    assert wrong.best is wrong.arms[1]


def test_of_depths_that_are_alike_the_shallower_is_best() -> None:
    alike = case(arms=(arm(0, 1.0), arm(1, 1.79), arm(2, 1.8)))
    assert alike.best is alike.arms[1]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda data: data.update(schema=2), "schema"),
        (lambda data: data.update(kind="other"), "kind"),
        (lambda data: data.pop("machine"), "machine"),
        (lambda data: data.update(extra=1), "extra"),
        (lambda data: data["cases"][0]["arms"][2].pop("figures"), "figures"),
        (lambda data: data["cases"][0]["arms"][2]["figures"]["speedup"].update(median=3.0), "samples give"),
        (lambda data: data["cases"][0]["arms"][2]["samples"][0].update(decode_s=0), "took no time"),
        (lambda data: data["cases"][0]["arms"][2]["samples"][0].update(decode_s="1"), "decode_s"),
        (lambda data: data["cases"][0]["arms"][2]["counts"]["accepted_at"].__setitem__(0, 9999), "counts"),
        (lambda data: data["cases"][0]["arms"].append(data["cases"][0]["arms"][0]), "two arms"),
        (lambda data: data["cases"][0]["arms"][2].update(depth=True), "depth"),
    ],
)
def test_a_receipt_that_was_changed_is_refused(tmp_path: Path, change: Any, where: str) -> None:
    """Figures that nobody measured could be published as evidence."""
    data = receipt().to_dict()
    change(data)
    with pytest.raises(FormatError, match=where):
        read_receipt(written(tmp_path, data))


def test_what_is_no_receipt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        read_receipt(tmp_path / "none.json")
    with pytest.raises(FormatError, match="kind"):
        read_receipt(written(tmp_path, {"schema": 1, "model": "demo", "arms": []}))


def test_it_names_the_sidecar_by_digest() -> None:
    sidecar = receipt().to_dict()["sidecar"]
    assert sidecar["sha256"] == SIDECAR_SHA256
