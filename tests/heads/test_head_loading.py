"""What is refused before any decoding, and by which name; precisions and packed heads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten
from tiny_checkpoints import Tensors, save, split_experts, torch_model
from tiny_heads import RecordingSampler, TorchHead, metadata, write_sidecar
from tiny_models import VOCAB, random_tokens, relative_error

from skulk_core.errors import ConventionsUnknown, FileError, OptionError, SidecarError
from skulk_core.heads.files import own_head, sidecar_head
from skulk_core.heads.loading import PRECISIONS, LoadedHead, load_head, resolve_precision
from skulk_core.heads.qwen_mtp import LAYOUT
from skulk_core.models.loading import LoadedModel, load, outline
from skulk_core.sampling.base import Place
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

RELEASED = Conventions(norm_offset=1.0)
EVERY_CONVENTION = {
    "norm_offset": 0.0,
    "concat_order": ConcatOrder.HIDDEN_FIRST,
    "hidden_tap": HiddenTap.PRE_NORM,
    "chain_tap": ChainTap.PRE_NORM,
    "position_rule": PositionRule.RUNNING,
}


@dataclass(frozen=True)
class Pair:
    """A loaded trunk and the tensors of a head that fits it."""

    trunk: Any
    model: LoadedModel
    tensors: Tensors

    def head(self, file: Path, **options: Any) -> LoadedHead:
        return load_head(self.model, sidecar_head(file), **options)


def pair(family: str, folder: Path) -> Pair:
    trunk = torch_model(family, seed=5)
    return Pair(trunk, load(save(trunk, folder), "float32"), TorchHead(trunk).tensors())


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair("qwen3_5", tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair("qwen3_5_moe", tmp_path_factory.mktemp("sparse"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair("llama", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mtp.safetensors"


def draft_logits(model: LoadedModel, head: LoadedHead) -> mx.array:
    """Logits of four drafts after a text."""
    text, target = random_tokens(24, seed=6), model.target
    hidden = target.hidden(target.run(target.embed(text[:-1], 0), target.make_caches()))
    head.head.reset()
    head.head.ingest(hidden, text[1:])
    sampler = RecordingSampler()
    assert head.head.draft(4, sampler, Place(0)).depth == 4
    return mx.stack(sampler.logits)


def without(name: str, tensors: Tensors) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("field", "value", "ours"), [("hidden_size", 4096, 64), ("vocab_size", 32000, VOCAB), ("num_layers", 61, 4)]
)
def test_a_sidecar_of_another_trunk_is_refused_by_its_metadata(
    field: str, value: int, ours: int, dense: Pair, file: Path
) -> None:
    """Otherwise a head of another model loads where shapes happen to agree, and nothing it drafts is accepted."""
    write_sidecar(file, dense.tensors, metadata(dense.trunk, RELEASED, **{field: value}))
    with pytest.raises(SidecarError, match=f"{field} {value} .*someone/tiny.* has {ours}") as caught:
        dense.head(file)
    assert caught.value.path == file


def test_a_sidecar_of_another_size_is_refused_by_its_shapes(dense: Pair, file: Path) -> None:
    """Otherwise a sidecar without metadata for another size of the same model ends in a traceback."""
    tensors = {name: torch.cat([x, x]) if name == "mtp.norm.weight" else x for name, x in dense.tensors.items()}
    write_sidecar(file, tensors)
    with pytest.raises(SidecarError, match=r"mtp\.norm\.weight is \[128\] and this model needs \[64\]") as caught:
        dense.head(file)
    assert caught.value.tensors == ("norm.weight",)


@pytest.mark.parametrize("name", ["mtp.fc.weight", "mtp.norm.weight", "mtp.layers.0.self_attn.q_norm.weight"])
def test_a_missing_tensor_is_named(name: str, dense: Pair, file: Path) -> None:
    """Otherwise a part of the head stays random and nothing it drafts is accepted."""
    write_sidecar(file, without(name, dense.tensors))
    with pytest.raises(SidecarError, match=f"lacks {name}$"):
        dense.head(file)


def test_a_surplus_tensor_is_named(dense: Pair, file: Path) -> None:
    """Otherwise a head with more layers than are run would draft with the first of them only."""
    write_sidecar(file, {**dense.tensors, "mtp.layers.1.mlp.up_proj.weight": torch.zeros(2, 2)})
    with pytest.raises(SidecarError, match=r"does not: mtp\.layers\.1\.mlp\.up_proj\.weight"):
        dense.head(file)


def test_many_missing_tensors_are_counted(dense: Pair, sparse: Pair, file: Path) -> None:
    """Otherwise the dense head of a sparse trunk fills the terminal with names."""
    write_sidecar(file, dense.tensors)
    with pytest.raises(SidecarError, match=r"lacks mtp\.layers\.0\.mlp\.gate\.weight, .* and \d+ more") as caught:
        sparse.head(file)
    assert len(caught.value.tensors) > 6


def test_a_missing_expert_is_told(sparse: Pair, file: Path) -> None:
    """Otherwise the experts after it take each other's places."""
    tensors = split_experts(sparse.tensors)
    write_sidecar(file, without("mtp.layers.0.mlp.experts.2.up_proj.weight", tensors))
    with pytest.raises(SidecarError, match=r"switch_mlp\.up_proj\.weight is \[5, 64, 64\] .* needs \[6, 64, 64\]"):
        sparse.head(file)


