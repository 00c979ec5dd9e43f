"""Where randomness comes from: numbers of their own for each thing that is drawn, from the seed and its place."""

import hashlib
import struct
from enum import IntEnum

import mlx.core as mx


class Purpose(IntEnum):
    """What numbers are for: a draft, the verdict on all drafts of a round, the target's own token after it."""

    DRAFT = 1
    VERDICT = 2
    TOKEN = 3


def uniforms(seed: int, num_tokens: int, offset: int, purpose: Purpose, count: int) -> mx.array:
    """``[count]`` numbers in [0, 1), multiples of 2^-24, float32.

    They are for ``purpose`` at ``offset`` of the round that starts after ``num_tokens`` tokens. Not of the position
    alone: a position that was drafted and refused is drawn again, and numbers used twice for it bias block
    verification. A hash of all four (SHAKE128), worked out here: it costs the device nothing, and on a small model the
    operations of a generator would cost as much as a layer.
    """
    asked = struct.pack("<QQQB", seed, num_tokens, offset, purpose)
    words = struct.unpack(f"<{count}I", hashlib.shake_128(asked).digest(4 * count))
    return mx.array([(word >> 8) * 2.0**-24 for word in words], mx.float32)
