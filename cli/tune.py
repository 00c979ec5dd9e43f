"""`skulk tune`: a quick benchmark, the best depth of it, and the model's card with that depth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import cluster, options, sampling
from cli.bench_options import DEFAULT_SEED, Wish, read_depths
from cli.errors import guarded
from cli.loading import Choice
from cli.render import Reporter

if TYPE_CHECKING:
    from skulk_core.formats.receipt import Receipt

_SWEEP = "0,1,2,3,4,5,6"
_QUICK_TOKENS, _QUICK_RUNS = 100, 2


@guarded
def tune_command(
    model: options.Model,
    draft_depth: Annotated[
        str, typer.Option(metavar="N,N,…|auto", help="Depths to choose from; 0 is always among them.")
    ] = _SWEEP,
    tokens: Annotated[int, typer.Option(help="Tokens of each completion.")] = _QUICK_TOKENS,
    runs: Annotated[int, typer.Option(help="Turns over all prompts.")] = _QUICK_RUNS,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE|SET", help="A UTF-8 file with a prompt on each line, or docs, prose, code, chat, list, mixed."
        ),
    ] = "mixed",
    temperature: sampling.Temperature = 0.0,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    convention: options.Convention = None,
    peers: cluster.Peers = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write bench.json, bench.md and bench.html there.")
    ] = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure a model here, choose its draft depth, and keep it in your own catalog.

    The same as `skulk bench MODEL --save-depth` with fewer tokens and turns. `skulk run` takes the depth from there.
    """
    from cli.bench import bench_to_its_end
    from skulk_core.sampling.settings import SamplingSettings
    from skulk_core.types import Exactness

    options.at_least("--tokens", tokens, 2)
    options.at_least("--runs", runs, 1)
    depths = read_depths(draft_depth or _SWEEP)
    over = None if peers is None else cluster.Spread(peers, "auto", None, "ring", ())
    wish = Wish(
        Choice(model, sidecar, depths.most, dtype, head_precision, convention, False),
        depths,
        tokens,
        runs,
        prompts,
        None,
        SamplingSettings(temperature=temperature, seed=DEFAULT_SEED),
        Exactness.ARGMAX,
        raw=False,
        certify=True,
        suite=False,
        against=None,
        against_draft=None,
        over=over,
    )
    bench_to_its_end(wish, Reporter(quiet=quiet, verbose=verbose), out_folder, json_output, save_depth=True)


def save_best(choice: Choice, receipt: "Receipt") -> str:
    """Put the best depth of the first case on the model's card, for this number of hosts; what was done, in words.

    What the command line said of head and precision is kept with it: the depth was measured with that.
    """
    from dataclasses import replace

    from cli.card import placed
    from skulk_core.catalog import user_catalog
    from skulk_core.catalog.lookup import card_name
    from skulk_core.catalog.user import change_card
    from skulk_core.formats.cards import Card, Depth
    from skulk_core.hub.refs import parse_trunk

    case = receipt.cases[0]
    best = case.best
    if best is None:
        return "no depth was saved: nothing was measured that can be compared"
    hosts = receipt.hosts

    def with_depth(card: Card) -> Card:
        depth: Depth = "auto" if best.depth is None else best.depth
        card = replace(
            card,
            sidecar=placed(choice.sidecar) or card.sidecar,
            dtype=card.dtype if choice.dtype == "auto" else choice.dtype,
            head_precision=card.head_precision if choice.head_precision == "auto" else choice.head_precision,
        )
        if hosts == 1:
            return replace(card, default_depth=depth)
        by_hosts = {**dict(card.depth_by_hosts), hosts: depth}
        return replace(card, depth_by_hosts=tuple(sorted(by_hosts.items())))

    path = user_catalog()
    card, change = change_card(path, card_name(parse_trunk(choice.model)), with_depth)
    speedup = case.figures(best).speedup
    gain = "" if speedup is None else f" ({speedup.median:.2f} times plain decoding)"
    on = "" if hosts == 1 else f" on {hosts} hosts"
    done = "stands already" if change == "unchanged" else "was written"
    wired = " --convention ".join(["", *(choice.conventions or ())])
    more = f"; a card keeps no wiring: give{wired} to `skulk run` too" if wired else ""
    hosts_option = "" if hosts == 1 else f" --hosts {hosts}"
    undone = f" (`skulk card set {choice.model} --unset depth{hosts_option}` takes it back)"
    return f"{best.name}{on}{gain} {done} on the card of {card.model}: {path}{undone}{more}"
