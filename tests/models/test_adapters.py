"""Every adapter against mlx-lm's own forward pass."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tiny_models import CASES, Case, assert_close, build, case, random_tokens

from skulk_core.errors import UnsupportedModel
from skulk_core.models import parallel
from skulk_core.models.base import Target
from skulk_core.models.loading import held_weights
from skulk_core.models.registry import make_target, supported_types
from skulk_core.types import LayerRange

# rows that are committed and rows that are refused, pass by pass
PASSES = [(17, 0), (1, 0), (2, 1), (3, 0), (5, 3), (8, 1), (9, 2), (4, 0), (1, 5), (0, 4), (6, 0), (1, 1), (3, 4)]
LENGTH = sum(kept for kept, _ in PASSES)


def logits_in_passes(targets: list[Target], text: mx.array) -> mx.array:
    """Logits of ``text`` fed in mixed passes through chained stages, each with rows that are then refused."""
    caches = [target.make_caches() for target in targets]
    logits, position = [], 0
    for number, (kept, refused) in enumerate(PASSES):
        tokens = mx.concatenate([text[position : position + kept], random_tokens(refused, seed=100 + number)])
        activations = targets[0].embed(tokens, position)
        for target, own in zip(targets, caches, strict=True):
            activations = target.run(activations, own)
            own.commit(kept)
            assert own.rows == position + kept
        logits.append(targets[-1].logits(targets[-1].hidden(activations).post_norm)[:kept])
        position += kept
    return mx.concatenate(logits)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_are_those_of_mlx_lm(case: Case) -> None:
    """Otherwise the user decodes another model than the one that was asked for, with or without speculation."""
    model, text = build(case), random_tokens(LENGTH, seed=1)
    expected = model(text[None])[0]
    assert float(expected.std()) > 0.1
    assert_close(logits_in_passes([make_target(model)], text), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_stages_chain_to_the_whole_at_every_split(case: Case) -> None:
    """Otherwise a text depends on how many hosts it was decoded on."""
    model, text = build(case, seed=2), random_tokens(LENGTH, seed=3)
    whole = make_target(model)
    expected = model(text[None])[0]
    assert whole.split_points
    for split in whole.split_points:
        first = make_target(model, LayerRange(0, split))
        last = make_target(model, LayerRange(split, whole.num_layers))
        assert_close(logits_in_passes([first, last], text), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_stages_hold_every_weight_of_the_model(case: Case) -> None:
    """Otherwise a host decodes with a weight that was never read, or reads the weights of others."""
    model = build(case)
    whole = make_target(model)
    split = whole.split_points[0]
    first = make_target(model, LayerRange(0, split))
    last = make_target(model, LayerRange(split, whole.num_layers))

    def ids(target: Target) -> set[int]:
        return {id(array) for array in held_weights(target)}

    shared = {id(whole.text_model.model.embed_tokens.weight)}
    assert ids(first) & ids(last) == shared
    assert ids(first) | ids(last) == ids(whole)
    assert ids(whole) == {id(array) for array in _parameters(model)}


@pytest.mark.parametrize("last_row", [False, True])
@pytest.mark.parametrize("num_streams", [0, 2, 3, 8])
@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_next", "llama-sliding"])
def test_long_passes_on_any_number_of_cores(
    name: str, num_streams: int, last_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a text depends on how many cores its prompt was read with, or on whether a head reads along."""
    streams = tuple(mx.new_stream(mx.cpu) for _ in range(num_streams))
    monkeypatch.setattr(parallel, "_streams", lambda: streams)
    passes = [300, 129, 1, 4, 191, 2]
    model, text = build(case(name)), random_tokens(sum(passes), seed=5)
    expected = model(text[None])[0]
    target, position = make_target(model), 0
    caches = target.make_caches()
    for width in passes:
        entering = target.embed(text[position : position + width], position)
        position += width
        ran = target.run_and_commit(entering, caches, last_row=last_row)
        logits = target.logits(target.hidden(ran).post_norm)
        assert len(ran) == len(logits) == (1 if last_row else width)
        assert ran.position == position - len(ran)
        assert_close(logits, expected[position - len(ran) : position])
        assert caches.rows == position


def test_every_supported_type_is_checked_here() -> None:
    """Otherwise a family is offered that nobody compared with the original."""
    assert {case.module for case in CASES} == set(supported_types())


def test_another_type_is_refused_by_name() -> None:
    """Otherwise a model with an unknown structure would be decoded as if it were a plain one."""

    class Model:
        __module__ = "mlx_lm.models.mamba"

    with pytest.raises(UnsupportedModel, match="mamba") as caught:
        make_target(Model())
    assert set(caught.value.supported) >= {*supported_types(), "mistral", "gemma4_unified"}


def _parameters(model: Any) -> list[mx.array]:
    return [array for _, array in tree_flatten(model.parameters())]
