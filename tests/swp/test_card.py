"""The card of a sidecar: valid for the Hub, true to upstream's licence, and never a carrier of upstream's markup."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_writing import card_problems
from huggingface_hub import ModelCard
from receipts import arm, case, receipt
from sidecar_folder import SHA, SOURCE, write_folder

from skulk_core.errors import FormatError, LicenceUnknown, OtherSidecar
from skulk_core.formats.provenance import Licence, Manifest, Origin, SharedTensor
from skulk_core.formats.receipt import Receipt
from swp.card import render
from swp.licence import require_licence
from swp.publish import catalog_entry, sidecar_publication
from swp.receipt import best_depth, quotable_receipt

HOSTILE = (
    "evil\n---\nlicense: mit\n---\n# Heading\n\r\n| a | b |\n<script>alert(1)</script> {{ 7 * 7 }} {% raw %} {# x #} "
    "\n```\n`code` **bold** __under__ ~~no~~ [link](javascript:x) ![i](x) www.evil.io <!-- --> &lt; \\ \u2028 \u202e"
)


def body(card: str) -> str:
    return card.split("\n---\n", 1)[1]


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        (Licence("apache-2.0"), {"license": "apache-2.0"}),
        (Licence(("mit", "cc-by-4.0")), {"license": ["mit", "cc-by-4.0"]}),
        (
            Licence("other", "nvidia-open-model-license", "https://example.com/a?b=c#d"),
            {
                "license": "other",
                "license_name": "nvidia-open-model-license",
                "license_link": "https://example.com/a?b=c#d",
            },
        ),
        (Licence("mit", None, "LICENSE"), {"license": "mit", "license_link": "LICENSE"}),
    ],
)
def test_the_licence_is_upstreams_unchanged(tmp_path: Path, licence: Licence, fields: dict[str, object]) -> None:
    """Whoever relies on the card would otherwise use weights under terms that nobody gave."""
    card = render(write_folder(tmp_path, licence=licence))
    data = ModelCard(card).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == fields
    assert card_problems(card) == []


def test_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    data = ModelCard(render(write_folder(tmp_path))).data.to_dict()
    assert data["base_model"] == SOURCE
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "skulk"
    assert "multi-token-prediction" in data["tags"]


@pytest.mark.parametrize("word", ["no", "on", "null", "1.0", "2024-01-01", "0x1F", "~", "", " ", "#x", "a: b"])
def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path, word: str) -> None:
    """`license_name: no` is false to many readers."""
    card = render(write_folder(tmp_path, licence=Licence("other", word, "x")))
    assert ModelCard(card).data.license_name == word


def test_a_missing_licence_is_refused_unless_said_out_loud(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path, licence=Licence())
    with pytest.raises(LicenceUnknown, match=SOURCE):
        require_licence(manifest.licence, manifest.source, licence_unknown=False)
    require_licence(manifest.licence, manifest.source, licence_unknown=True)
    card = render(manifest)
    assert ModelCard(card).data.license == "unknown"
    assert "**Unknown.**" in card


def test_the_source_commit_is_pinned(tmp_path: Path) -> None:
    card = body(render(write_folder(tmp_path)))
    assert f"https://huggingface.co/{SOURCE}/tree/{SHA}" in card
    assert f"swp extract {SOURCE}@{SHA}\n" in card


def test_the_recipe_repeats_what_was_asked_for(tmp_path: Path) -> None:
    """Without them another person would get another file."""
    card = render(write_folder(tmp_path, layout_asked="qwen_mtp", compared=False))
    assert f"swp extract {SOURCE}@{SHA} --layout qwen_mtp --no-compare\n" in card


def test_every_tensor_has_its_place_and_digests(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path)
    rows = [line for line in render(manifest).splitlines() if line.startswith("| mtp.")]
    for tensor, row in zip(manifest.tensors, rows, strict=True):
        (piece,) = tensor.source
        for part in (tensor.name, tensor.sha256, piece.file, f"{piece.begin}–{piece.end}", piece.dtype, piece.sha256):
            assert part in row


def test_the_name_of_the_repository_is_in_the_commands(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path)
    assert "--sidecar org/tiny-mtp\n" in render(manifest, repo="org/tiny-mtp")
    assert "swp verify org/tiny-mtp\n" in render(manifest, repo="org/tiny-mtp")
    assert "--sidecar .\n" in render(manifest)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Origin.FETCHED, "Every byte was read from the source commit"),
        (Origin.ASSERTED, "**Asserted, not verified.**"),
        (Origin.VERIFIED, "compared with the source commit"),
    ],
)
def test_the_origin_is_said_plainly(tmp_path: Path, origin: Origin, words: str) -> None:
    assert words in body(render(write_folder(tmp_path, origin=origin)))


def test_shared_tensors_are_listed(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path)
    piece = manifest.tensors[0].source[0]
    shared = SharedTensor("mtp.embed", "model.embed_tokens.weight", 99, "whole", piece, piece)
    card = render(write_folder(tmp_path, shared=(shared,)))
    assert f"| mtp.embed | model.embed_tokens.weight | 99 | <code>{piece.sha256}</code> |" in card


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    """A checkpoint's author could otherwise give the card of somebody else another licence, a script or a link."""
    manifest = write_folder(
        tmp_path,
        source_repo=HOSTILE,
        layout=HOSTILE,
        layout_asked=HOSTILE,
        tool=f"swp {HOSTILE}",
        licence=Licence(("other", HOSTILE), HOSTILE, HOSTILE),
        licences={},
    )
    tensor = manifest.tensors[0]
    evil_piece = type(tensor.source[0])(HOSTILE, HOSTILE, HOSTILE, 0, 1, HOSTILE, (1,), "a" * 64)
    evil = type(tensor)(HOSTILE, HOSTILE, (1,), 1, "b" * 64, (evil_piece,), HOSTILE)
    card = render(replace(manifest, tensors=(evil,)))

    data = ModelCard(card).data
    assert data.license == ["other", HOSTILE]
    assert data.license_name == data.license_link == data.base_model == HOSTILE
    front, text = card.split("\n---\n", 1)
    assert "\n---" not in front
    assert front.isascii()
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    assert len(fences) == 4  # two blocks of commands, begun and ended by the template
    inside = {number for begin, end in (fences[:2], fences[2:]) for number in range(begin, end + 1)}
    prose = "\n".join(line for number, line in enumerate(lines) if number not in inside)
    for markup in ("<script", "{{", "{%", "`", "**bold", "__under", "](java", "www.evil", "&lt;", "<!--", "~~", "\\"):
        assert markup not in prose.replace("`provenance.json`", "").replace("`skulk-mtp`", ""), markup
    assert [line for line in lines if line.startswith(("# Head", "---", "license"))] == []
    assert all(line.isprintable() for line in lines)


