"""From tokens to text as it can be shown: whole characters, and nothing of a stop string."""

from collections.abc import Sequence
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer


class TextStream:
    """Turns tokens into text piece by piece, over an mlx-lm tokenizer.

    Text that could be the beginning of a stop string is held back until it is not. `stopped` turns true at the first
    stop string; it and what follows never come out.

    The text of a whole stream is ``tokenizer.decode(tokens)``, a space that it begins with included. Tokenizers of the
    SentencePiece kind take that space for the beginning of any text and drop it; with ``continues``, for a text that
    goes on where a prompt ends, it stays: prompt and text, one after the other, are what prompt and tokens decode to.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), *, continues: bool = False) -> None:
        assert all(stop), "an empty stop string"
        self._detokenizer = tokenizer.detokenizer
        keeps_space = BPEStreamingDetokenizer, *((SPMStreamingDetokenizer,) if continues else ())
        if isinstance(self._detokenizer, keeps_space):
            # both drop the first space of an empty text
            self._detokenizer.text = "\n"
            self._detokenizer.offset = 1
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, tokens: Sequence[int]) -> tuple[str, int]:
        """Text that ``tokens`` add, as far as it is complete, and how many of them were taken: no more after a stop."""
        out, num_taken = "", 0
        for token in tokens:
            if self.stopped:
                break
            self._detokenizer.add_token(token)
            out += self._advance(self._detokenizer.last_segment)
            num_taken += 1
        return out, num_taken

    def finish(self) -> str:
        """Text still held back at the end, incomplete characters as replacement characters."""
        if self.stopped:
            return ""
        self._detokenizer.finalize()
        out = self._advance(self._detokenizer.last_segment)
        if not self.stopped:
            out += self._held
            self.text += self._held
            self._held = ""
        return out

    def _advance(self, segment: str) -> str:
        pending = self._held + segment
        found = [at for at in (pending.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            out, self._held = pending[: min(found)], ""
        else:
            cut = len(pending) - max((_overlap(pending, stop) for stop in self._stop), default=0)
            out, self._held = pending[:cut], pending[cut:]
        self.text += out
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
