"""Stored tensors → the bytes that are shipped, a block of rows at a time.

    bf16(value(w) * scale)            every quantisation; the product in float32, rounded to nearest, ties to even

FP8 is E4M3 as torch's `float8_e4m3fn`; the scale is what the checkpoint calls `weight_scale_inv`, and it multiplies. An
E8M0 scale is `2^(b - 127)`, and 0xFF is NaN. FP4 is E2M1 by the OCP Microscaling Formats specification 1.0: two values
to a byte, the low nibble first, so that the last axis is twice as long unpacked. torch has no conversion for it, hence
the table. NVFP4 has an E4M3 scale for 16 values and one float32 for the tensor.
"""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from skulk_core.errors import FileError, MissingPackage
from skulk_core.runtime.packages import PUBLISH, pip_command
from swp.quantization import Values
from swp.recipes import CAST, COPY, Recipe

if TYPE_CHECKING:
    import torch

# Sign in the highest bit; 0, ½, 1, 1½, 2, 3, 4, 6.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

_BLOCK_ELEMENTS = 1 << 20
_CAST_NBYTES = 1 << 21
_ITEM_NBYTES = {"F16": 2, "F32": 4, "F64": 8}


def needs_torch(recipe: Recipe) -> bool:
    """Whether `shipped` computes, or only passes bytes on."""
    return recipe.kind != COPY


def require_torch() -> None:
    """Raise `MissingPackage` if torch cannot be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        purpose = "converting weights to BF16"
        raise MissingPackage("torch", purpose, pip_command(PUBLISH)) from error


def shipped(recipe: Recipe, weight: Iterator[bytes], scale: bytes, per_tensor: bytes) -> Iterator[bytes]:
    """The bytes of the shipped tensor, in pieces. `weight` are the stored weight's bytes as they come.

    `scale` and `per_tensor` are all bytes of those tensors, empty where the recipe has none. Raises `FileError` if
    `weight` ends too early.
    """
    if recipe.kind == COPY:
        return weight
    if recipe.kind == CAST:
        return _cast(recipe, Bytes(weight, recipe.weight.file))
    return _dequantized(recipe, Bytes(weight, recipe.weight.file), scale, per_tensor)


def has_nan_scale(recipe: Recipe, scale: bytes, per_tensor: bytes) -> bool:
    """Whether a scale is NaN, and with it every weight that it is for. The arguments are those of `shipped`."""
    return bool(_scales(recipe, scale, per_tensor).isnan().any())


class Bytes:
    """Takes exact amounts out of a stream of pieces."""

    def __init__(self, chunks: Iterator[bytes], file: str) -> None:
        self._chunks, self._file = chunks, file
        self._rest = b""

    def take(self, nbytes: int) -> bytearray:
        """The next `nbytes` bytes. Raises `FileError` if there are fewer."""
        out = bytearray()
        while len(out) < nbytes:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                raise FileError(self._file, f"{nbytes - len(out)} bytes of a tensor are missing")
            part = chunk[: nbytes - len(out)]
            self._rest = chunk[len(part) :]
            out += part
        return out


def _cast(recipe: Recipe, weight: Bytes) -> Iterator[bytes]:
    import torch

    dtype = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64}[recipe.weight.dtype]
    left = recipe.weight.nbytes
    while left:
        nbytes = min(_CAST_NBYTES, left)
        yield _bf16(torch.frombuffer(weight.take(nbytes), dtype=dtype))
        left -= nbytes


def _dequantized(recipe: Recipe, weight: Bytes, scale: bytes, per_tensor: bytes) -> Iterator[bytes]:
    import torch

    *lead, rows, columns = recipe.shape
    packed = columns * recipe.weight.nbytes // prod(recipe.shape) if prod(recipe.shape) else 0
    block_rows, block_columns = recipe.block
    scales = _scales(recipe, scale, per_tensor).reshape(prod(lead), -(-rows // block_rows), -1)
    column_index = torch.arange(columns) // block_columns
    step = max(_BLOCK_ELEMENTS // max(columns, 1), 1)
    for matrix in scales:
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            values = _values(recipe, weight.take((end - begin) * packed)).reshape(end - begin, columns)
            # columns are spread over the few rows of scales, and only then those rows: the second is a plain copy
            first, last = begin // block_rows, (end - 1) // block_rows + 1
            row_index = torch.arange(begin, end) // block_rows - first
            yield _bf16(values.mul_(matrix[first:last][:, column_index][row_index]))


def _values(recipe: Recipe, stored: bytearray) -> "torch.Tensor":
    """Stored elements as float32, flat."""
    import torch

    match recipe.values:
        case Values.FP8:
            return torch.frombuffer(stored, dtype=torch.float8_e4m3fn).float()
        case Values.INT8:
            return torch.frombuffer(stored, dtype=torch.int8).float()
        case Values.FP4 | Values.NVFP4:
            table = torch.tensor(E2M1)
            codes = torch.frombuffer(stored, dtype=torch.uint8)
            pairs = torch.stack((codes & 0x0F, codes >> 4), dim=-1)
            return table[pairs.int()].flatten()
        case None:
            raise AssertionError(recipe.kind)


def _scales(recipe: Recipe, scale: bytes, per_tensor: bytes) -> "torch.Tensor":
    """The scales as float32, flat, that of the tensor included."""
    import torch

    assert recipe.scale is not None
    dtypes = {
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E8M0": torch.float8_e8m0fnu,
    }
    scales = torch.frombuffer(bytearray(scale), dtype=dtypes[recipe.scale.dtype]).float()
    if recipe.per_tensor is not None:
        whole = torch.frombuffer(bytearray(per_tensor), dtype=torch.float32)
        scales = scales / whole if recipe.divides else scales * whole
    return scales


def _bf16(values: "torch.Tensor") -> bytes:
    import torch

    return values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
