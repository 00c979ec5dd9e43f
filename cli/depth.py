"""`--draft-depth`: a number, or `auto` with the costs it decides from."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.loading import Loaded
from cli.render import Reporter
from skulk_core.errors import OptionError

if TYPE_CHECKING:
    from skulk_core.decode.depth import DepthPolicy
    from skulk_core.decode.exchange import Exchange
    from skulk_core.heads.base import DraftHead
    from skulk_core.models.loading import LoadedModel
    from skulk_core.sampling.settings import SamplingSettings

AUTO = "auto"
Auto = Literal["auto"]
# beyond this drafts hardly pay anywhere, and every depth more must be measured
AUTO_MOST = 6
# more rows to a pass than anything gains
_MOST = 64
# where a seed is to repeat a text and nobody says how deep: what `auto` chooses depends on timings, and what is drawn
# on the depth
_REPEATABLE = 2
# (seconds of a plain round up to which, depths to measure, turns): where a round is slow the measurement is too
_EFFORT = (
    (0.004, range(AUTO_MOST + 1), 30),
    (0.03, range(AUTO_MOST + 1), 12),
    (0.1, range(AUTO_MOST + 1), 4),
    (0.4, (0, 1, 2, 4, 6), 2),
)
_LEAST_EFFORT = ((0, 1, AUTO_MOST), 1)

DraftDepth = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Tokens drafted a round; 0 is plain decoding. auto chooses while it decodes, from costs measured once and "
        "the acceptance seen. Default: what the catalog says, with the demo 4, else auto; with --seed 2 instead of "
        "auto, whose choices no seed repeats.",
    ),
]


def read_depth(text: str | None, option: str = "--draft-depth") -> int | Auto | None:
    """What ``option`` says. Raises `OptionError`."""
    if text is None:
        return None
    if text == AUTO:
        return "auto"
    try:
        depth = int(text)
    except ValueError:
        raise OptionError(option, text, "must be a number or auto") from None
    if depth < 0:
        raise OptionError(option, depth, "must be at least 0")
    if depth > _MOST:
        raise OptionError(option, depth, f"must be at most {_MOST}")
    return depth


def make_policy(
    loaded: Loaded,
    settings: "SamplingSettings",
    reporter: Reporter,
    depth: int | Auto | None = None,
    *,
    anew: bool = False,
    repeatable: bool = False,
) -> "DepthPolicy":
    """Who decides the depth of the rounds to come; ``depth`` instead of what was loaded with.

    With ``anew`` what rounds cost is measured even if it is remembered. With ``repeatable`` drawn text does not
    depend on timings.
    """
    from skulk_core.decode.depth import AutoDepth, FixedDepth

    depth = loaded.depth if depth is None else depth
    if depth == AUTO and repeatable and not settings.is_greedy:
        depth = _REPEATABLE
    if isinstance(depth, int) or not loaded.can_draft:
        return FixedDepth(depth if isinstance(depth, int) else 0)
    if loaded.engine is not None:
        from skulk_core.cluster.wire import AutoAtDecider

        return AutoAtDecider(AUTO_MOST)
    reporter.step("measuring what rounds cost")
    return AutoDepth(_round_costs(loaded, settings, anew=anew))


def _round_costs(loaded: Loaded, settings: "SamplingSettings", *, anew: bool) -> tuple[float, ...]:
    """Seconds of a round at every depth, measured once for this model, head, machine and way of sampling."""
    from skulk_core.bench.cost_cache import key_of, remembered_or
    from skulk_core.runtime import blas
    from skulk_core.runtime.device import device_facts, versions

    target, facts = loaded.model.target, device_facts()

    def measure() -> tuple[float, ...]:
        return _measured(loaded.model, loaded.drafter, settings, None)

    key = key_of(
        loaded.head_name,
        loaded.head.nbytes if loaded.head else 0,
        loaded.model.nbytes,
        type(target).__name__,
        target.hidden_size,
        target.num_layers,
        target.vocab_size,
        str(target.dtype),
        (facts.backend.value, facts.name, facts.total_nbytes),
        (blas.prepare().threads, blas.prepare().name, blas.openblas_core()),
        (versions()["mlx"], versions()["skulk-mtp"]),
        settings.is_greedy,
        settings.counts_tokens,
        settings.top_p < 1,
        settings.top_k > 0,
        settings.min_p > 0,
        settings.accept,
        loaded.head.precision if loaded.head else "",
    )
    return remembered_or(key, measure, anew=anew)


def ring_costs(
    model: "LoadedModel", drafter: "DraftHead", settings: "SamplingSettings", exchange: "Exchange"
) -> tuple[float, ...]:
    """Seconds of a round at every depth, at a ring's decider and over its laps; they hold for this ring alone."""
    return _measured(model, drafter, settings, exchange)


def _measured(
    model: "LoadedModel", drafter: "DraftHead | None", settings: "SamplingSettings", exchange: "Exchange | None"
) -> tuple[float, ...]:
    from skulk_core.bench.round_costs import measure_rounds
    from skulk_core.sampling.stochastic import make_sampler

    text, sampler = model.tokenizer.encode(_TEXT)[:64], make_sampler(settings)
    (plain_s,) = measure_rounds(model.target, None, text, [0], sampler, 1, exchange)
    depths, turns = next(((depths, turns) for limit, depths, turns in _EFFORT if plain_s <= limit), _LEAST_EFFORT)
    return measure_rounds(model.target, drafter, text, depths, sampler, turns, exchange)


# at least 64 tokens with any tokenizer
_TEXT = """The sum of the first n odd numbers is the square of n; a child can see it by laying squares around squares.
Here is how a program would say it: for each number from one to n, add twice the number less one, and keep the total."""
