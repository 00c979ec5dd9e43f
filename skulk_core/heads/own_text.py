"""Texts that a target itself writes, with the hidden rows it wrote them from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from skulk_core.models.base import Hidden, Target
from skulk_core.models.loading import LoadedModel

# Openings of several kinds of text, so that no model has nothing to say to most of them.
_OPENINGS = (
    "The history of the printing press begins",
    "def read_lines(path):\n    ",
    "Dear Maria,\n\nThank you for",
    "To bake bread at home, you first need",
    "The server handles each request",
    "A prime number is",
    "Once upon a time there was a",
    "Question: What causes rain?\nAnswer:",
    "# Installation\n\nTo install the package,",
    "The committee met on Tuesday and",
    "Return the number of",
    "In the morning the ship",
    "Water boils at",
    "import json\n\n",
    "The city lies on the river",
    "If you have any questions,",
)
TOKENS_OF_A_TEXT = 48
# Tokens handed to the device before one is waited for.
_TOKENS_AHEAD = 8


@dataclass(frozen=True)
class OwnText:
    """A prompt of ``start`` tokens and what the target wrote after it: ``tokens`` ``[N]``, greedily chosen.

    ``hidden`` are the rows ``[N - 1]`` of all tokens but the last; a stop token ends a text.
    """

    tokens: tuple[int, ...]
    start: int
    hidden: Hidden


def write_texts(
    model: LoadedModel, progress: Callable[[], None], num_tokens: int = TOKENS_OF_A_TEXT
) -> Iterator[OwnText]:
    """A text for each of our openings, each as it is asked for; ``progress`` is called every few tokens."""
    stop_tokens = frozenset(model.tokenizer.eos_token_ids)
    for opening in _OPENINGS:
        prompt = tuple(model.tokenizer.encode(opening))
        if prompt:
            yield write(model.target, prompt, num_tokens, stop_tokens, progress)


def write(
    target: Target, prompt: Sequence[int], num_tokens: int, stop_tokens: frozenset[int], progress: Callable[[], None]
) -> OwnText:
    """At most ``num_tokens`` after ``prompt``, by plain greedy decoding."""
    caches, tokens = target.make_caches(), mx.array(list(prompt), mx.int32)
    rows: list[Hidden] = []
    written: list[int] = []
    waiting: list[mx.array] = []
    while len(written) < num_tokens and not (written and written[-1] in stop_tokens):
        hidden = target.hidden(target.run_and_commit(target.embed(tokens, caches.rows), caches))
        tokens = mx.argmax(target.logits(hidden.post_norm[-1:]), axis=-1).astype(mx.int32)
        mx.async_eval(tokens)
        rows.append(hidden)
        waiting.append(tokens)
        if len(waiting) == min(_TOKENS_AHEAD, num_tokens - len(written)):
            for token in np.array(mx.concatenate(waiting)):
                written.append(int(token))
                if written[-1] in stop_tokens:
                    break
            waiting = []
            progress()
    all_rows = Hidden(mx.concatenate([row.pre_norm for row in rows]), mx.concatenate([row.post_norm for row in rows]))
    # what was written after a stop token was never asked for
    return OwnText((*prompt, *written), len(prompt), all_rows.rows(0, len(prompt) + len(written) - 1))
