"""The most that MLX may hold in this process, and what is left of it.

MLX's own limit is a wish: on a CPU an allocation beyond it succeeds, and one that the system refuses ends the process
(seen with MLX 0.32.4). So whoever runs passes asks here before each of them.
"""

import os
import time
from dataclasses import dataclass, field

from skulk_core.errors import OptionError
from skulk_core.runtime.device import host_memory

VARIABLE = "SKULK_MEMORY_GB"
# Less than this is not worth asking the system for.
_UNASKED_NBYTES = 1 << 20
# What the system said is good for so long, unless half of it is asked for: asking costs a small model's round some
# per cent.
_GOOD_FOR_S = 0.5


@dataclass
class _System:
    """What the system has left, as it said when it was asked last."""

    available_nbytes: int = 0
    asked_s: float = float("-inf")

    def has(self, needed_nbytes: int) -> bool:
        now_s = time.monotonic()
        if now_s - self.asked_s > _GOOD_FOR_S or needed_nbytes > self.available_nbytes // 2:
            self.available_nbytes, self.asked_s = host_memory()[1], now_s
        return self.available_nbytes >= needed_nbytes


@dataclass(frozen=True)
class MemoryLimit:
    """``nbytes`` for MLX, None where nobody gave a limit. ``asks_system``: what the system has left counts as well."""

    nbytes: int | None
    asks_system: bool
    _system: _System = field(default_factory=_System, repr=False, compare=False)

    def short_nbytes(self, needed_nbytes: int) -> int:
        """Bytes that are missing for ``needed_nbytes`` more; MLX's cache of freed buffers is let go where it must."""
        import mlx.core as mx

        if self.nbytes is not None:
            held = int(mx.get_active_memory())
            if held + needed_nbytes > self.nbytes:
                mx.clear_cache()
                return held + needed_nbytes - self.nbytes
            if held + int(mx.get_cache_memory()) + needed_nbytes > self.nbytes:
                mx.clear_cache()
        if not self.asks_system or needed_nbytes < _UNASKED_NBYTES:
            return 0
        if self._system.has(needed_nbytes):
            return 0
        mx.clear_cache()
        return max(0, needed_nbytes - host_memory()[1])


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether MLX could not allocate."""
    return any(words in str(error) for words in ("[malloc", "::malloc]", "Insufficient Memory"))


def limit_memory(nbytes: int | None = None) -> MemoryLimit:
    """Hold MLX to ``nbytes``, or to what the environment says if that is less.

    Raises `OptionError` for a ``SKULK_MEMORY_GB`` that is no number above 0.
    """
    import mlx.core as mx

    limits = [limit for limit in (nbytes, _said()) if limit is not None]
    if limits:
        mx.set_memory_limit(min(limits))
        # what is freed stays at hand only as far as the limit leaves room for it
        mx.set_cache_limit(min(limits))
    # elsewhere an allocation that fails says so, and what a desktop could give back is not known
    return MemoryLimit(min(limits, default=None), mx.default_device() == mx.cpu)


def _said() -> int | None:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise OptionError(VARIABLE, text, "must be gigabytes, above 0")
    return int(gigabytes * 1e9)
