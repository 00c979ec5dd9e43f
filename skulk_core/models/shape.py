"""A model's shape from its configuration alone: where it may be divided, what its stages need, what its caches keep.

The modules are mlx-lm's, built and never evaluated: their weights are promises of random numbers that nobody redeems.
Cache sizes are read off the arrays that a pass would leave, which have shapes before they have contents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import _get_classes as mlx_lm_classes

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.cache.window import WindowCache
from skulk_core.errors import FileError
from skulk_core.formats.head_names import local_name
from skulk_core.memory.caches import STEP_ROWS, CacheShape, WorkingShape
from skulk_core.memory.division import Division
from skulk_core.memory.passes import PassBytes, counted
from skulk_core.memory.weights import OuterParts
from skulk_core.models.base import Activations, Target
from skulk_core.models.light import nothing_begun
from skulk_core.models.loading import FILES_AT_FAULT, renamed, shortened, text_config
from skulk_core.models.registry import config_changes, make_target, require_adapter, unsupported
from skulk_core.types import LayerRange

# As `decode` feeds a prompt, and as attention on a CPU writes out its scores.
_PREFILL_ROWS, _BLOCK_ROWS = 2048, 128
_PROBED_ROWS = 2
# Hidden rows, queries, keys, values and their like that one layer has alive at once, counted in hidden sizes.
_HIDDEN_ALIVE = 8


@dataclass(frozen=True)
class Shape:
    """A model's shape."""

    num_layers: int
    split_points: tuple[int, ...]
    outer: OuterParts
    caches: tuple[CacheShape, ...]
    working: WorkingShape
    context_tokens: int | None
    division: Division


def shape_of(config: Mapping[str, Any], origin: str, *, writes_scores: bool = True) -> Shape:
    """The shape of the model that ``config``, a config.json of ``origin``, describes.

    ``writes_scores``: whether the device writes attention's scores out, as CPUs do. Raises `UnsupportedModel`,
    `FileError`.
    """
    target = _target(config, origin)
    text = text_config(config)
    limit = text.get("max_position_embeddings")
    return Shape(
        num_layers=target.num_layers,
        split_points=target.split_points,
        outer=_outer(target),
        caches=_cache_shapes(target),
        working=_working(target, text, writes_scores=writes_scores),
        context_tokens=limit if isinstance(limit, int) else None,
        division=_division(target, config),
    )


def division_of(config: Mapping[str, Any], origin: str) -> Division:
    """How tensor-parallel ranks can divide the model that ``config`` describes. Raises as `shape_of`."""
    return _division(_target(config, origin), config)


def passes_of(target: Target, *, writes_scores: bool, decides: bool, has_head: bool, shares: int = 1) -> PassBytes:
    """What passes of ``target`` take, its layers not yet divided; a head keeps a layer's cache of its own."""
    caches = _cache_shapes(target)
    item_nbytes = target.dtype.size
    heads = [max(caches, key=lambda shape: shape.nbytes(STEP_ROWS, item_nbytes))] if has_head else []
    working = _working(target, vars(target.args), writes_scores=writes_scores)
    return PassBytes(counted([*caches, *heads]), working, item_nbytes, decides, shares)


def _division(target: Target, config: Mapping[str, Any]) -> Division:
    packed = config.get("quantization")
    # of a mixed quantisation the widest groups
    found = [packed, *packed.values()] if isinstance(packed, Mapping) else []
    sizes = [one["group_size"] for one in found if isinstance(one, Mapping) and isinstance(one.get("group_size"), int)]
    return Division(target.model_type, target.divided, max(sizes, default=1))


def _target(config: Mapping[str, Any], origin: str) -> Target:
    model_type = str(config.get("model_type"))
    try:
        whole = {**config, **renamed(model_type), **config_changes(config)}
        model_class, args_class = mlx_lm_classes(whole)
        require_adapter(model_class)
        model = model_class(args_class.from_dict(whole))
        # views of one zero: what an adapter works out of its weights costs nothing then
        model.update(tree_map(lambda weight: mx.broadcast_to(mx.zeros(()), weight.shape), model.parameters()))
        return make_target(model)
    except FILES_AT_FAULT as error:
        if "not supported" in str(error) and model_type in str(error):
            raise unsupported(model_type, origin) from error
        raise FileError(origin, f"mlx-lm cannot make a model of its config.json: {shortened(str(error))}") from error


def _outer(target: Target) -> OuterParts:
    """Names of outer modules, as a stage in each place asks for them."""
    names = {id(module): local_name(f"{path}.").rstrip(".") for path, module in target.model.named_modules()}

    def of(start: int, end: int) -> frozenset[str]:
        stage = make_target(target.model, LayerRange(start, end))
        return frozenset(names[id(module)] for module in stage.outer_modules())

    num_layers, points = target.num_layers, target.split_points
    alone = of(0, num_layers)
    if not points:
        return OuterParts(alone, alone, alone, alone)
    middle = of(points[0], points[1]) if len(points) > 1 else alone
    return OuterParts(of(0, points[0]), middle, of(points[-1], num_layers), alone)


def _cache_shapes(target: Target) -> tuple[CacheShape, ...]:
    tokens = mx.zeros((_PROBED_ROWS,), mx.int32)
    entering = Activations(tokens, 0, mx.zeros((_PROBED_ROWS, target.hidden_size)))
    in_common, masks = target.begin_pass(entering), dict[object, Any]()
    known: dict[object, CacheShape] = {}
    shapes = []
    for index, cache in enumerate(target.make_caches()):
        if isinstance(cache, BorrowedCache):
            shapes.append(CacheShape())
            continue
        kind = cache.mask_key, _weight_shapes(target.layers[index])
        if kind not in known:
            if cache.mask_key not in masks:
                masks[cache.mask_key] = cache.mask(_PROBED_ROWS)
            # every layer sees the same rows: shapes are all that is asked for
            with nothing_begun():
                target.run_nth_layer(index, entering.h, cache, masks[cache.mask_key], in_common)
            cache.commit(_PROBED_ROWS)
            known[kind] = _shape(cache)
        shapes.append(known[kind])
    return tuple(shapes)


def _weight_shapes(layer: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(weight.shape)) for name, weight in tree_flatten(layer.parameters()))


def _shape(cache: LayerCache) -> CacheShape:
    arrays = cache.arrays()
    if not isinstance(cache, AttentionCache | WindowCache):
        return CacheShape(fixed_nbytes=sum(array.nbytes for array in arrays))
    # [1, heads, rows of the buffer, dims]
    per_row = sum(array.size // array.shape[2] for array in arrays)
    most = cache.window + 1 + _PREFILL_ROWS + STEP_ROWS if isinstance(cache, WindowCache) else None
    return CacheShape(per_row, 0, most)


def _working(target: Target, text: Mapping[str, Any], *, writes_scores: bool) -> WorkingShape:
    dense = int(text.get("intermediate_size") or 0)
    used = int(text.get("num_experts_per_tok") or text.get("top_k_experts") or 0)
    experts = used * int(text.get("moe_intermediate_size") or dense)
    return WorkingShape(
        row=_HIDDEN_ALIVE * target.hidden_size + 3 * max(dense, experts),
        vocab=target.vocab_size,
        heads=int(text.get("num_attention_heads") or 1),
        prefill_rows=_PREFILL_ROWS,
        block_rows=_BLOCK_ROWS if writes_scores else 0,
    )
