"""The tensors of a GGUF file as the weights of mlx-lm's model: fitted, read, turned back to mlx-lm's order of rows."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from skulk_core.errors import FileError
from skulk_core.models.gguf_architectures import Architecture
from skulk_core.models.gguf_file import GgufFile, GgufTensor

# MLX's affine quantisation that stands for each kind, exactly: blocks of 32 weights, scale and bias in float16
GROUP_SIZE = 32
BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}

Fitted = Mapping[str, GgufTensor]


def fit(file: GgufFile, architecture: Architecture, model: nn.Module) -> Fitted:
    """The tensor of every parameter of ``model``, which is not quantised yet, by the parameter's name.

    Raises `FileError` for a tensor that is missing, of another shape, or unknown to the architecture.
    """
    shapes = {name: array.shape for name, array in tree_flatten(model.parameters())}
    fitted: dict[str, GgufTensor] = {}
    for tensor in file.tensors.values():
        path = architecture.path(tensor.name)
        if path is not None and path in shapes:
            fitted[path] = tensor
        elif not architecture.is_setting(tensor.name):
            raise FileError(file.path, f"has tensor {tensor.name}, which a {architecture.model_type} model has not")
    # a model that never ties still has a file without the second copy
    if "lm_head.weight" in shapes and "model.embed_tokens.weight" in fitted:
        fitted.setdefault("lm_head.weight", fitted["model.embed_tokens.weight"])
    missing = [path for path in shapes if path not in fitted]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileError(file.path, f"has no tensor for {missing[0]}{more}")
    for path, tensor in fitted.items():
        # a vector for a matrix of one row, as converters write it
        if tensor.shape != shapes[path] and (1, *tensor.shape) != shapes[path]:
            said, wanted = list(tensor.shape), list(shapes[path])
            raise FileError(file.path, f"tensor {tensor.name} is {said}; its metadata make it {wanted}")
    return fitted


def load_weights(file: GgufFile, architecture: Architecture, model: nn.Module, fitted: Fitted) -> None:
    """Quantise the modules of ``model`` that the file has quantised, and give it its weights.

    Raises `FileError` where MLX cannot read the file, or a module takes no blocks.
    """
    arrays = _read(file)
    kinds = {path.removesuffix(".weight"): t.kind for path, t in fitted.items() if t.kind in BITS}

    def settings(path: str, module: Any) -> dict[str, Any] | bool:
        return {"group_size": GROUP_SIZE, "bits": BITS[kinds[path]], "mode": "affine"} if path in kinds else False

    modules = dict(model.named_modules())
    for path, tensor in fitted.items():
        if tensor.kind in BITS and not hasattr(modules[path.removesuffix(".weight")], "to_quantized"):
            raise FileError(
                file.path, f"tensor {tensor.name} is {tensor.kind}, which mlx-lm's model does not take there"
            )
    nn.quantize(model, class_predicate=settings)
    heads = {"q_proj": model.args.num_attention_heads, "k_proj": model.args.num_key_value_heads}
    weights = {}
    for path, tensor in fitted.items():
        module, _, part = path.rpartition(".")
        stem = tensor.name.removesuffix(f".{part}")
        num_heads = heads.get(module.rpartition(".")[2]) if architecture.interleaved else None
        for name in (part, "scales", "biases") if tensor.kind in BITS else (part,):
            array = arrays[f"{stem}.{name}"]
            weights[f"{module}.{name}"] = halves(array, num_heads) if num_heads else array
    shapes = {name: array.shape for name, array in tree_flatten(model.parameters())}
    model.load_weights([(name, array.reshape(shapes[name])) for name, array in weights.items()])


def halves(rows: mx.array, num_heads: int) -> mx.array:
    """Rows of queries or keys in the order that RoPE over halves needs, from that of RoPE over neighbouring pairs.

    ``rows`` is ``[heads · D, …]``: packed weights, their scales and biases, or a bias. The inverse of `permute` in
    llama.cpp's `conversion/llama.py`.
    """
    pairs = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _read(file: GgufFile) -> dict[str, mx.array]:
    try:
        arrays = mx.load(str(file.path), format="gguf")
    except (RuntimeError, ValueError) as error:
        raise FileError(file.path, f"MLX cannot read it: {error}") from error
    assert isinstance(arrays, dict)
    with file.path.open("rb") as stream:
        for tensor in file.tensors.values():
            if tensor.kind == "BF16":
                # MLX makes float16 of it, whose range is smaller
                stream.seek(tensor.start)
                words: Any = memoryview(stream.read(tensor.end - tensor.start)).cast("H")
                arrays[tensor.name] = mx.array(words).view(mx.bfloat16).reshape(tensor.shape)
    return arrays
