"""`skulk run`: one prompt, one streamed answer."""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli import cluster, options, sampling
from cli.answers import certified, decode_answer, say_if_full
from cli.depth import DraftDepth, make_policy, read_depth
from cli.errors import guarded
from cli.loading import NGRAM_NAME, Choice, Loaded, load
from cli.program import EXIT_INTERRUPTED, interrupts_at_checks
from cli.render import Reporter, dead_head_line, figures, out
from cli.run_json import as_json
from skulk_core.errors import (
    CertificateError,
    ClusterError,
    ClusterLost,
    OptionError,
    OutOfMemory,
    PromptError,
    SkulkError,
)
from skulk_core.hub.refs import DEMO, parse_trunk
from skulk_core.runtime.device import load_mlx
from skulk_core.types import Exactness, FinishReason

if TYPE_CHECKING:
    from skulk_core.sampling.settings import SamplingSettings

# The demo model writes in the manner of Python's documentation, and repeats itself before long: of 75 openings tried,
# the one whose continuation reads best, as far as it does.
DEMO_PROMPT = "The server handles each request in a separate thread. If"
DEMO_TOKENS = 96


@guarded
def run_command(
    model: options.Model,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="The prompt; `-` reads it from stdin. Without one a chat begins, if stdin and stdout are a terminal; "
            "the demo has a prompt of its own."
        ),
    ] = None,
    draft_depth: DraftDepth = None,
    draft: options.DraftWith = "head",
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
    temperature: sampling.Temperature = 0.0,
    top_p: sampling.TopP = 1.0,
    top_k: sampling.TopK = 0,
    min_p: sampling.MinP = 0.0,
    repetition_penalty: sampling.RepetitionPenalty = 1.0,
    presence_penalty: sampling.PresencePenalty = 0.0,
    frequency_penalty: sampling.FrequencyPenalty = 0.0,
    logit_bias: sampling.LogitBias = None,
    seed: sampling.Seed = None,
    accept: sampling.Accept = "block",
    exactness: sampling.ExactnessLevel = "argmax",
    certify: sampling.Certify = False,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    convention: options.Convention = None,
    raw: Annotated[bool, typer.Option("--raw", help="Feed the prompt as it is, without the chat template.")] = False,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Hold a conversation, as at a terminal without PROMPT; with PROMPT it begins so."),
    ] = False,
    allow_plain: Annotated[
        bool, typer.Option("--allow-plain", help="Decode without speculation if no draft head can be used.")
    ] = False,
    peers: cluster.Peers = None,
    shard: cluster.Shard = "auto",
    split: cluster.Split = None,
    backend: cluster.Backend = "ring",
    link: cluster.Link = None,
    push: cluster.Push = False,
    allow_public_link: cluster.AllowPublicLink = False,
    json_output: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object on stdout instead, when the answer has ended. Its fields are explained by "
            "`python -m pydoc cli.run_json`.",
        ),
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Answer a prompt with multi-token prediction: the text of plain decoding, sooner."""
    depth = read_depth(draft_depth)
    options.at_least("--max-tokens", max_tokens, 1)
    options.at_least("--context", context, 1)
    stops = options.read_stops(stop)
    from skulk_core.sampling.settings import AcceptRule, SamplingSettings

    chosen = SamplingSettings(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=sampling.read_biases(logit_bias),
        seed=sampling.new_seed() if seed is None else seed,
        accept=AcceptRule(accept),
    )
    if not chosen.is_greedy and (certify or exactness != "argmax"):
        option = "--certify" if certify else "--exactness"
        raise OptionError(option, "", "drawn tokens cannot be compared with plain decoding's; use temperature 0")
    chats = chat or (prompt is None and model != DEMO and not json_output and _at_terminal())
    text = _first_said(prompt, json_output) if chats else _prompt(model, prompt)
    reporter = Reporter(quiet=quiet, verbose=verbose)
    if prompt is None and not chats:
        reporter.note(f"prompt: {text}")
        max_tokens = DEMO_TOKENS if max_tokens is None and context is None else max_tokens
    choice = Choice(model, sidecar, depth, dtype, head_precision, convention, allow_plain, draft)
    asked = _Asked(
        text,
        chats,
        raw,
        max_tokens,
        context,
        stops,
        chosen,
        exactness,
        certify,
        json_output,
        seed is not None and depth is None,
    )
    if peers is None:
        cluster.refuse_alone(
            shard=shard, split=split, backend=backend, link=link, push=push, allow_public_link=allow_public_link
        )
        with reporter.working():
            loaded = load(choice, reporter)
        _answer(loaded, asked, reporter)
        return
    over = cluster.Spread(
        peers,
        shard,
        split,
        backend,
        tuple(link or ()),
        allow_public_link,
        push,
        context,
        expected=_expected(text, max_tokens),
    )
    with cluster.spread(choice, over, reporter) as loaded:
        _answer(loaded, asked, reporter)


@dataclass(frozen=True)
class _Asked:
    """What is to be answered, and how."""

    text: str | None
    chats: bool
    raw: bool
    max_tokens: int | None
    context: int | None
    stops: tuple[str, ...]
    sampling: "SamplingSettings"
    exactness: str
    certify: bool
    json_output: bool
    # what is drawn must come again with this seed
    repeatable: bool


def _answer(loaded: Loaded, asked: _Asked, reporter: Reporter) -> None:
    """Answer one prompt, or hold a conversation."""
    from skulk_core.decode.session import Outcome, Request, Session

    session = Session(loaded.model, loaded.drafter, loaded.engine)
    text, chosen, json_output = asked.text, asked.sampling, asked.json_output
    context = _context(loaded, asked.context)
    if text is not None and not asked.chats:
        session.refuse_what_cannot_fit(text, context)
    encoded = () if asked.chats or text is None else session.encode(text, raw=asked.raw)
    with reporter.working():
        policy = make_policy(loaded, chosen, reporter, repeatable=asked.repeatable)
    request = Request(
        prompt=encoded,
        depth=policy,
        max_tokens=asked.max_tokens,
        context_tokens=context,
        stop=asked.stops,
        sampling=chosen,
        exactness=Exactness(asked.exactness),
        continues=not asked.chats and (asked.raw or not session.has_chat_template),
    )
    if asked.chats:
        from cli.chat import run_chat
        from cli.chat_commands import Chat
        from skulk_core.decode.conversation import converse

        conversation = converse(session, raw=asked.raw)
        run_chat(Chat(session, loaded, conversation, request, reporter, asked.certify, loaded.depth), text)
        return
    outcome = Outcome()
    lost: SkulkError | None = None
    with interrupts_at_checks() as interrupts:
        try:
            decode_answer(session, request, outcome, reporter, interrupts, print_text=not json_output)
        except (KeyboardInterrupt, RuntimeError):
            # Ctrl-C also ends the compiler that MLX may be waiting for
            if not interrupts.pending:
                raise
            outcome.finish_reason = FinishReason.INTERRUPTED
        except ClusterLost as error:
            # what was decoded is worth as much as after Ctrl-C
            outcome.finish_reason, lost = FinishReason.INTERRUPTED, error
        if not json_output:
            out("\n")
        say_if_full(outcome)
        reporter.note(figures(outcome.stats, len(outcome.tokens), loaded.plain_because))
        if loaded.head_name != NGRAM_NAME and (suspicion := dead_head_line(outcome.stats, str(loaded.source.ref))):
            reporter.note(suspicion)
        certificate = None
        if asked.certify and outcome.finish_reason is not FinishReason.INTERRUPTED:
            try:
                certificate = certified(session, request, outcome, reporter, interrupts)
            except (ClusterError, OutOfMemory) as error:
                lost = error
        if json_output:
            out(json.dumps(as_json(loaded, outcome, chosen, certificate, lost)) + "\n")
    if lost is not None:
        raise lost
    if outcome.finish_reason is FinishReason.INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)
    if certificate is not None and not certificate.holds:
        raise CertificateError(certificate.divergences[0].position, len(certificate.divergences), certificate.bound)


def _expected(text: str | None, max_tokens: int | None) -> int:
    """Tokens to plan for, before there is a tokenizer: English has some four bytes a token, other languages three."""
    load_mlx()
    from skulk_core.decode.session import DEFAULT_MAX_TOKENS

    return len((text or "").encode()) // 3 + (max_tokens or DEFAULT_MAX_TOKENS)


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _first_said(prompt: str | None, json_output: bool) -> str | None:
    """What a conversation begins with, if it was given. Raises `PromptError`."""
    if json_output:
        raise PromptError("--json prints one answer, and a chat has many")
    if prompt == "-":
        raise PromptError("`-` reads a prompt from stdin, where a chat reads what is said")
    if prompt is not None and not options.is_utf8(prompt):
        raise PromptError("the prompt is not UTF-8 text")
    return prompt if prompt and prompt.strip() else None


def _prompt(model: str, argument: str | None) -> str:
    """The prompt's text. Raises `PromptError`, and `ModelNameError` where there is neither."""
    if argument is None:
        if model != DEMO:
            # a name that is no model's is the greater mistake
            parse_trunk(model)
            raise PromptError("no prompt was given")
        return DEMO_PROMPT
    if argument == "-":
        try:
            raw = sys.stdin.buffer.read()
        except OSError as error:
            raise PromptError(f"stdin cannot be read: {error.strerror or error}") from error
        try:
            # the mark that some editors begin a file with is no part of its text
            argument = raw.decode("utf-8").removeprefix("\ufeff")
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