def test_a_tensor_of_integers_is_refused(dense: Pair, file: Path) -> None:
    """Otherwise 8-bit floats, which arrive as integers, are multiplied as if they were numbers."""
    name = "mtp.fc.weight"
    write_sidecar(file, {**dense.tensors, name: dense.tensors[name].to(torch.float8_e4m3fn)})
    with pytest.raises(SidecarError, match=r"mtp\.fc\.weight is stored as"):
        dense.head(file)


@pytest.mark.parametrize("kept", [0.9, 0.01])
def test_a_truncated_file_is_told(kept: float, dense: Pair, file: Path) -> None:
    """Otherwise an interrupted download shows as a traceback."""
    content = write_sidecar(file, dense.tensors).read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FileError, match="truncated"):
        sidecar_head(file)


def test_a_file_without_a_known_head_is_told(dense: Pair, file: Path) -> None:
    """Otherwise any safetensors file could be chosen as a sidecar."""
    write_sidecar(file, {"model.layers.61.eh_proj.weight": torch.zeros(4, 8)})
    with pytest.raises(SidecarError, match="layout known here") as caught:
        dense.head(file)
    assert caught.value.tensors == ("model.layers.61.eh_proj.weight",)


def test_a_plain_trunk_does_not_say_how_a_head_is_wired(plain: Pair, file: Path) -> None:
    """Otherwise a guess would decide, and be wrong without a word."""
    write_sidecar(file, plain.tensors)
    with pytest.raises(ConventionsUnknown, match="no metadata"):
        plain.head(file)
    for name in EVERY_CONVENTION:
        with pytest.raises(ConventionsUnknown):
            plain.head(file, overrides={key: value for key, value in EVERY_CONVENTION.items() if key != name})
    head = plain.head(file, overrides=EVERY_CONVENTION)
    assert head.conventions == Conventions(**EVERY_CONVENTION)
    assert head.conventions_from.startswith("options")
    draft_logits(plain.model, head)


def test_the_catalog_settles_what_the_file_does_not_say(plain: Pair, dense: Pair, file: Path) -> None:
    """Otherwise sidecars of other publishers are wired as their trunk's release, which they need not be."""
    known = Conventions(**EVERY_CONVENTION)
    for each in (plain, dense):
        head = each.head(write_sidecar(file, each.tensors), known=known)
        assert (head.conventions, head.conventions_from) == (known, "catalog")
    write_sidecar(file, dense.tensors, metadata(dense.trunk, RELEASED))
    assert dense.head(file, known=known).conventions == RELEASED


# by precision: greatest relative error of the drafts' logits
LOSSES = {"float32": 1e-6, "auto": 1e-6, "trunk": 1e-6, "float16": 0.01, "bfloat16": 0.05, "8bit": 0.05, "4bit": 0.6}


