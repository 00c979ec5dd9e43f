"""The hint that ends an error about a misspelt word."""

from collections.abc import Iterable
from difflib import get_close_matches


def near_miss(word: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the choice closest to `word`, or an empty string when none is close.

    Case is ignored in the comparison and kept in the answer.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
