"""`skulk run`: one prompt, one streamed answer."""

import json
import sys
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.errors import guarded
from cli.loading import Choice, Loaded, load
from cli.program import EXIT_INTERRUPTED, Interrupts, interrupts_at_checks
from cli.render import Reporter, figures, out, out_answer
from skulk_core.errors import OptionError, PromptError
from skulk_core.hub.refs import DEMO
from skulk_core.types import FinishReason

if TYPE_CHECKING:
    from skulk_core.decode.session import Outcome, Request, Session

JSON_SCHEMA = 1
# The demo model writes in the manner of Python's documentation, and repeats itself before long: of 75 openings tried,
# the one whose continuation reads best, as far as it does.
DEMO_PROMPT = "The server handles each request in a separate thread. If"
DEMO_TOKENS = 96


@guarded
def run_command(
    model: options.Model,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; `-` reads it from stdin. Only the demo has one of its own.")
    ] = None,
    draft_depth: Annotated[
        int | None,
        typer.Option(
            help="Tokens drafted a round; 0 is plain decoding. Default: what the catalog says, else 1; with the demo 4."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help=f"New tokens at most. Default: 512, or what the context leaves; the demo's own prompt: {DEMO_TOKENS}."
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together. Default: the model's own.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that ends the answer and is not part of it; may be given more than once. Default: none."
        ),
    ] = None,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    convention: options.Convention = None,
    raw: Annotated[bool, typer.Option("--raw", help="Feed the prompt as it is, without the chat template.")] = False,
    allow_plain: Annotated[
        bool, typer.Option("--allow-plain", help="Decode without speculation if no draft head can be used.")
    ] = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Answer a prompt with multi-token prediction: the text of plain decoding, sooner."""
    options.at_least("--draft-depth", draft_depth, 0)
    options.at_least("--max-tokens", max_tokens, 1)
    options.at_least("--context", context, 1)
    stops = options.read_stops(stop)
    text = _prompt(model, prompt)
    reporter = Reporter(quiet=quiet, verbose=verbose)
    if prompt is None:
        reporter.note(f"prompt: {text}")
        max_tokens = DEMO_TOKENS if max_tokens is None and context is None else max_tokens
    with reporter.working():
        loaded = load(Choice(model, sidecar, draft_depth, dtype, head_precision, convention, allow_plain), reporter)
    from skulk_core.decode.session import Outcome, Request, Session

    session = Session(loaded.model, loaded.head.head if loaded.head else None)
    request = Request(
        prompt=session.encode(text, raw=raw),
        depth=loaded.depth,
        max_tokens=max_tokens,
        context_tokens=_context(loaded, context),
        stop=stops,
    )
    outcome = Outcome()
    with interrupts_at_checks() as interrupts:
        try:
            _decode(session, request, outcome, reporter, interrupts, print_text=not json_output)
        except (KeyboardInterrupt, RuntimeError):
            # Ctrl-C also ends the compiler that MLX may be waiting for
            if not interrupts.pending:
                raise
            outcome.finish_reason = FinishReason.INTERRUPTED
        out((json.dumps(_as_json(loaded, outcome)) if json_output else "") + "\n")
        reporter.note(figures(outcome.stats, len(outcome.tokens), loaded.plain_because))
    if outcome.finish_reason is FinishReason.INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


def _decode(
    session: "Session",
    request: "Request",
    outcome: "Outcome",
    reporter: Reporter,
    interrupts: Interrupts,
    *,
    print_text: bool,
) -> None:
    """Decode to the end, with progress until the text begins, or all along where it is not printed."""

    def on_prompt(done: int, total: int) -> None:
        reporter.tokens(done, total)
        interrupts.check()

    pieces = session.decode(request, outcome, on_prompt)
    if not print_text:
        with reporter.working():
            for _ in pieces:
                reporter.step("answering")
                interrupts.check()
        return
    with reporter.working():
        first = next(pieces)
    for piece in chain([first], pieces):
        out_answer(piece)
        interrupts.check()


def _prompt(model: str, argument: str | None) -> str:
    """The prompt's text. Raises `PromptError`."""
    if argument is None:
        if model != DEMO:
            raise PromptError("no prompt was given")
        return DEMO_PROMPT
    if argument == "-":
        try:
            raw = sys.stdin.buffer.read()
        except OSError as error:
            raise PromptError(f"stdin cannot be read: {error.strerror or error}") from error
        try:
            argument = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PromptError(
                f"stdin is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}"
            ) from error
    if not options.is_utf8(argument):
        raise PromptError("the prompt is not UTF-8 text")
    if not argument.strip():
        raise PromptError("the prompt is empty")
    return argument


def _context(loaded: Loaded, asked: int | None) -> int | None:
    """Context in tokens: the model's own, or less if asked. Raises `OptionError` for more."""
    own = loaded.model.context_tokens
    if asked is not None and own is not None and asked > own:
        raise OptionError("--context", asked, f"the model was made for {own} tokens")
    return asked or own


def _as_json(loaded: Loaded, outcome: "Outcome") -> dict[str, object]:
    stats = outcome.stats
    return {
        "schema": JSON_SCHEMA,
        "model": str(loaded.source),
        "sidecar": loaded.head_name,
        "text": outcome.text,
        "tokens": outcome.tokens,
        "finish_reason": outcome.finish_reason,
        "plain_because": loaded.plain_because,
        "stats": {
            "prompt_tokens": stats.prompt_tokens,
            "prefill_s": stats.prefill_s,
            "decode_s": stats.decode_s,
            "decode_tokens_per_s": stats.decode_tokens_per_s,
            "rounds": stats.rounds,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance": stats.acceptance,
            "tokens_per_round": stats.tokens_per_round,
            "draft_depth": stats.draft_depth,
            "synchronisations": stats.synchronisations,
            "extra_passes": stats.extra_passes,
        },
    }
