"""How each tensor of a head becomes the one that is shipped, decided from headers and declarations alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from skulk_core.errors import UnsupportedTensor
from skulk_core.hub.stored_tensors import StoredTensor
from swp.checkpoint import Checkpoint
from swp.head import Head
from swp.quantization import Declared, Reach, Undeclared, Values, declared_for

COPY = "copy"
CAST = "cast"

_FLOATS = ("BF16", "F16", "F32", "F64")
_PACKED = {Values.FP4: ("I8", "U8"), Values.NVFP4: ("U8", "I8"), Values.FP8: ("F8_E4M3",), Values.INT8: ("I8",)}
_SCALE_DTYPES = {
    Values.FP8: ("F32", "BF16", "F16", "F8_E8M0"),
    Values.INT8: ("F32", "BF16", "F16"),
    Values.FP4: ("F8_E8M0",),
    Values.NVFP4: ("F8_E4M3",),
}
# Scales of activations and of the K/V cache: nothing of the weights.
_UNUSED = ("input_scale", "input_global_scale", "output_scale", "k_scale", "v_scale", "weight_shape")
_WEIGHT = ".weight"
_PACKED_WEIGHT = ".weight_packed"


@dataclass(frozen=True)
class Recipe:
    """One shipped tensor and what it is made of.

    `kind` is `copy`, `cast`, or the dequantisation's name: values and reach, as in `fp8_block`. One element of `scale`
    is for `block` rows and columns of the unpacked weight's last two axes; `per_tensor` multiplies or, if
    `divides`, divides every scale.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    weight: StoredTensor
    values: Values | None = None
    scale: StoredTensor | None = None
    block: tuple[int, int] = (1, 1)
    per_tensor: StoredTensor | None = None
    divides: bool = False

    @property
    def sources(self) -> tuple[tuple[str, StoredTensor], ...]:
        """Upstream's tensors and the role of each, the weight first."""
        found = (("weight", self.weight), ("scale", self.scale), ("global_scale", self.per_tensor))
        return tuple((role, tensor) for role, tensor in found if tensor is not None)


def plan_recipes(checkpoint: Checkpoint, head: Head) -> tuple[Recipe, ...]:
    """A recipe for every tensor of the head that is not itself a scale, in the head's order.

    Raises `UnsupportedTensor` for one that is stored in a way not known, or not as the checkpoint declares.
    """
    planner = _Planner(checkpoint, head)
    recipes = tuple(planner.recipes())
    planner.check_all_used()
    return recipes


