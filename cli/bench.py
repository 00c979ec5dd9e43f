"""`skulk bench`: what speculation gains here, measured side by side in one run."""

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli import options
from cli.errors import guarded
from cli.loading import Choice, load
from cli.render import Reporter, out, show, visible
from skulk_core.errors import ContextError, FileError, OptionError
from skulk_core.runtime import blas

if TYPE_CHECKING:
    from skulk_core.bench.arms import ArmResult

JSON_SCHEMA = 1
DEFAULT_SWEEP = "0,1,2,3,4,5,6"
AGAINST = ("mlx-lm",)
# in the manner of what the demo was trained on; any model can continue them
PROMPTS = (
    "Return the number of items in the container. If the container",
    "The function is called with a single argument, the name of the",
    "This module defines a class that implements the interface of",
)


@guarded
def bench_command(
    model: options.Model,
    draft_depth: Annotated[
        str, typer.Option(metavar="N,N,…", help="Depths to measure; 0, the reference, is always among them.")
    ] = DEFAULT_SWEEP,
    tokens: Annotated[int, typer.Option(help="Tokens of each completion.")] = 200,
    runs: Annotated[int, typer.Option(help="Runs over all prompts; figures are medians.")] = 3,
    prompts: Annotated[Path | None, typer.Option(help="A UTF-8 file with a prompt on each line.")] = None,
    prefill: Annotated[int, typer.Option(help="Also time a prompt of so many tokens against mlx-lm; 0: do not.")] = 0,
    against: Annotated[str | None, typer.Option(metavar="mlx-lm", help="Decode with this program too.")] = None,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    convention: options.Convention = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure greedy decoding at several draft depths, in turn (A B C A B C …), against plain decoding.

    `predicted` is what the parts of a round cost by themselves, with the tokens a round had.
    """
    depths = _depths(draft_depth)
    options.at_least("--tokens", tokens, 2)
    options.at_least("--runs", runs, 1)
    options.at_least("--prefill", prefill, 0)
    if against is not None and against not in AGAINST:
        raise OptionError("--against", against, f"not one of {', '.join(AGAINST)}")
    texts = PROMPTS if prompts is None else _read_prompts(prompts)
    reporter = Reporter(quiet=quiet, verbose=verbose)
    with reporter.working():
        loaded = load(Choice(model, sidecar, max(depths), dtype, head_precision, convention, False), reporter)
        from skulk_core.bench.arms import prefill_seconds, run_arms
        from skulk_core.bench.costs import measure_costs

        target, head = loaded.model.target, loaded.drafter
        encoded = [loaded.model.tokenizer.encode(text) for text in texts]
        longest, context = max(len(prompt) for prompt in encoded), loaded.model.context_tokens
        if context is not None and max(longest + tokens, prefill) > context:
            raise ContextError(max(longest, prefill), context, tokens)
        # isolated costs hold for the middle of a text, and are taken before and after: machines drift
        every = [token for prompt in encoded for token in prompt]
        middle = len(encoded[0]) + tokens // 2
        text = (every * (middle // len(every) + 1))[:middle]
        reporter.step("measuring the parts of a round")
        before = measure_costs(target, head, text, depths)
        arms: list[int | str] = [*([against] if against else []), *depths]
        results = run_arms(target, head, arms, encoded, tokens, runs, reporter.turns)
        costs = before.mean(measure_costs(target, head, text, depths))
        for result in results.values():
            result.predict(costs)
        long = None
        if prefill:
            repeated = (every * (prefill // len(every) + 1))[:prefill]
            reporter.step(f"timing a prompt of {prefill} tokens")
            long = prefill_seconds(target, repeated, runs)
    choice = blas.prepare()
    report: dict[str, Any] = {
        "schema": JSON_SCHEMA,
        "model": str(loaded.source),
        "sidecar": loaded.head_name,
        "tokens": tokens,
        "runs": runs,
        "prompts": len(texts),
        "blas": choice.name,
        "blas_threads": choice.threads,
        "arms": [_arm(result, results[0]) for result in results.values()],
    }
    if long is not None:
        ours, theirs = (statistics.median(seconds) for seconds in long)
        ratio = statistics.median(t / o for o, t in zip(*long, strict=True))
        report["prefill"] = {"tokens": prefill, "s": ours, "mlx_lm_s": theirs, "speedup": ratio}
    if json_output:
        out(json.dumps(report) + "\n")
        return
    show(_table(report))
    if long is not None:
        found = report["prefill"]
        out(f"prompt of {prefill} tokens: {ours:.2f} s, mlx-lm {theirs:.2f} s: {found['speedup']:.2f} times as fast\n")


def _arm(result: "ArmResult", reference: "ArmResult") -> dict[str, Any]:
    predicted = result.predicted_tokens_per_s
    return {
        "arm": result.arm,
        "tokens_per_s": result.tokens_per_s,
        "speedup": result.speedup(reference),
        "tokens_per_round": result.tokens_per_round,
        "acceptance": result.acceptance,
        "predicted_tokens_per_s": predicted,
        "measured_over_predicted": None if predicted is None else result.tokens_per_s / predicted,
        "same_as_reference": result.same_as_reference,
    }


def _table(report: dict[str, Any]) -> Table:
    threads = f", {report['blas_threads']} BLAS threads" if report["blas_threads"] else ""
    title = f"{report['model']}: {report['prompts']} prompts, {report['tokens']} tokens, {report['runs']} runs"
    table = Table(title=Text(visible(f"{title}, BLAS {report['blas']}{threads}")), title_justify="left")
    for name in ("depth", "tok/s", "× depth 0", "tokens a round", "acceptance", "of predicted", "text"):
        table.add_column(name, justify="left" if name in ("acceptance", "text") else "right")
    for arm in report["arms"]:
        per_round, measured = arm["tokens_per_round"], arm["measured_over_predicted"]
        table.add_row(
            str(arm["arm"]),
            f"{arm['tokens_per_s']:.1f}",
            f"{arm['speedup']:.2f}",
            "" if per_round is None else f"{per_round:.2f}",
            " ".join(f"{share:.0%}" for share in arm["acceptance"]),
            "" if measured is None else f"{measured:.2f}",
            "same" if arm["same_as_reference"] else "differs",
        )
    return table


def _depths(text: str) -> list[int]:
    """Depths in rising order, 0 among them. Raises `OptionError`."""
    try:
        depths = {int(part) for part in text.split(",")}
    except ValueError:
        raise OptionError("--draft-depth", text, "not a list of whole numbers, as 0,1,2") from None
    if min(depths) < 0:
        raise OptionError("--draft-depth", text, "a depth is at least 0")
    return sorted(depths | {0})


def _read_prompts(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FileError(file, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise FileError(file, "not UTF-8 text") from error
    if not lines:
        raise FileError(file, "holds no prompt")
    return lines
