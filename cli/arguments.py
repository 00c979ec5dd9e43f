"""Options that may stand without a value, which Typer does not know: arguments are completed before it reads them."""

from collections.abc import Collection, Sequence


def complete(arguments: Sequence[str], optional: Collection[str]) -> list[str]:
    """``arguments`` in which every option of ``optional`` that stands alone has the empty value, ``--option=``.

    An option stands alone at the end, and before another option. What follows it otherwise is its value, and what
    comes after ``--`` is no option.
    """
    completed: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*completed, *arguments[position:]]
        rest = arguments[position + 1 : position + 2]
        # a negative number is a value, and the command says what it thinks of it
        alone = not rest or (rest[0].startswith("-") and rest[0] != "-" and not rest[0][1:2].isdigit())
        completed.append(f"{argument}=" if argument in optional and alone else argument)
    return completed