@pytest.mark.parametrize("family", ["dense", "sparse"])
def test_every_precision_builds_and_drafts(family: str, file: Path, request: pytest.FixtureRequest) -> None:
    """Otherwise the setting that makes a head fast on one machine breaks it on another."""
    each: Pair = request.getfixturevalue(family)
    write_sidecar(file, each.tensors)
    heads = {precision: each.head(file, precision=precision) for precision in PRECISIONS}
    assert set(heads) == set(LOSSES)
    exact = draft_logits(each.model, heads["float32"])
    for precision, head in heads.items():
        assert relative_error(draft_logits(each.model, head)[:1], exact[:1]) <= LOSSES[precision], precision
        assert head.precision == ("trunk" if precision == "auto" else precision)
    assert heads["trunk"].nbytes == heads["float32"].nbytes == 2 * heads["bfloat16"].nbytes
    assert heads["8bit"].nbytes < 0.5 * heads["float32"].nbytes
    assert heads["4bit"].nbytes < heads["8bit"].nbytes


def test_an_unknown_precision_is_refused(dense: Pair, file: Path) -> None:
    """Otherwise a typing error is taken for the default."""
    write_sidecar(file, dense.tensors)
    with pytest.raises(OptionError, match="5bit"):
        dense.head(file, precision="5bit")


def packed(tensors: dict[str, mx.array], group_size: int, bits: int) -> dict[str, mx.array]:
    """``tensors`` with every large matrix packed, as mlx-lm's converter writes them."""
    out = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.shape[-1] % group_size or name.endswith("gate.weight"):
            out[name] = tensor
        else:
            stem = name.removesuffix(".weight")
            out |= dict(
                zip((name, f"{stem}.scales", f"{stem}.biases"), mx.quantize(tensor, group_size, bits), strict=True)
            )
    return out


def unpacked(tensors: dict[str, mx.array], group_size: int, bits: int) -> dict[str, mx.array]:
    """The matrices that ``tensors`` stand for."""
    out = {name: x for name, x in tensors.items() if not name.endswith((".scales", ".biases"))}
    for name in out:
        stem = name.removesuffix(".weight")
        if f"{stem}.scales" in tensors:
            scales, biases = tensors[f"{stem}.scales"], tensors[f"{stem}.biases"]
            out[name] = mx.dequantize(out[name], scales, biases, group_size, bits)
    return out


def converted_head(tensors: Tensors, *, single_experts: bool = False) -> dict[str, mx.array]:
    """A head's tensors with the norms' one added, experts as mlx-lm names them or one by one."""
    torch_tensors = split_experts({name: x + (x.ndim == 1) for name, x in tensors.items()})
    arrays = {name: mx.array(tensor.numpy()) for name, tensor in torch_tensors.items()}
    if single_experts:
        return arrays
    stacked: dict[str, list[mx.array]] = {}
    for name in [name for name in arrays if ".experts." in name]:
        prefix, _, rest = name.partition(".experts.")
        stacked.setdefault(f"{prefix}.switch_mlp.{rest.partition('.')[2]}", []).append(arrays.pop(name))
    return arrays | {name: mx.stack(parts) for name, parts in stacked.items()}


