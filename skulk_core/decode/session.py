"""One loaded model and its texts: prompt in, pieces of text out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from mlx_lm.generate import wired_limit

from skulk_core.decode.decoder import Decoder, Progress
from skulk_core.decode.stats import Stats
from skulk_core.decode.text import TextStream
from skulk_core.errors import ContextError, PromptError
from skulk_core.heads.base import DraftHead
from skulk_core.models.loading import LoadedModel
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.types import FinishReason

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class Request:
    """What to decode. ``max_tokens`` None: `DEFAULT_MAX_TOKENS`, or what the context leaves."""

    prompt: tuple[int, ...]
    depth: int
    max_tokens: int | None = None
    context_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def allowed_tokens(self) -> int:
        """New tokens this request may have. Raises `PromptError`, `ContextError`."""
        if not self.prompt:
            raise PromptError("the prompt is empty")
        if self.context_tokens is None:
            return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        left = self.context_tokens - len(self.prompt)
        if self.max_tokens is not None and self.max_tokens > left:
            raise ContextError(len(self.prompt), self.context_tokens, self.max_tokens)
        if left < 1:
            raise ContextError(len(self.prompt), self.context_tokens)
        return min(left, DEFAULT_MAX_TOKENS) if self.max_tokens is None else self.max_tokens


@dataclass
class Outcome:
    """What a text came to. Grows while it is decoded.

    ``tokens`` are those of the text: up to and with the one that completed a stop string, without a stop token. Of an
    interrupted text the last ones may not be in ``text`` yet: an incomplete character, a possible stop string.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason = FinishReason.INTERRUPTED
    stats: Stats = field(default_factory=Stats)


class Session:
    """Decodes requests on one model, one at a time."""

    def __init__(self, model: LoadedModel, head: DraftHead | None) -> None:
        self._model = model
        self._decoder = Decoder(model.target, head, GreedySampler())

    def encode(self, prompt: str, *, raw: bool) -> tuple[int, ...]:
        """Prompt tokens: through the chat template where the tokenizer has one, unless ``raw``."""
        tokenizer: Any = self._model.tokenizer
        if tokenizer.has_chat_template and not raw:
            messages = [{"role": "user", "content": prompt}]
            try:
                return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
            except TemplateError as error:
                raise PromptError(f"the chat template cannot be applied ({error}); try --raw") from error
        return tuple(tokenizer.encode(prompt))

    def decode(self, request: Request, outcome: Outcome, progress: Progress | None = None) -> Iterator[str]:
        """A piece of text for every round, empty if none is complete; ``outcome`` is filled as they come.

        So whoever takes the pieces may stop after any of them, and has what came until then.
        """
        max_tokens = request.allowed_tokens()
        stop_tokens = frozenset(self._model.tokenizer.eos_token_ids)
        stream = TextStream(self._model.tokenizer, request.stop)
        ended = False
        with wired_limit(self._model.target.model):
            for tokens in self._tokens(request, max_tokens, stop_tokens, outcome, progress):
                ended = tokens[-1] in stop_tokens
                piece, num_taken = stream.push(tokens[:-1] if ended else tokens)
                outcome.tokens += tokens[:num_taken]
                outcome.text = stream.text
                yield piece
                if ended or stream.stopped:
                    break
        piece = stream.finish()
        outcome.text = stream.text
        outcome.finish_reason = FinishReason.STOP if ended or stream.stopped else FinishReason.LENGTH
        yield piece

    def _tokens(
        self,
        request: Request,
        max_tokens: int,
        stop_tokens: frozenset[int],
        outcome: Outcome,
        progress: Progress | None,
    ) -> Iterator[Sequence[int]]:
        try:
            first = self._decoder.prefill(request.prompt, request.depth, progress)
        finally:
            # the decoder counts every text anew
            outcome.stats = self._decoder.stats
        yield [first]
        if first not in stop_tokens:
            for round_ in self._decoder.rounds(max_tokens - 1, stop_tokens):
                yield round_.tokens
