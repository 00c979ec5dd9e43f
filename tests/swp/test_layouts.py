"""Every upstream layout, as it is released: the head and nothing but the head is found, whole."""

from dataclasses import replace
from pathlib import Path

import pytest
from cli_checkpoints import Tensor
from swp_extracting import SOURCE, extract_here, shipped
from upstream_checkpoints import LAYOUTS, Maker, config, deepseek, deepseek_v4, mimo_v2, qwen, step, trunk, write
from upstream_checkpoints import write_tensors as write_any

from cli.errors import advice
from skulk_core.errors import NothingToExtract, OptionError, StrippedCheckpoint, UnknownHead, UnsupportedTensor
from skulk_core.formats.head_names import layout_of
from skulk_core.formats.sidecar import SidecarMetadata, from_strings
from skulk_core.hub.headers import read_headers, read_metadata
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap
from swp.layouts.registry import layout, layout_names


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_whole_head_is_shipped_bit_for_bit_and_nothing_else(name: str, num_shards: int, tmp_path: Path) -> None:
    """A tensor that is lost, or one of the trunk's too many, makes a sidecar that does not load."""
    built = LAYOUTS[name]()
    manifest = extract_here(write(tmp_path / "up", built, num_shards), tmp_path / "out")
    assert shipped(tmp_path / "out") == built.shipped
    assert {one.name for one in manifest.shared} == set(built.shared)
    assert (manifest.layout, manifest.num_heads) == (built.layout, built.num_heads)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_sidecar_says_what_a_loader_must_know(name: str, tmp_path: Path) -> None:
    built = LAYOUTS[name]()
    extract_here(write(tmp_path / "up", built), tmp_path / "out")
    file = tmp_path / "out" / "mtp.safetensors"
    said = from_strings(file, read_metadata(file))
    assert isinstance(said, SidecarMetadata)
    assert (said.layout, said.num_heads) == (built.layout, built.num_heads)
    assert (said.source_repo, said.source_sha) == tuple(SOURCE.split("@"))
    assert set(said.shared_tensors) == set(built.shared)
    assert (said.trunk.hidden_size, said.trunk.vocab_size, said.trunk.num_layers) == (8, 24, 2)
    assert said.trunk.rope_theta == (None if built.layout == "nemotron_h" else 10000.0)
    assert said.conventions == manifest_conventions(built.layout)
    assert len(read_headers(file)) == len(built.shipped)


def manifest_conventions(name: str) -> Conventions:
    """How the families are wired, by their publishers' code."""
    different = {
        "qwen_mtp": {"norm_offset": 1.0},
        "step": {"norm_offset": 1.0, "chain_tap": ChainTap.PRE_NORM},
        "deepseek_v4": {"hidden_tap": HiddenTap.PRE_NORM, "chain_tap": ChainTap.PRE_NORM},
        "ernie": {"chain_tap": ChainTap.PRE_NORM},
        "mimo": {
            "concat_order": ConcatOrder.HIDDEN_FIRST,
            "hidden_tap": HiddenTap.PRE_NORM,
            "chain_tap": ChainTap.PRE_NORM,
        },
    }
    return replace(Conventions(), **different.get(name, {}))


def test_layouts_are_called_by_the_names_that_loaders_use() -> None:
    """A layout by another name is a sidecar that `skulk` refuses."""
    assert [layout(name).name for name in layout_names()] == list(layout_names())
    assert layout_of(list(qwen().head)) == "qwen_mtp"


def test_a_stripped_checkpoint_says_so_and_where_the_original_is(tmp_path: Path) -> None:
    built = replace(qwen(), head={})
    card = "---\nbase_model: owner/original\nlicense: mit\n---\n"
    with pytest.raises(StrippedCheckpoint, match=r"promises 1 draft head") as caught:
        extract_here(write(tmp_path / "up", built, card=card), tmp_path / "out")
    assert caught.value.originals[0] == "owner/original"
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_lost_one_of_its_depths_is_stripped(tmp_path: Path) -> None:
    built = step()
    kept = {name: tensor for name, tensor in built.head.items() if not name.startswith("model.layers.4.")}
    with pytest.raises(StrippedCheckpoint, match="promises 3 depths, the files have 2"):
        extract_here(write(tmp_path / "up", replace(built, head=kept)), tmp_path / "out")


