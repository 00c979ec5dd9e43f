"""Gemma 4 as a plan sees it: layers that share keys and values, two cache kinds, a table of which stages hold parts."""

from pathlib import Path

import mlx.core as mx
import pytest
from gemma4_tiny import SIZES, save_target, torch_target
from tiny_models import random_tokens

from skulk_core.hub.refs import FolderRef
from skulk_core.models.loading import load
from skulk_core.models.weighing import weigh_model
from skulk_core.models.weighing_heads import NO_HEAD
from skulk_core.types import LayerRange


@pytest.mark.parametrize("size", SIZES)
def test_stages_need_no_less_than_they_hold(size: str, tmp_path: Path) -> None:
    """A host that was planned with too few bytes dies while it loads, or in the middle of a long text."""
    folder = save_target(torch_target(size, seed=5), tmp_path)
    weighed = weigh_model(FolderRef(folder), "float32", writes_scores=True)
    whole = load(folder, "float32").target
    assert weighed.shape.split_points == whole.split_points
    cut = whole.split_points[-1]
    for start, end in ((0, whole.num_layers), (0, cut), (cut, whole.num_layers)):
        held = load(folder, "float32", LayerRange(start, end)).nbytes
        need = weighed.needs(256, NO_HEAD).need(start, end)
        # what keys and values a layer borrows it has none of, but a release stores them; tables are counted whole
        assert held <= need.layers + need.parts <= 1.5 * held
    context = 300
    caches = whole.make_caches()
    whole.run(whole.embed(random_tokens(context, seed=3), 0), caches)
    caches.commit(context)
    mx.eval(caches.arrays())
    for cache, shape in zip(caches, weighed.shape.caches, strict=True):
        assert cache.nbytes <= shape.nbytes(context, 4)
        assert (cache.nbytes == 0) == (shape.nbytes(context, 4) == 0)
