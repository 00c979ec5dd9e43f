"""Gemma 4 cut into stages, and its prompts cut into parts, where later layers read what earlier ones keep."""

from pathlib import Path

import mlx.core as mx
import pytest
from gemma4_tiny import SIZES, save_target, torch_target
from mlx_lm.convert import convert
from test_adapters import LENGTH, logits_in_passes
from tiny_models import assert_close, random_tokens

from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.models import parallel
from skulk_core.models.gemma4 import Gemma4Target
from skulk_core.models.loading import load
from skulk_core.types import LayerRange

TEXT = random_tokens(LENGTH, seed=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gemma4")
    return {size: save_target(torch_target(size, seed=5), folder / size, shards=2) for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
def test_stages_loaded_apart_are_the_whole(size: str, folders: dict[str, Path]) -> None:
    """Two hosts at the outermost legal cuts, and three: else a text depends on how many hosts it was decoded on."""
    whole = load(folders[size], "float32").target
    expected, points = whole.model(TEXT[None])[0], whole.split_points
    for cuts in ((points[0],), (points[-1],), (points[0], points[-1])):
        edges = [0, *cuts, whole.num_layers]
        ranges = [LayerRange(*edge) for edge in zip(edges, edges[1:], strict=False)]
        stages = [load(folders[size], "float32", layers).target for layers in ranges]
        assert_close(logits_in_passes(stages, TEXT), expected)


def test_no_cut_parts_a_layer_from_what_it_reads(folders: dict[str, Path]) -> None:
    """Nor an assistant, on the last host, from the last layers of both kinds with keys and values of their own."""
    points = {size: load(folder, "float32").target.split_points for size, folder in folders.items()}
    # E2B: sliding 3 and full 4 lend to 5..9; E4B: full 5 and sliding 6 to 7..11; others: the last two layers
    assert {size: each[-1] for size, each in points.items()} == {"E2B": 3, "E4B": 5, "12B": 4, "26B-A4B": 4, "31B": 10}
    assert all(each == tuple(range(1, each[-1] + 1)) for each in points.values())
    with pytest.raises(AssertionError, match="cuts layers from the K/V they read"):
        load(folders["E2B"], "float32", LayerRange(4, 10))


@pytest.mark.parametrize("bits", [None, 8])
def test_a_stage_holds_its_part_of_the_layers_table_only(
    bits: int | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    """It is the largest matrix of these models; whole on every host it would be what does not fit."""
    folder = folders["E2B"]
    if bits:
        convert(str(folder), mlx_path=str(tmp_path / "packed"), quantize=True, q_bits=bits, q_group_size=32)
        folder = tmp_path / "packed"
    whole = load(folder, "float32")
    stages = [load(folder, "float32", LayerRange(*ends)) for ends in ((0, 3), (3, 10))]
    trunk = whole.target.text_model.model
    on_both = [trunk.embed_tokens, trunk.per_layer_projection_norm]
    twice = sum(x.nbytes for module in on_both for x in module.parameters().values())
    assert sum(stage.nbytes for stage in stages) == whole.nbytes + twice
    logits = logits_in_passes([stage.target for stage in stages], TEXT)
    assert_close(logits, whole.target.model(TEXT[None])[0])


def test_layers_that_read_others_hold_nothing(folders: dict[str, Path]) -> None:
    """Otherwise the small sizes, made to need little memory for a long text, need twice as much."""
    target = load(folders["E2B"], "float32").target
    caches = target.make_caches()
    target.run(target.embed(TEXT, 0), caches)
    assert [isinstance(cache, BorrowedCache) for cache in caches] == [False] * 5 + [True] * 5
    assert caches.pending == LENGTH
    assert caches.nbytes == sum(cache.nbytes for cache in caches[:5])
    caches.commit(9)
    assert {cache.rows for cache in caches} == {9}


@pytest.mark.parametrize("last_row", [False, True])
@pytest.mark.parametrize("num_streams", [0, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_a_prompt_in_parts_is_the_prompt(
    size: str, num_streams: int, last_row: bool, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lender may be a part ahead when a borrower runs: it must see what the lender saw in its own part."""
    streams = tuple(mx.new_stream(mx.cpu) for _ in range(num_streams))
    monkeypatch.setattr(parallel, "_streams", lambda: streams)
    target = load(folders[size], "float32").target
    passes, position, caches = [300, 129, 1, 4], 0, target.make_caches()
    text = random_tokens(sum(passes), seed=5)
    expected = target.model(text[None])[0]
    for width in passes:
        entering = target.embed(text[position : position + width], position)
        position += width
        ran = target.run_and_commit(entering, caches, last_row=last_row)
        logits = target.logits(target.hidden(ran).post_norm)
        assert len(logits) == (1 if last_row else width)
        assert_close(logits, expected[position - len(logits) : position])
        assert {cache.rows for cache in caches} == {position}


def test_what_an_assistant_reads_is_the_last_of_each_kind(folders: dict[str, Path]) -> None:
    """On the last host, whatever the cut: otherwise drafts come from another layer's memory, and few are right."""
    whole = load(folders["E4B"], "float32").target
    stages = [load(folders["E4B"], "float32", LayerRange(*ends)).target for ends in ((0, 5), (5, 12))]
    last = stages[1]
    assert isinstance(whole, Gemma4Target)
    assert isinstance(last, Gemma4Target)
    caches = whole.make_caches()
    whole.run_and_commit(whole.embed(TEXT, 0), caches)
    apart, rows = [stage.make_caches() for stage in stages], stages[0].embed(TEXT, 0)
    for stage, own in zip(stages, apart, strict=True):
        rows = stage.run_and_commit(rows, own)
    expected, found = whole.drafting_caches(caches), last.drafting_caches(apart[1])
    assert {kind: list(caches).index(cache) for kind, cache in expected.items()} == {
        "full_attention": 5,
        "sliding_attention": 6,
    }
    for kind, cache in found.items():
        for ours, theirs in zip(cache.keys_and_values(), expected[kind].keys_and_values(), strict=True):
            assert_close(ours, theirs)
