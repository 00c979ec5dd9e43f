"""Option types used by more than one command."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import typer

from skulk_core.errors import OptionError
from skulk_core.formats.suggest import near_miss
from skulk_core.types import CONVENTION_NAMES, ChainTap, ConcatOrder, HiddenTap, PositionRule


def one_of(choices: Any) -> Callable[[str], str]:
    """A parser of an option whose values are the ``Literal`` ``choices``; Typer's own says "Value error"."""
    known: tuple[str, ...] = get_args(choices)

    def parse(text: str) -> str:
        if text not in known:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(known)}{near_miss(text, known)}")
        return text

    return parse


# Help texts are rich markup, in which what stands in brackets would be a style.
Model = Annotated[
    str,
    typer.Argument(
        help="`demo`, a checkpoint folder, a GGUF file, or a Hub repository: OWNER/NAME or OWNER/NAME@REVISION."
    ),
]
Sidecar = Annotated[
    str | None,
    typer.Option(
        "--sidecar",
        metavar="PATH|REPO[@REV]",
        help="The draft head's file, folder or repository. Default: the head that the checkpoint carries, else the one "
        "that the catalog lists for the model or its base.",
    ),
]
# What may be said is what the core offers, written again here because the core's own lists import MLX.
DraftWithName = Literal["head", "ngram"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
PrecisionName = Literal["auto", "trunk", "float32", "bfloat16", "float16", "8bit", "4bit"]
DraftWith = Annotated[
    DraftWithName,
    typer.Option(
        parser=one_of(DraftWithName),
        metavar="HOW",
        help="head: the model's draft head. ngram: what followed the last tokens when they stood in the text "
        "before; for every model.",
    ),
]
Dtype = Annotated[
    DtypeName,
    typer.Option(
        parser=one_of(DtypeName),
        metavar="TYPE",
        help="Activations and unquantised weights: auto, float32, bfloat16, float16. auto is float32 on a Linux CPU, "
        "elsewhere what the checkpoint holds.",
    ),
]
HeadPrecision = Annotated[
    PrecisionName,
    typer.Option(
        parser=one_of(PrecisionName),
        metavar="PRECISION",
        help="The draft head: auto, trunk (as the model), float32, bfloat16, float16, 8bit, 4bit. Changes speed and "
        "acceptance, never the text.",
    ),
]
Convention = Annotated[
    list[str] | None,
    typer.Option(
        "--convention",
        metavar="NAME=VALUE",
        help="How the head is wired, against what is known of it; may be given more than once. Default: as its file, "
        f"the catalog or its family says, else as measured. Names: {', '.join(CONVENTION_NAMES)}.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no figures on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say how model and head were found.")]

_CHOICES = {
    "concat_order": ConcatOrder,
    "hidden_tap": HiddenTap,
    "chain_tap": ChainTap,
    "position_rule": PositionRule,
}


def read_conventions(pairs: list[str] | None) -> dict[str, object]:
    """``NAME=VALUE`` pairs as values of `Conventions`. Raises `OptionError`."""
    out: dict[str, object] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if name not in CONVENTION_NAMES:
            known = near_miss(name, CONVENTION_NAMES) or f"; there are {', '.join(CONVENTION_NAMES)}"
            raise OptionError("--convention", pair, f"no such convention{known}")
        if not equals:
            raise OptionError("--convention", pair, "must be NAME=VALUE")
        if name == "norm_offset":
            try:
                out[name] = float(value)
            except ValueError:
                raise OptionError("--convention", pair, "not a number") from None
        else:
            choices = _CHOICES[name]
            if value not in [choice.value for choice in choices]:
                raise OptionError("--convention", pair, f"not one of {', '.join(choices)}")
            out[name] = choices(value)
    return out


def read_stops(texts: list[str] | None) -> tuple[str, ...]:
    """Stop strings that can occur in an answer. Raises `OptionError`."""
    for text in texts or []:
        if not text:
            raise OptionError("--stop", '""', "an empty text ends everything")
        if not is_utf8(text):
            raise OptionError("--stop", text, "not UTF-8 text")
    return tuple(texts or ())


def is_utf8(argument: str) -> bool:
    """Whether an argument was UTF-8; Python decodes any bytes, and marks those that are not."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def at_least(option: str, value: int | None, least: int) -> None:
    """Raise `OptionError` for a number below ``least``."""
    if value is not None and value < least:
        raise OptionError(option, value, f"must be at least {least}")
