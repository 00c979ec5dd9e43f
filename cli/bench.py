"""`skulk bench`: what speculation gains here, measured side by side in one run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import cluster, options, sampling
from cli.bench_compare import COMPARE, compare_files
from cli.bench_files import OutFolder
from cli.bench_options import (
    DEFAULT_PROMPTS,
    DEFAULT_SEED,
    DEFAULT_SWEEP,
    DEFAULT_TOKENS,
    SUITE_SWEEP,
    Wish,
    read_depths,
    refuse_options_of_run,
    refuse_options_with_suite,
    refuse_with_compare,
)
from cli.bench_run import Running, run_bench
from cli.bench_show import show_receipt
from cli.errors import guarded
from cli.loading import NGRAM, Choice
from cli.program import EXIT_FAILED
from cli.render import Reporter, out, say, visible
from skulk_core.errors import OptionError

if TYPE_CHECKING:
    from skulk_core.formats.receipt import Receipt

AgainstName = Literal["mlx-lm", "transformers"]
Against = Annotated[
    AgainstName | None,
    typer.Option(
        parser=options.one_of(AgainstName),
        metavar="PROGRAM",
        help="Decode with this program too, plain and assisted: mlx-lm, transformers.",
    ),
]


@guarded
def bench_command(
    model: options.Model,
    files: Annotated[list[Path] | None, typer.Argument(help="After `compare`: two files of --out.")] = None,
    draft_depth: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…|auto",
            help="Depths to measure; 0, the reference, is always among them. Default, and alone: "
            f"{DEFAULT_SWEEP}; with --suite {SUITE_SWEEP}.",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", "--max-tokens", help="Tokens of each completion; nothing ends one sooner. Default: 200."
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(help="Turns over all prompts; figures are medians. Default: 3, with --suite 2."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SET",
            help="A UTF-8 file with a prompt on each line, or docs, prose, code, chat, list, mixed. Default: docs.",
        ),
    ] = None,
    context: Annotated[
        int | None, typer.Option(metavar="N", help="Put text before every prompt, so that it has N tokens.")
    ] = None,
    suite: Annotated[
        bool,
        typer.Option("--suite", help="Everything: four kinds of text, 200 and 1000 tokens, drawn too, long contexts."),
    ] = False,
    against: Against = None,
    against_draft: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A small model that the other program drafts with.")
    ] = None,
    save_depth: Annotated[
        bool,
        typer.Option(
            "--save-depth",
            help="Write the best depth to the model's card in your own catalog, with the --sidecar, --dtype and "
            "--head-precision given here.",
        ),
    ] = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write bench.json, bench.md and bench.html there.")
    ] = None,
    draft: options.DraftWith = "head",
    temperature: sampling.Temperature = 0.0,
    top_p: sampling.TopP = 1.0,
    top_k: sampling.TopK = 0,
    min_p: sampling.MinP = 0.0,
    repetition_penalty: sampling.RepetitionPenalty = 1.0,
    presence_penalty: sampling.PresencePenalty = 0.0,
    frequency_penalty: sampling.FrequencyPenalty = 0.0,
    logit_bias: sampling.LogitBias = None,
    seed: Annotated[int, typer.Option(help="Of the first text; each has another.")] = DEFAULT_SEED,
    accept: sampling.Accept = "block",
    exactness: sampling.ExactnessLevel = "argmax",
    certify: Annotated[
        bool, typer.Option("--certify/--no-certify", help="Compare every text with plain decoding, at temperature 0.")
    ] = True,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    convention: options.Convention = None,
    raw: Annotated[bool, typer.Option("--raw", help="Feed prompts as they are, without the chat template.")] = False,
    peers: cluster.Peers = None,
    shard: cluster.Shard = "auto",
    split: cluster.Split = None,
    backend: cluster.Backend = "ring",
    link: cluster.Link = None,
    push: cluster.Push = False,
    allow_public_link: cluster.AllowPublicLink = False,
    link_delay: cluster.LinkDelay = None,
    link_rate: cluster.LinkRate = None,
    stop: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    chat: Annotated[bool, typer.Option("--chat", hidden=True)] = False,
    allow_plain: Annotated[bool, typer.Option("--allow-plain", hidden=True)] = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure decoding at several draft depths, in turn (A B C A B C …), against plain decoding.

    Every text is compared with plain decoding; an arm whose text rounding does not explain has failed, not won.

    skulk bench compare A.json B.json says how two of them differ.
    """
    if model == COMPARE:
        refuse_with_compare(
            {
                **{"--out": out_folder, "--draft-depth": draft_depth, "--tokens": tokens, "--runs": runs},
                **{"--prompts": prompts, "--context": context, "--suite": suite or None, "--against": against},
                **{"--save-depth": save_depth or None, "--sidecar": sidecar, "--peers": peers},
                **{"--link-delay": link_delay, "--link-rate": link_rate, "--temperature": temperature or None},
            }
        )
        compare_files(files or (), json_output=json_output)
        return
    if files:
        raise OptionError(
            str(files[0]), "", f"one MODEL is measured at a time; two receipts: skulk bench {COMPARE} A B"
        )
    refuse_options_of_run(stop, chat=chat, allow_plain=allow_plain)
    links = cluster.read_links(link_delay, link_rate, peers, backend)
    if suite:
        refuse_options_with_suite(tokens, prompts, context, temperature)
    options.at_least("--tokens", tokens, 2)
    num_turns = runs if runs is not None else 2 if suite else 3
    options.at_least("--runs", runs, 1)
    options.at_least("--context", context, 2)
    if against_draft is not None and against is None:
        raise OptionError("--against-draft", against_draft, "drafts for another program: give --against too")
    from skulk_core.sampling.settings import AcceptRule, SamplingSettings
    from skulk_core.types import Exactness

    settings = SamplingSettings(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=sampling.read_biases(logit_bias),
        seed=seed,
        accept=AcceptRule(accept),
    )
    if exactness != "argmax" and (suite or not settings.is_greedy):
        raise OptionError("--exactness", exactness, "is of temperature 0; drawn tokens have no gaps to decide by")
    depths = read_depths(draft_depth or (SUITE_SWEEP if suite else DEFAULT_SWEEP))
    over = None
    if peers is None:
        cluster.refuse_alone(
            shard=shard, split=split, backend=backend, link=link, push=push, allow_public_link=allow_public_link
        )
    else:
        over = cluster.Spread(peers, shard, split, backend, tuple(link or ()), allow_public_link, push, links=links)
        if against is not None:
            raise OptionError("--against", against, "is measured on one host; leave --peers out")
    wish = Wish(
        Choice(model, sidecar, depths.most, dtype, head_precision, convention, False, draft),
        depths,
        DEFAULT_TOKENS if tokens is None else tokens,
        num_turns,
        prompts or DEFAULT_PROMPTS,
        context,
        settings,
        Exactness(exactness),
        raw,
        certify,
        suite,
        against,
        against_draft,
        over,
    )
    if save_depth and not links.is_real:
        raise OptionError("--save-depth", "", "would keep what is best over links that were made slower than they are")
    if save_depth and draft == NGRAM:
        raise OptionError(
            "--save-depth", "", f"keeps the depth of a draft head; give that of --draft {NGRAM} with --draft-depth"
        )
    bench_to_its_end(wish, Reporter(quiet=quiet, verbose=verbose), out_folder, json_output, save_depth=save_depth)