def test_gemma_4_names_its_assistant(tmp_path: Path) -> None:
    """The person would otherwise look for a head that was never released."""
    card = "---\nbase_model: google/gemma-4-E4B-it\nlicense: gemma\n---\n"
    sizes = {"hidden_size": 2560, "vocab_size": 262144, "num_hidden_layers": 42, "num_attention_heads": 8}
    text = {**config("gemma4_text"), **sizes}
    folder = write_any(tmp_path / "up", {"model_type": "gemma4", "text_config": text}, trunk(Maker(0)), card=card)
    with pytest.raises(NothingToExtract, match="google/gemma-4-E4B-it-assistant"):
        extract_here(folder, tmp_path / "out")
    with pytest.raises(NothingToExtract, match="itself a draft model") as caught:
        extract_here(write_any(tmp_path / "a", config("gemma4_assistant"), trunk(Maker(0))), tmp_path / "out")
    assert advice(caught.value)[0] == f"Draft with it: skulk run MODEL --sidecar {tmp_path / 'a'}."


def test_a_model_without_a_head_has_nothing_to_extract(tmp_path: Path) -> None:
    with pytest.raises(NothingToExtract, match="llama was released without a draft head"):
        extract_here(write_any(tmp_path / "up", config("llama"), trunk(Maker(0))), tmp_path / "out")


def test_the_later_v4_drafter_under_the_same_prefix_is_refused(tmp_path: Path) -> None:
    """Its tensors in a sidecar that says `deepseek_v4` would decode nonsense drafts."""
    make, built = Maker(0), deepseek_v4()
    built.head["mtp.0.main_proj.weight"] = make.bf16(8, 24)
    with pytest.raises(UnknownHead, match="DSpark"):
        extract_here(write(tmp_path / "up", built), tmp_path / "out")


@pytest.mark.parametrize(
    ("built", "tensor", "words"),
    [
        (qwen(), "mtp.layers.0.cross_attn.weight", "mtp.layers.0.cross_attn.weight is no part"),
        (deepseek(), "model.layers.2.adapter.weight", "model.layers.2.adapter.weight is no part"),
        (mimo_v2(), "model.mtp.layers.4.enorm.weight", "do not follow one another"),
    ],
)
def test_a_head_with_an_unknown_tensor_is_refused_by_name(
    built: object, tensor: str, words: str, tmp_path: Path
) -> None:
    built.head[tensor] = Maker(0).bf16(8)  # type: ignore[attr-defined]
    with pytest.raises(UnknownHead, match=words):
        extract_here(write(tmp_path / "up", built), tmp_path / "out")  # type: ignore[arg-type]


def test_a_head_without_a_tensor_that_it_needs_is_refused_by_name(tmp_path: Path) -> None:
    built = qwen()
    del built.head["mtp.norm.weight"]
    with pytest.raises(UnknownHead, match=r"norm\.weight is missing"):
        extract_here(write(tmp_path / "up", built), tmp_path / "out")


def test_a_head_that_mlx_has_quantised_is_refused(tmp_path: Path) -> None:
    built = qwen()
    built.head["mtp.fc.weight"] = Tensor("U32", (8, 2), bytes(64))
    built.head |= {"mtp.fc.scales": Maker(0).bf16(8, 1), "mtp.fc.biases": Maker(0).bf16(8, 1)}
    with pytest.raises((UnknownHead, UnsupportedTensor), match=r"mtp\.fc"):
        extract_here(write(tmp_path / "up", built), tmp_path / "out")


def test_a_known_head_on_an_unknown_family_is_taken_only_when_told(tmp_path: Path) -> None:
    """The names do not say how a head is wired: on a Llama trunk these norms are not centred on zero."""
    built = replace(qwen(), config=config("llama"))
    folder = write(tmp_path / "up", built)
    with pytest.raises(UnknownHead, match="--layout qwen_mtp"):
        extract_here(folder, tmp_path / "out")
    extract_here(folder, tmp_path / "out", layout="qwen_mtp")
    assert shipped(tmp_path / "out") == built.shipped


def test_layout_by_name_must_exist_and_fit(tmp_path: Path) -> None:
    folder = write(tmp_path / "up", qwen())
    with pytest.raises(OptionError, match="did you mean"):
        extract_here(folder, tmp_path / "out", layout="qwen_mpt")
    with pytest.raises(OptionError, match="does not fit"):
        extract_here(folder, tmp_path / "out", layout="nextn")
    assert extract_here(folder, tmp_path / "out", layout="qwen_mtp").layout_asked == "qwen_mtp"
