"""The whole picture of a model in a quarter of an hour: kinds of text, temperatures, lengths and contexts.

Not every combination: each case changes one or two things of the first ones, so that what makes a difference shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from skulk_core.bench.prompts import KINDS, MIXED, PromptSet, named_set

_PROMPTS_OF_A_KIND = 2
_WARM = 0.7
_SHORT, _LONG = 200, 1000
_CONTEXTS = (512, 2048)


@dataclass(frozen=True)
class SuiteCase:
    """One case: what is decoded, from how long a context, how often."""

    name: str
    prompts: PromptSet
    temperature: float
    num_tokens: int
    num_turns: int
    context: int | None = None


def suite(num_turns: int) -> Sequence[SuiteCase]:
    """The cases, for a model that can have them all."""
    cases = []
    for temperature in (0.0, _WARM):
        for kind in KINDS:
            texts = named_set(kind).texts[:_PROMPTS_OF_A_KIND]
            cases.append(_case(kind, PromptSet(kind, texts), temperature, _SHORT, num_turns))
    # long texts and contexts cost most of the time, and the kinds are compared above
    mixed = PromptSet(MIXED, named_set(MIXED).texts[:_PROMPTS_OF_A_KIND])
    for temperature in (0.0, _WARM):
        cases.append(_case(MIXED, mixed, temperature, _LONG, 1))
    cases += [_case(MIXED, mixed, 0.0, _SHORT, num_turns, context) for context in _CONTEXTS]
    return cases


def _case(
    name: str, prompts: PromptSet, temperature: float, num_tokens: int, num_turns: int, context: int | None = None
) -> SuiteCase:
    long = f", after {context} tokens" if context else ""
    return SuiteCase(
        f"{name}, {num_tokens} tokens, temperature {temperature:g}{long}",
        prompts,
        temperature,
        num_tokens,
        num_turns,
        context,
    )