class _Planner:
    def __init__(self, checkpoint: Checkpoint, head: Head) -> None:
        self._checkpoint, self._head = checkpoint, head
        self._tensors = {name: checkpoint.tensors.get(name) for name in head.places}
        self._used: set[str] = set()

    def recipes(self) -> Iterator[Recipe]:
        scales = {scale for name in self._tensors for scale in _scale_names(name) if scale in self._tensors}
        for name, tensor in self._tensors.items():
            if name in scales or name.endswith(_UNUSED):
                continue
            self._used.add(name)
            yield self._recipe(tensor)

    def check_all_used(self) -> None:
        for name, tensor in self._tensors.items():
            if name not in self._used and not name.endswith(_UNUSED):
                raise self._error(tensor, "is a scale that its weight has no use for")

    def _recipe(self, tensor: StoredTensor) -> Recipe:
        place = self._head.places[tensor.name].name
        if tensor.dtype in _FLOATS:
            kept = tensor.dtype == "BF16" or (tensor.dtype == "F32" and self._head.layout.is_float32(place))
            kind, dtype = (COPY, tensor.dtype) if kept else (CAST, "BF16")
            return Recipe(tensor.name, dtype, tensor.shape, kind, tensor)
        if tensor.dtype in ("I64", "I32") and self._head.layout.is_integer_table(place):
            return Recipe(tensor.name, tensor.dtype, tensor.shape, COPY, tensor)
        return self._quantized(tensor)

    def _quantized(self, tensor: StoredTensor) -> Recipe:
        module = tensor.name.removesuffix(_PACKED_WEIGHT).removesuffix(_WEIGHT)
        declared = declared_for(module, self._checkpoint.text, self._checkpoint.quantization)
        if isinstance(declared, Undeclared):
            raise self._error(tensor, f"quantised, but {declared.reason}")
        if tensor.dtype not in _PACKED[declared.values]:
            raise self._error(tensor, f"declared as {declared.values}, which is not stored so")
        if len(tensor.shape) < 2:
            raise self._error(tensor, f"shape {list(tensor.shape)} is not a matrix")
        packed = 2 if declared.values in (Values.FP4, Values.NVFP4) else 1
        shape = (*tensor.shape[:-1], tensor.shape[-1] * packed)
        scale = self._scale(tensor, declared.values)
        block = self._block(tensor, shape, scale, declared)
        per_tensor, divides = self._per_tensor(tensor) if declared.values is Values.NVFP4 else (None, False)
        kind = f"{declared.values}_{'block' if declared.reach is Reach.BLOCK else 'scale'}"
        name = module + _WEIGHT if tensor.name.endswith(_PACKED_WEIGHT) else tensor.name
        return Recipe(name, "BF16", shape, kind, tensor, declared.values, scale, block, per_tensor, divides)

    def _scale(self, tensor: StoredTensor, values: Values) -> StoredTensor:
        found = [name for name in _scale_names(tensor.name) if name in self._tensors and not _is_per_tensor(name)]
        if len(found) != 1:
            raise self._error(tensor, f"has {'several scales' if found else 'no scale'} beside it")
        scale = self._take(found[0])
        if scale.dtype not in _SCALE_DTYPES[values]:
            raise self._error(scale, f"no dtype for the scale of a weight declared as {values}")
        return scale

    def _per_tensor(self, tensor: StoredTensor) -> tuple[StoredTensor, bool]:
        """NVFP4's second scale: ModelOpt's multiplies, compressed-tensors' divides."""
        stem = tensor.name.removesuffix(_PACKED_WEIGHT).removesuffix(_WEIGHT)
        for suffix, divides in (("weight_scale_2", False), ("weight_global_scale", True)):
            name = f"{stem}.{suffix}"
            if name in self._tensors:
                scale = self._take(name)
                if scale.dtype != "F32" or scale.nbytes != 4:
                    raise self._error(scale, f"shape {list(scale.shape)} is not one float32")
                return scale, divides
        raise self._error(tensor, "has no scale for the whole tensor beside it")

    def _block(
        self, tensor: StoredTensor, shape: tuple[int, ...], scale: StoredTensor, declared: Declared
    ) -> tuple[int, int]:
        """Rows and columns of one scale, once the scale's shape is what the declaration asks for."""
        *lead, rows, columns = shape
        match declared.reach:
            case Reach.TENSOR:
                block, expected = (rows, columns), [(*lead, 1, 1), tuple(lead), (*lead, 1)]
            case Reach.CHANNEL:
                block, expected = (1, columns), [(*lead, rows, 1), (*lead, rows)]
            case Reach.BLOCK:
                block = declared.block
                expected = [(*lead, ceil(rows / block[0]), ceil(columns / block[1]))]
        if scale.shape not in expected:
            wanted = " or ".join(str(list(one)) for one in expected)
            raise self._error(
                scale, f"shape {list(scale.shape)}, but {declared.values} by {declared.reach} needs {wanted}"
            )
        return block

    def _take(self, name: str) -> StoredTensor:
        self._used.add(name)
        return self._tensors[name]

    def _error(self, tensor: StoredTensor, reason: str) -> UnsupportedTensor:
        return UnsupportedTensor(str(self._checkpoint.files), tensor.name, tensor.dtype, reason)


def _scale_names(weight: str) -> tuple[str, ...]:
    """Names that the scales of a weight may have."""
    if weight.endswith(_PACKED_WEIGHT):
        stem = weight.removesuffix(_PACKED_WEIGHT)
        return f"{stem}.weight_scale", f"{stem}.weight_global_scale"
    if weight.endswith(_WEIGHT):
        stem = weight.removesuffix(_WEIGHT)
        return (
            *(f"{stem}.weight_scale_inv", f"{stem}.weight_scale", f"{stem}.scale"),
            *(f"{stem}.weight_scale_2", f"{stem}.weight_global_scale"),
        )
    return f"{weight}_scale_inv", f"{weight}_scale"


def _is_per_tensor(name: str) -> bool:
    return name.endswith(("weight_scale_2", "weight_global_scale"))
