"""Options that say how tokens are chosen."""

import math
import secrets
from typing import Annotated, Literal

import typer

from cli.options import one_of
from skulk_core.errors import OptionError

Temperature = Annotated[
    float, typer.Option(help="0 takes the most likely token; above, tokens are drawn, from ever flatter distributions.")
]
TopP = Annotated[float, typer.Option(help="Draw from the most likely tokens that together have this probability.")]
TopK = Annotated[int, typer.Option(help="Draw from this many most likely tokens; 0 is off.")]
MinP = Annotated[float, typer.Option(help="Draw from tokens at least this likely, relative to the likeliest.")]
RepetitionPenalty = Annotated[
    float, typer.Option(help="Divide the logits of tokens that prompt or answer hold; 1 is off.")
]
PresencePenalty = Annotated[float, typer.Option(help="Take this from the logits of tokens that the answer holds.")]
FrequencyPenalty = Annotated[float, typer.Option(help="The same, for every time that the answer holds them.")]
LogitBias = Annotated[
    list[str] | None,
    typer.Option(
        "--logit-bias",
        metavar="ID=BIAS",
        help="Add to the logit of a token id; -inf bans it. May be given more than once.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Makes a run with a temperature repeatable, at one draft depth. Default: another one every time."
    ),
]
AcceptName = Literal["token", "block"]
Accept = Annotated[
    AcceptName,
    typer.Option(
        parser=one_of(AcceptName),
        metavar="RULE",
        help="How drawn drafts are judged: token by token, or as a block, which keeps more. Neither changes how "
        "the text is distributed.",
    ),
]
ExactnessName = Literal["argmax", "strict"]
ExactnessLevel = Annotated[
    ExactnessName,
    typer.Option(
        parser=one_of(ExactnessName),
        metavar="LEVEL",
        help="At temperature 0. argmax: every token is the likeliest of the pass that verified it. strict: where two "
        "are nearly alike, a pass of its own decides, which costs passes: in bfloat16 many.",
    ),
]
Certify = Annotated[
    bool,
    typer.Option(
        "--certify", help="Then replay the answer by plain decoding and say where it would have chosen otherwise."
    ),
]


def read_biases(pairs: list[str] | None) -> tuple[tuple[int, float], ...]:
    """``ID=BIAS`` pairs. Raises `OptionError`."""
    biases: dict[int, float] = {}
    for pair in pairs or []:
        token, equals, bias = pair.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError:
            raise OptionError("--logit-bias", pair, "must be ID=BIAS, a token id and a number") from None
        if not equals or math.isnan(biases[int(token)]):
            raise OptionError("--logit-bias", pair, "must be ID=BIAS, a token id and a number")
    return tuple(biases.items())


def new_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbits(32)