def bench_to_its_end(
    wish: Wish, reporter: Reporter, folder: Path | None, json_output: bool, *, save_depth: bool
) -> None:
    """Measure, write after every case, and print and save what was found. Raises as `finish`, and what ended it."""
    kept = None if folder is None else OutFolder(folder)
    run_bench(
        wish,
        reporter,
        lambda receipt: None if kept is None else _write(kept, receipt, say_so=False),
        lambda running: finish(running, kept, json_output, save_depth=save_depth),
    )


def finish(running: Running, kept: OutFolder | None, json_output: bool, *, save_depth: bool) -> None:
    """Write, print and save what a benchmark found. Raises `typer.Exit` if it was interrupted or an arm failed."""
    receipt = running.receipt()
    if kept is not None:
        _write(kept, receipt, say_so=True)
    if json_output:
        out(json.dumps(receipt.to_dict()) + "\n")
    else:
        show_receipt(receipt)
    if not receipt.complete:
        if running.exit_code:
            raise typer.Exit(running.exit_code)
        return
    if save_depth:
        from cli.tune import save_best

        say(visible(save_best(running.choice, receipt)))
    failed = [f"{arm.name}: {arm.failed}" for case in receipt.cases for arm in case.arms if arm.failed is not None]
    if failed:
        for line in failed:
            say(f"FAILED {line}")
        raise typer.Exit(EXIT_FAILED)


def _write(kept: OutFolder, receipt: "Receipt", *, say_so: bool) -> None:
    files = kept.write(receipt)
    if not say_so:
        return
    for file in files:
        say(f"wrote {file}")
    if not files:
        say(f"nothing was measured: what stands in {kept.folder} is of another benchmark")
