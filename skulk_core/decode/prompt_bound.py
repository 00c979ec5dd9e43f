"""The fewest tokens that a text can be, from its length alone: what is far too long is refused without encoding it."""

from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer

# Normalisation (NFC, for one) makes no text shorter than this part of its bytes.
_LEAST_NORMALISED = 1 / 4


def least_tokens(tokenizer: Any, text: str) -> int:
    """No more tokens than ``text`` is encoded to by an mlx-lm ``tokenizer``; 0 where nothing is certain.

    Of byte-level tokenizers every byte is in some token, so there are as many as the longest fits into the text. White
    space is not counted: chat templates cut it off, and some special tokens swallow it.
    """
    if not isinstance(tokenizer.detokenizer, BPEStreamingDetokenizer):
        return 0
    longest = max(len(token.encode("utf-8")) for token in tokenizer.get_vocab())
    return int(len("".join(text.split()).encode("utf-8")) * _LEAST_NORMALISED / longest)