def receipt_for(manifest: Manifest, **changes: Any) -> Receipt:
    """A benchmark of the very file that the manifest lists."""
    digest = next(file.sha256 for file in manifest.files if file.name == "mtp.safetensors")
    known = receipt()
    assert known.sidecar is not None
    return replace(known, sidecar=replace(known.sidecar, sha256=digest), **changes)


def test_a_bench_receipt_gives_measured_figures(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path / "x")
    file = tmp_path / "bench.json"
    file.write_text(receipt_for(manifest).to_json())
    found = quotable_receipt(file)
    card = render(manifest, receipt=found)
    assert "| depth 3 | 332.9 | 1.92 | 1.92–1.92 | 3.10 | 80% 80% 80% | 0 of 400 |" in card
    assert "2 prompts, 200 tokens each, 2 turns" in card
    assert best_depth(found) == 3
    assert "## Measured" not in render(manifest)


def test_a_depth_of_several_hosts_is_one_of_several(tmp_path: Path) -> None:
    """What pays over slow laps would be taken on one host, where it may not pay."""
    manifest = write_folder(tmp_path / "x")
    alone = catalog_entry(manifest, "org/x", receipt_for(manifest))
    assert (alone.default_depth, alone.depth_by_hosts) == (3, ())
    over = catalog_entry(manifest, "org/x", receipt_for(manifest, hosts=4))
    assert (over.default_depth, over.depth_by_hosts) == (None, ((4, 3),))


def test_every_case_of_a_suite_is_quoted(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path)
    card = render(manifest, receipt=receipt_for(manifest, cases=(case(), case(name="chat"), case(name=HOSTILE))))
    assert "| chat | depth 3 | 332.9 | 1.92 |" in card
    assert "<script" not in card


@pytest.mark.parametrize("digest", ["6" * 64, ""])
def test_a_receipt_of_another_sidecar_is_refused(tmp_path: Path, digest: str) -> None:
    """A card could otherwise boast of figures that another head reached."""
    manifest = write_folder(tmp_path)
    known = receipt()
    assert known.sidecar is not None
    other = replace(known, sidecar=replace(known.sidecar, sha256=digest))
    with pytest.raises(OtherSidecar, match=SOURCE):
        render(manifest, receipt=other)
    with pytest.raises(OtherSidecar):
        sidecar_publication(tmp_path, "org/tiny-mtp", receipt=other)
    with pytest.raises(OtherSidecar):
        render(manifest, receipt=replace(known, sidecar=None))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"complete": False}, "complete"),
        ({"cases": (case(arms=(arm(0, 1.0), arm(1, 2.0, failed="token 5"))),)}, "not plain decoding"),
        ({"cases": (case(arms=(arm(0, 1.0),)),)}, "no arm with a draft head"),
        ({"cases": ()}, "no arm with a draft head"),
        ({"hosts": 2, "link_delay_ms": 20.0}, "link_delay_ms: says that links were made to be 20 ms one way"),
        ({"hosts": 2, "link_rate_mbps": 100.0}, "link_rate_mbps: says that links were made to be 100 Mbit/s"),
    ],
)
def test_a_receipt_with_nothing_to_quote_is_refused(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    """A card must not quote figures that nobody measured, or of texts that were wrong."""
    file = tmp_path / "bench.json"
    file.write_text(receipt(**changes).to_json())
    with pytest.raises(FormatError, match=where):
        quotable_receipt(file)
