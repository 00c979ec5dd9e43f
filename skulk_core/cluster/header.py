"""What travels before every window: one array of fixed size, so that whoever waits for it knows what to receive.

    [epoch, text, round, flags, committed, width, position, window, base, 0 …, token ids …]

``committed`` are the rows of the window before that stay; the others never were. ``window`` numbers the windows of an
epoch, and ``base`` is the window whose verdict this one builds upon, always the one before while no window runs ahead
of a verdict. Tokens beyond `INLINE_TOKENS`, those of a prompt, follow in a message of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

import mlx.core as mx

INLINE_TOKENS = 16
FIRST_TOKEN = 16
HEADER_SIZE = FIRST_TOKEN + INLINE_TOKENS


class Flag(IntFlag):
    """What kind of window it is."""

    NEW_TEXT = 1
    """Every cache is to be empty before it."""
    KEEP_ALL = 2
    """Every row stays: a prompt's. The window after it repeats so in ``committed``."""
    LAST_ROW = 4
    """Of the last layer's rows only the last is wanted. Ranks that share that layer must run it alike."""


@dataclass(frozen=True)
class Header:
    """One window of ``width`` rows, the first at ``position``."""

    epoch: int
    text: int
    round: int
    flags: Flag
    committed: int
    width: int
    position: int
    window: int
    base: int

    @property
    def has_tokens(self) -> bool:
        """Whether the header's message holds the tokens too."""
        return self.width <= INLINE_TOKENS

    def packed(self, tokens: mx.array) -> mx.array:
        """The message ``[HEADER_SIZE]`` int32; ``tokens`` ``[width]`` need not be evaluated yet."""
        fields = [
            self.epoch,
            self.text,
            self.round,
            int(self.flags),
            self.committed,
            self.width,
            self.position,
            self.window,
            self.base,
        ]
        head = mx.array(fields + [0] * (FIRST_TOKEN - len(fields)), mx.int32)
        inline = tokens if self.has_tokens else mx.zeros((0,), mx.int32)
        missing = INLINE_TOKENS - inline.shape[0]
        return mx.concatenate([head, inline, mx.zeros((missing,), mx.int32)] if missing else [head, inline])


def unpacked(values: Sequence[int]) -> Header:
    """A header from the values of its message."""
    epoch, text, round_, flags, committed, width, position, window, base = values[:9]
    return Header(epoch, text, round_, Flag(flags), committed, width, position, window, base)
