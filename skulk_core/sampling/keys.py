"""Where randomness comes from: one key for each thing that is drawn, from the seed and its place in the text."""

import hashlib
import struct
from enum import IntEnum

import mlx.core as mx


class Purpose(IntEnum):
    """What a key is for."""

    DRAFT = 1
    VERDICT = 2


def key(seed: int, num_tokens: int, offset: int, purpose: Purpose) -> mx.array:
    """The key of what is drawn for ``purpose`` at ``offset`` of the round that starts after ``num_tokens`` tokens.

    Not of the position alone: a position that was drafted and refused is drawn again, and a key used twice for it
    biases block verification.
    """
    return mx.random.key(key_bits(seed, num_tokens, offset, purpose))


def key_bits(seed: int, num_tokens: int, offset: int, purpose: Purpose) -> int:
    """The 64 bits of `key`, a hash of all four."""
    digest = hashlib.blake2b(struct.pack("<QQQB", seed, num_tokens, offset, purpose), digest_size=8).digest()
    return int.from_bytes(digest, "little")
