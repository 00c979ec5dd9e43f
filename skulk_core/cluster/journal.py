"""What must not be lost with a host: the text as far as it was told of, and how it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skulk_core.decode.stats import Round


@dataclass
class Journal:
    """One text. Its ``answer`` ends where a round ended, so the seed and its length say what is drawn next."""

    text: int
    prompt: Sequence[int]
    request: dict[str, Any]
    answer: list[int] = field(default_factory=list)
    go_on: bool = False

    def prefill_frame(self) -> dict[str, Any]:
        """What a decider needs to be where the text is."""
        fields = {"text": self.text, "prompt": list(self.prompt), "answer": self.answer, "go_on": self.go_on}
        return {**self.request, **fields}

    def took(self, round_: Round) -> None:
        """A round was told of."""
        self.answer += round_.tokens
