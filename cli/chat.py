"""`skulk run MODEL` at a terminal: one conversation, its text on stdout, everything else on stderr."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from cli.answers import certified, decode_answer, say_if_full
from cli.chat_commands import Chat, run_command_line
from cli.chat_input import LineReader, line_reader, read_message
from cli.errors import advice, from_mlx
from cli.program import EXIT_INTERRUPTED, Interrupts, interrupts_at_checks
from cli.render import figures, out, say_error
from skulk_core.errors import CertificateError, ContextError, MemoryFull, OptionError, PromptError
from skulk_core.types import FinishReason

if TYPE_CHECKING:
    from skulk_core.decode.conversation import Prompt
    from skulk_core.decode.session import Outcome, Request


def run_chat(chat: Chat, first: str | None) -> None:
    """Answer what is said until the person leaves; ``first`` is said already.

    Raises `typer.Exit` if they left by Ctrl-C.
    """
    chat.reporter.note("/help lists what can be done here; Ctrl-C stops an answer, Ctrl-D leaves")
    line = line_reader()
    with interrupts_at_checks() as interrupts:
        if first is not None:
            _told(chat, lambda: _answer(chat, first, interrupts))
        while not chat.has_left:
            try:
                _told(chat, lambda: _next(chat, line, interrupts))
            except (EOFError, KeyboardInterrupt) as leaving:
                if sys.stdin.isatty() and sys.stdout.isatty():
                    out("\n")
                if isinstance(leaving, KeyboardInterrupt):
                    raise typer.Exit(EXIT_INTERRUPTED) from leaving
                return


def _next(chat: Chat, line: LineReader, interrupts: Interrupts) -> None:
    """Read what is said or asked for and do it."""
    typed = read_message(line)
    if not typed.verbatim and typed.text.startswith("/"):
        run_command_line(chat, typed.text)
    elif typed.text.strip():
        _answer(chat, typed.text, interrupts)
    elif chat.conversation.goes_on_by_itself:
        _answer(chat, "", interrupts)


def _told(chat: Chat, step: Callable[[], None]) -> None:
    """Take a step; what is wrong with what was typed is told, and the conversation stays as it was."""
    try:
        step()
    except ContextError as error:
        say_error(str(error), "/reset begins a new conversation; a greater --context may be possible.")
    except PromptError as error:
        say_error(str(error), "")
    except MemoryFull as error:
        say_error(str(error), "/reset begins a new conversation, which needs less.")
    except OptionError as error:
        say_error(str(error), "/help lists the commands, /show the settings.")
    except RuntimeError as error:
        ours = from_mlx(error)
        if ours is None:
            raise
        say_error(str(ours), advice(ours)[0])


def _answer(chat: Chat, said: str, interrupts: Interrupts) -> None:
    """Decode an answer, print it, remember it as far as it came."""
    from skulk_core.decode.session import Outcome

    prompt = chat.conversation.after(said)
    request = _fitting(replace(chat.request, prompt=prompt.tokens, go_on=not chat.read_again))
    outcome = Outcome()
    try:
        decode_answer(chat.session, request, outcome, chat.reporter, interrupts, print_text=True)
    except (KeyboardInterrupt, RuntimeError):
        # Ctrl-C also ends the compiler that MLX may be waiting for
        if not interrupts.pending:
            raise
    finally:
        _remember(chat, prompt, outcome)
    out("\n")
    chat.reporter.note(figures(outcome.stats, len(outcome.tokens), chat.loaded.plain_because))
    _say_why_it_ended(chat, request, outcome)
    if chat.certifies and outcome.tokens and not interrupts.pending:
        try:
            certificate = certified(chat.session, request, outcome, chat.reporter, interrupts)
        except KeyboardInterrupt:
            chat.reporter.note("not compared with plain decoding: stopped")
            return
        if not certificate.holds:
            raise CertificateError(certificate.divergences[0].position, len(certificate.divergences), certificate.bound)


def _fitting(request: "Request") -> "Request":
    """With no more new tokens than the context leaves; if it leaves none, decoding says so."""
    if request.max_tokens is None or request.context_tokens is None:
        return request
    left = request.context_tokens - len(request.prompt)
    return replace(request, max_tokens=min(request.max_tokens, left) if left > 0 else None)


def _remember(chat: Chat, prompt: "Prompt", outcome: "Outcome") -> None:
    if outcome.tokens or outcome.finish_reason is FinishReason.STOP:
        chat.conversation.answered(prompt, outcome)
        chat.outcome, chat.read_again = outcome, False


def _say_why_it_ended(chat: Chat, request: "Request", outcome: "Outcome") -> None:
    """Where it is not the model that ended the answer."""
    note = chat.reporter.note
    if outcome.finish_reason is FinishReason.INTERRUPTED:
        note("stopped" if outcome.tokens else "stopped before the answer began: what was said is not remembered")
        return
    if outcome.finish_reason is not FinishReason.LENGTH:
        return
    if outcome.stats.full is not None:
        say_if_full(outcome)
        return
    if request.context_tokens is not None and len(request.prompt) + len(outcome.tokens) >= request.context_tokens:
        note(f"the context of {request.context_tokens} tokens is full: /reset begins a new conversation")
    else:
        goes_on = "; an empty line lets it go on" if chat.conversation.goes_on_by_itself else ""
        note(f"cut after {len(outcome.tokens)} tokens: /set max-tokens N allows more{goes_on}")