def save_packed(each: Pair, head: dict[str, mx.array], folder: Path) -> LoadedModel:
    """A packed trunk with ``head`` in its file, loaded."""
    # as the files name them: what was read may be stored otherwise
    model = outline(each.model.headers.folder, "float32").target.model
    arrays = packed(dict(tree_flatten(model.parameters())), 32, 8)
    arrays |= {f"language_model.{name}": array for name, array in head.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    for config in each.model.headers.folder.glob("*.json"):
        content = config.read_text(encoding="utf-8")
        if config.name == "config.json":
            content = '{"quantization": {"group_size": 32, "bits": 8},' + content.removeprefix("{")
        (folder / config.name).write_text(content, encoding="utf-8")
    return load(folder, "float32")


@pytest.mark.parametrize("single_experts", [False, True])
@pytest.mark.parametrize("family", ["dense", "sparse"])
def test_a_packed_head_in_its_checkpoint_drafts_what_its_weights_say(
    family: str, single_experts: bool, tmp_path: Path, file: Path, request: pytest.FixtureRequest
) -> None:
    """Otherwise the quantised models most people run are decoded without the head that came with them."""
    each: Pair = request.getfixturevalue(family)
    head = packed(converted_head(each.tensors, single_experts=single_experts), 64, 4)
    assert any(name.endswith(".scales") for name in head)
    model = save_packed(each, head, tmp_path)
    assert model.quantization == {"group_size": 32, "bits": 8}
    files = own_head(model.headers)
    assert files is not None
    loaded = load_head(model, files, precision="float32")
    assert loaded.conventions == Conventions(norm_offset=0.0)
    mx.save_safetensors(str(file), unpacked(head, 64, 4), {"format": "pt"})
    same = load_head(model, sidecar_head(file), precision="float32", overrides={"norm_offset": 0.0})
    assert relative_error(draft_logits(model, loaded), draft_logits(model, same)) <= 1e-4
    assert loaded.nbytes < 0.4 * same.nbytes


@pytest.mark.parametrize("family", ["dense", "sparse"])
def test_a_head_is_packed_as_its_trunk_is(
    family: str, tmp_path: Path, file: Path, request: pytest.FixtureRequest
) -> None:
    """Otherwise the head of a quantised model takes more memory than was planned for it."""
    each: Pair = request.getfixturevalue(family)
    model = save_packed(each, {}, tmp_path)
    files = sidecar_head(write_sidecar(file, each.tensors))
    like_trunk, exact = (load_head(model, files, precision=precision) for precision in ("trunk", "float32"))
    assert like_trunk.nbytes < 0.4 * exact.nbytes
    assert relative_error(draft_logits(model, like_trunk)[:1], draft_logits(model, exact)[:1]) <= 0.05


def test_what_auto_means_is_decided_by_trunk_and_device(dense: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the default loses acceptance to too few bits, or time to packed products on a CPU."""

    def auto(device: mx.DeviceType, **config: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(mx, "default_device", lambda: mx.Device(device))
            return resolve_precision(replace(dense.model, config=config), "auto", LAYOUT)

    assert auto(mx.gpu) == auto(mx.cpu) == "trunk"
    assert auto(mx.gpu, quantization={"group_size": 64, "bits": 8}) == "trunk"
    assert auto(mx.gpu, quantization={"group_size": 64, "bits": 4}) == "8bit"
    assert auto(mx.cpu, quantization={"group_size": 64, "bits": 4}) == "float32"


def test_a_packed_head_of_another_size_is_refused(dense: Pair, tmp_path: Path) -> None:
    """Otherwise a quantised head of another model ends in a traceback."""
    head = converted_head(dense.tensors)
    head["mtp.fc.weight"] = mx.zeros((256, 512))
    model = save_packed(dense, packed(head, 64, 4), tmp_path)
    files = own_head(model.headers)
    assert files is not None
    with pytest.raises(SidecarError, match=r"mtp\.fc"):
        load_head(model, files)


def test_a_head_in_a_plain_checkpoint_is_found_and_leaves_the_trunk_as_it_is(plain: Pair, tmp_path: Path) -> None:
    """mlx-lm knows no head in these families and would refuse the whole checkpoint for its tensors."""
    model = load(save(plain.trunk, tmp_path, more=plain.tensors), "float32")
    text = random_tokens(12, 3)
    with_head, without_head = (
        target.logits(target.norm(target.run(target.embed(text, 0), target.make_caches()).h))
        for target in (model.target, plain.model.target)
    )
    assert mx.array_equal(with_head, without_head)
    files = own_head(model.headers)
    assert files is not None
    assert set(files.names) == set(plain.tensors)
    loaded = load_head(model, files, overrides=EVERY_CONVENTION)
    assert loaded.conventions_from.startswith("options")


@pytest.mark.parametrize(
    ("changes", "message"), [({"layout": "nextn"}, "layout nextn"), ({"num_heads": 3}, "holds 3 heads")]
)
def test_metadata_that_names_another_head_is_refused(
    changes: dict[str, Any], message: str, dense: Pair, file: Path
) -> None:
    """The tensors' names alone could be read as a head that they are not."""
    write_sidecar(file, dense.tensors, replace(metadata(dense.trunk, RELEASED), **changes))
    with pytest.raises(SidecarError, match=message):
        dense.head(file)


def test_a_position_rule_that_the_layout_cannot_follow_is_refused(dense: Pair, file: Path) -> None:
    """Silently run another way it would only be slow."""
    write_sidecar(file, dense.tensors, metadata(dense.trunk, RELEASED))
    with pytest.raises(SidecarError, match="last_committed"):
        dense.head(file, overrides={"position_rule": PositionRule.LAST_COMMITTED})
