"""What a line that begins with a slash does in a chat."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from cli import sampling
from cli.depth import Auto, make_policy, read_depth
from cli.loading import Loaded
from cli.render import Reporter, figures, say
from skulk_core.errors import OptionError
from skulk_core.formats.suggest import near_miss
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.types import Exactness

if TYPE_CHECKING:
    from skulk_core.decode.conversation import Conversation
    from skulk_core.decode.session import Outcome, Request, Session

MAX_TOKENS = "max_tokens"


@dataclass
class Chat:
    """A conversation and how it is decoded. ``request`` holds all but the prompt; ``outcome`` is the last answer's.

    ``read_again``: the head was used for something else since, so the next prompt must be read from its beginning.
    """

    session: "Session"
    loaded: Loaded
    conversation: "Conversation"
    request: "Request"
    reporter: Reporter
    certifies: bool = False
    depth: int | Auto = 0
    outcome: "Outcome | None" = None
    read_again: bool = False
    has_left: bool = False

    def choose_depth(self, depth: int | Auto, settings: SamplingSettings) -> None:
        """Decode at this depth from now on; for `auto`, with the costs that ``settings`` make."""
        if depth != 0 and not self.loaded.can_draft:
            raise OptionError("/depth", depth, f"nothing can be drafted here ({self.loaded.plain_because})")
        with self.reporter.working():
            policy = make_policy(self.loaded, settings, self.reporter, depth)
        self.depth, self.request = depth, replace(self.request, depth=policy)
        # measuring may have read another text with the head
        self.read_again = self.read_again or depth == "auto"

    def sample(self, settings: SamplingSettings) -> None:
        """Choose tokens so from now on. Raises `OptionError`."""
        if not settings.is_greedy and (self.certifies or self.request.exactness is Exactness.STRICT):
            raise OptionError(
                "--temperature",
                settings.temperature,
                "drawn tokens cannot be compared with plain decoding's, which --certify and --exactness strict do",
            )
        if self.depth == "auto":
            self.choose_depth("auto", settings)
        self.request = replace(self.request, sampling=settings)


@dataclass(frozen=True)
class Command:
    """What is typed after the name, what it does, for a person, and who does it."""

    usage: str
    help: str
    run: Callable[[Chat, str], None]


def run_command_line(chat: Chat, line: str) -> None:
    """Do what a line that begins with a slash asks for. Raises `OptionError`."""
    name, _, argument = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        raise OptionError("command", f"/{name}", f"no such command{near_miss(name, COMMANDS)}")
    COMMANDS[name].run(chat, argument.strip())


def _help(chat: Chat, argument: str) -> None:
    shown = {f"/{name} {command.usage}".strip(): command.help for name, command in COMMANDS.items()}
    shown |= {
        "\\ at the end": "the line goes on in the next one",
        '"""': "begins and ends a block of lines, in which a slash is nothing special",
        "Ctrl-C": "stops the answer; where nothing is being answered it leaves, as Ctrl-D does",
    }
    if chat.conversation.goes_on_by_itself:
        shown["an empty line"] = "lets the text go on"
    _say_table(shown)


def _stats(chat: Chat, argument: str) -> None:
    if chat.outcome is None:
        say("nothing was answered yet")
        return
    stats, context = chat.outcome.stats, chat.request.context_tokens
    say(figures(stats, len(chat.outcome.tokens), chat.loaded.plain_because))
    read = stats.prompt_tokens - stats.reused_tokens
    say(f"prompt: {stats.prompt_tokens} tokens, {stats.reused_tokens} reused, {read} read in {stats.prefill_s:.2f} s")
    limit = "" if context is None else f" of {context}"
    say(f"conversation: {chat.conversation.num_tokens}{limit} tokens")


def _depth(chat: Chat, argument: str) -> None:
    depth = read_depth(argument or None)
    if depth is None:
        say(f"depth {chat.depth}")
        return
    chat.choose_depth(depth, chat.request.sampling)


def _set(chat: Chat, argument: str) -> None:
    if not argument:
        _show(chat, "")
        return
    name, _, value = argument.partition(" ")
    field, value = name.removeprefix("--").replace("-", "_"), value.strip()
    option = _option(field)
    known = settable()
    if field not in known:
        raise OptionError("setting", name, f"no such setting{near_miss(option, map(_option, known))}")
    try:
        read = known[field](value)
    except ValueError:
        raise OptionError(option, value or '""', "not a number") from None
    if field == MAX_TOKENS:
        if not isinstance(read, int) or read < 1:
            raise OptionError(option, value, "must be at least 1")
        chat.request = replace(chat.request, max_tokens=read)
        return
    changes: dict[str, object] = {field: read}
    chat.sample(replace(chat.request.sampling, **changes))  # type: ignore[arg-type]


def settable() -> dict[str, Callable[[str], object]]:
    """What `/set` can change, and how its value is read: every sampling setting by its type, and the length."""
    readers: dict[str, Callable[[str], object]] = {"float": float, "int": int, "AcceptRule": _rule}
    by_type: dict[str, Callable[[str], object]] = {}
    for field in fields(SamplingSettings):
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        by_type[field.name] = readers.get(kind, _biases)
    return by_type | {MAX_TOKENS: int}


def _rule(text: str) -> AcceptRule:
    rules = [rule.value for rule in AcceptRule]
    if text not in rules:
        raise OptionError("--accept", text, f"not one of {', '.join(rules)}{near_miss(text, rules)}")
    return AcceptRule(text)


def _biases(text: str) -> tuple[tuple[int, float], ...]:
    """All biases: `ID=BIAS` once or more, or `none`."""
    return () if text == "none" else sampling.read_biases(text.split() or [""])


def _show(chat: Chat, argument: str) -> None:
    request, settings = chat.request, chat.request.sampling
    shown = {"model": str(chat.loaded.source), "draft head": chat.loaded.head_name or "none", "depth": str(chat.depth)}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "logit_bias":
            value = " ".join(f"{token}={bias:g}" for token, bias in value) or "none"
        shown[_option(field.name).removeprefix("--")] = str(value)
    longest = "512, or what the context leaves" if request.max_tokens is None else str(request.max_tokens)
    shown["max-tokens"] = longest
    shown["context"] = "unlimited" if request.context_tokens is None else f"{request.context_tokens} tokens"
    shown["stop"] = " ".join(map(repr, request.stop)) or "none"
    _say_table(shown)


def _reset(chat: Chat, argument: str) -> None:
    chat.conversation.reset()
    chat.outcome = None
    say("a new conversation")


def _exit(chat: Chat, argument: str) -> None:
    chat.has_left = True


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")


def _say_table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        say(f"{name:<{width}}  {text}")


COMMANDS = {
    "stats": Command("", "figures of the last answer, and what of its prompt was reused", _stats),
    "depth": Command("N|auto", "tokens drafted a round from now on; 0 is plain decoding", _depth),
    "set": Command("NAME VALUE", "change how tokens are chosen, or max-tokens: /set temperature 0.7", _set),
    "show": Command("", "the settings", _show),
    "reset": Command("", "forget what was said and begin anew", _reset),
    "help": Command("", "this", _help),
    "exit": Command("", "leave", _exit),
}
