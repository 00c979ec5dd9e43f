"""What a plan says a stage needs is what the stage holds once it is loaded, for every kind of layer and cache."""

from pathlib import Path

import mlx.core as mx
import pytest
import tiny_checkpoints
from tiny_models import random_tokens

from skulk_core.hub.refs import DemoRef, FolderRef
from skulk_core.memory.caches import STEP_ROWS
from skulk_core.models.base import Target
from skulk_core.models.loading import load
from skulk_core.models.shape import shape_of
from skulk_core.models.weighing import weigh_model
from skulk_core.models.weighing_heads import NO_HEAD
from skulk_core.runtime.resources import demo_folder
from skulk_core.types import LayerRange

FAMILIES = ("llama", "qwen3_5", "qwen3_5_moe", "qwen3_next")
RANGES = ((0, 4), (0, 1), (1, 3), (3, 4))


@pytest.fixture(scope="module", params=[*FAMILIES, "llama-tied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, _, tied = request.param.partition("-")
    model = tiny_checkpoints.torch_model(family, tied=bool(tied))
    return tiny_checkpoints.save(model, tmp_path_factory.mktemp(request.param), nested=family == "qwen3_5_moe")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_a_stage_are_as_many_bytes_as_said(checkpoint: Path, dtype: str) -> None:
    """Too few, and a host that was planned for dies when it loads; too many, and a model that fits is refused."""
    weighed = weigh_model(FolderRef(checkpoint), dtype, writes_scores=True)
    needs = weighed.needs(STEP_ROWS, NO_HEAD)
    for start, end in RANGES:
        need = needs.need(start, end)
        held = load(checkpoint, dtype, LayerRange(start, end)).nbytes
        # a few numbers a head stay in float32 whatever is asked for
        assert held * 0.999 <= need.layers + need.parts <= held


def test_caches_of_a_stage_are_as_many_bytes_as_said(checkpoint: Path) -> None:
    loaded = load(checkpoint, "float32")
    shape = weigh_model(FolderRef(checkpoint), "float32", writes_scores=True).shape
    for context in (7, 300):
        caches = loaded.target.make_caches()
        fed(loaded.target, caches, context)
        assert [cache.nbytes for cache in caches] == [one.nbytes(context, 4) for one in shape.caches]


def fed(target: Target, caches, context: int) -> None:  # type: ignore[no-untyped-def]
    target.run(target.embed(random_tokens(context, seed=3), 0), caches)
    caches.commit(context)
    mx.eval(caches.arrays())


def test_the_demo_and_its_own_dtype() -> None:
    weighed = weigh_model(DemoRef(), "checkpoint", writes_scores=True)
    needs = weighed.needs(STEP_ROWS, NO_HEAD)
    for start, end in ((0, 8), (0, 3), (3, 7), (7, 8)):
        assert needs.need(start, end).layers + needs.need(start, end).parts == (
            load(demo_folder(), "checkpoint", LayerRange(start, end)).nbytes
        )


def test_the_shape_of_a_model_costs_no_memory() -> None:
    """A plan for a model of 400 billion weights is made on a laptop."""
    text = {
        "model_type": "qwen3_5_moe_text",
        "hidden_size": 4096,
        "num_hidden_layers": 60,
        "intermediate_size": 1024,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": 248320,
        "max_position_embeddings": 262144,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_num_value_heads": 64,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 1024,
        "shared_expert_intermediate_size": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
        "tie_word_embeddings": False,
    }
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    shape = shape_of({"model_type": "qwen3_5_moe", "text_config": text}, "large")
    assert mx.get_peak_memory() - before < 200e6
    assert shape.num_layers == 60
    # two K/V heads of 256, keys and values, in every fourth layer
    assert [one.per_row for one in shape.caches[:4]] == [0, 0, 0, 2 * 2 * 256]
    assert shape.caches[0].fixed_nbytes > 0
