"""`skulk worker`: one rank of a ring, started by another `skulk` on this host or over ssh; not for people."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.render import say_error

if TYPE_CHECKING:
    from skulk_core.cluster.deciding import Instrument
    from skulk_core.decode.exchange import Exchange
    from skulk_core.heads.base import DraftHead
    from skulk_core.models.loading import LoadedModel
    from skulk_core.sampling.settings import SamplingSettings


def worker_command(
    lease: Annotated[float, typer.Option(help="Seconds without a word after which the other side is gone.")] = 8.0,
) -> None:
    """Serve the `skulk` that started this one, over stdin and stdout."""
    if sys.stdin.isatty():
        say_error("`skulk worker` is started by other commands", "`skulk run MODEL --peers …` uses it.")
        raise SystemExit(2)
    # stdout is for frames: whatever prints, in Python or below it, prints on stderr
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # transformers imports torch where it is installed: seconds of every start, for nothing that a rank does
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from skulk_core.cluster.worker import run_worker

    run_worker(os.fdopen(os.dup(0), "rb", buffering=0), frames, _measure, lease, _instruments)


def _instruments() -> "Mapping[str, Instrument]":
    from skulk_core.bench.instruments import at_decider

    return at_decider()


def _measure(
    model: "LoadedModel", drafter: "DraftHead", sampling: "SamplingSettings", exchange: "Exchange"
) -> Sequence[float]:
    from cli.depth import ring_costs

    return ring_costs(model, drafter, sampling, exchange)
