"""RoPE as a GGUF file describes it: settings in its metadata, factors of the frequencies in tensors."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skulk_core.errors import FileError
from skulk_core.models.gguf_architectures import Architecture

if TYPE_CHECKING:
    from skulk_core.models.gguf_config import Metadata

Factors = Mapping[str, tuple[float, ...]]

_FREQS, _LONG, _SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
_DEFAULT_BASE = 10000.0
# Llama 3's own settings, which llama.cpp's converter assumes too; the file holds only the factors that follow
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_TOLERANCE = 1e-4


def rope_settings(metadata: "Metadata", architecture: Architecture, head_dim: int, factors: Factors) -> dict[str, Any]:
    """The keys of a configuration that describe RoPE; ``factors`` are those tensors of the file by name.

    Raises `FileError` for a scaling that mlx-lm's model of this architecture does not have.
    """
    base, dims = metadata.number("rope.freq_base", _DEFAULT_BASE), metadata.number("rope.dimension_count", head_dim)
    if dims != head_dim and not architecture.partial_rope:
        raise FileError(metadata.path, f"turns {dims} of {head_dim} dimensions, which mlx-lm's model cannot")
    scaling = _scaling(metadata, base, dims, factors)
    if scaling and not architecture.scales_rope:
        raise FileError(metadata.path, f"scales RoPE ({scaling['type']}), which mlx-lm's model does not")
    original = (scaling or {}).get("original_max_position_embeddings")
    return {
        "rope_theta": base,
        "partial_rotary_factor": dims / head_dim,
        "rope_scaling": scaling,
        # phi3 alone reads it here
        **({"original_max_position_embeddings": original} if original else {}),
    }


def _scaling(metadata: "Metadata", base: float, dims: int, factors: Factors) -> dict[str, Any] | None:
    context = metadata.number("context_length")
    original = metadata.number("rope.scaling.original_context_length", context)
    if _FREQS in factors:
        return _by_factors(metadata, base, dims, factors[_FREQS])
    if _LONG in factors:
        if len(factors[_LONG]) != dims // 2:
            raise FileError(metadata.path, f"{_LONG} has {len(factors[_LONG])} factors for {dims} dimensions")
        short = factors.get(_SHORT, factors[_LONG])
        # the attention factor in the metadata is what mlx-lm computes from the two lengths
        return _named(
            "longrope",
            long_factor=list(factors[_LONG]),
            short_factor=list(short),
            original_max_position_embeddings=original,
        )
    if not math.isclose(metadata.number("rope.scaling.attn_factor", 1.0), 1.0):
        raise FileError(metadata.path, "sets a RoPE attention factor, which mlx-lm's model does not have")
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 1.0))
    kind = metadata.get("rope.scaling.type", "linear")
    if kind == "none" or factor in (0, 1):
        return None
    if kind == "linear":
        return _named("linear", factor=float(factor))
    if kind == "yarn":
        betas = {name: f"rope.scaling.yarn_{name}" for name in ("beta_fast", "beta_slow")}
        given = {name: metadata.number(key) for name, key in betas.items() if metadata.has(key)}
        return _named("yarn", factor=float(factor), original_max_position_embeddings=original, **given)
    raise FileError(metadata.path, f"scales RoPE by {kind!r}, which is not known here")


def _by_factors(metadata: "Metadata", base: float, dims: int, found: tuple[float, ...]) -> dict[str, Any]:
    """Llama 3's scaling where it gives these factors, else a scaling that takes any."""
    if len(found) != dims // 2 or not all(factor > 0 for factor in found):
        raise FileError(metadata.path, f"{_FREQS} does not hold {dims // 2} positive factors")
    expected = [_llama3_factor(2 * math.pi * base ** (2 * i / dims), max(found)) for i in range(dims // 2)]
    if all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(found, expected, strict=True)):
        return _named("llama3", factor=max(found), **_LLAMA3)
    context = metadata.number("context_length")
    return _named(
        "longrope", long_factor=list(found), short_factor=list(found), original_max_position_embeddings=context
    )


def _llama3_factor(wavelength: float, factor: float) -> float:
    """What divides a frequency of ``wavelength`` tokens (transformers, `_compute_llama3_parameters`)."""
    low, high, original = _LLAMA3.values()
    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return factor
    smooth = (original / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)


def _named(kind: str, **settings: Any) -> dict[str, Any]:
    # models of different ages look for one name or the other
    return {"type": kind, "rope_type": kind, **settings}
