"""A receipt as tables of text: what a terminal, a Markdown file and README show alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from skulk_core.formats.receipt import Arm, Case, Figures, Range, Receipt

_MANY_PROMPT_TOKENS = 256


@dataclass(frozen=True)
class Table:
    """Columns are (name, whether it holds numbers)."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]

    def without_empty(self) -> "Table":
        """The table without columns in which no row has anything."""
        kept = [at for at in range(len(self.columns)) if any(row[at] for row in self.rows)]
        rows = tuple(tuple(row[at] for at in kept) for row in self.rows)
        return Table(tuple(self.columns[at] for at in kept), rows)


def speed_table(case: Case) -> Table:
    """How fast every arm was, and whether its text is plain decoding's."""
    names = ("arm", "tok/s", "from–to", "× depth 0", "from–to", "a round", "accepted", "certificate")
    rows = []
    for arm in case.arms:
        figures = case.figures(arm)
        if arm.skipped is not None or arm.failed is not None or not arm.samples:
            said = "not measured" if arm.skipped is not None else "FAILED" if arm.failed is not None else "not yet"
            rows.append((arm.name, "", "", "", "", "", "", said))
            continue
        rows.append(
            (
                arm.name,
                median(figures.tokens_per_s, 1),
                spread(figures.tokens_per_s, 1),
                median(figures.speedup, 2),
                spread(figures.speedup, 2),
                number(figures.tokens_per_round, 2) if arm.counts else "",
                acceptance(figures),
                certificate(arm, case),
            )
        )
    numbers = (False, True, True, True, True, True, False, False)
    return Table(tuple(zip(names, numbers, strict=True)), tuple(rows)).without_empty()


def work_table(case: Case) -> Table:
    """What every arm did for its speed, and what its parts by themselves would have given."""
    names = (
        "arm",
        "passes",
        "waits",
        "peak MB",
        "prompt s",
        "prompt × depth 0",
        "distinct 4-grams",
        "predicted",
        "measured / predicted",
    )
    rows = []
    for arm in case.arms:
        figures, predicted = case.figures(arm), arm.predicted_tokens_per_s
        long = max(case.prompts.tokens, default=0) >= _MANY_PROMPT_TOKENS
        if not arm.samples:
            continue
        rows.append(
            (
                arm.name,
                "" if figures.passes is None else f"{figures.passes}",
                "" if arm.counts is None else f"{arm.counts.synchronisations}",
                "" if figures.peak_nbytes is None else f"{figures.peak_nbytes / 1e6:,.0f}",
                median(figures.prefill_s, 3) if long else "",
                median(figures.prefill_speedup, 2) if long else "",
                percent(arm.distinct_4grams),
                number(predicted, 1),
                "" if not predicted or not arm.total_tokens_per_s else f"{arm.total_tokens_per_s / predicted:.2f}",
            )
        )
    return Table(tuple((name, name != "arm") for name in names), tuple(rows)).without_empty()


def ring_table(case: Case) -> Table:
    """What went from rank to rank in a round, and how much memory each rank needed; empty on one host."""
    num_ranks = max((len(arm.peaks_by_rank) for arm in case.arms), default=0)
    peaks = [f"{'peak MB, ' if not rank else ''}rank {rank}" for rank in range(num_ranks)]
    rows = []
    for arm in case.arms:
        counts = arm.counts
        if counts is None or not counts.counted_rounds:
            continue
        sent = (
            f"{counts.messages / counts.counted_rounds:.1f}",
            f"{counts.message_nbytes / counts.counted_rounds:,.0f}",
        )
        held = [f"{nbytes / 1e6:,.0f}" for nbytes in arm.peaks_by_rank]
        rows.append((arm.name, *sent, *held, *[""] * (num_ranks - len(held))))
    return Table(tuple((name, name != "arm") for name in ("arm", "messages", "bytes", *peaks)), tuple(rows))


def costs_table(case: Case) -> Table:
    """What the parts of a round cost by themselves, in milliseconds, by the depth of the round."""
    names = ("depth", "draft", "pass", "of it lap", "settle", "round")
    costs, rows = case.costs, []
    for width in sorted(map(int, costs.verify_s)) if costs is not None else ():
        assert costs is not None
        seconds = (
            costs.draft_s.get(str(width - 1)),
            costs.verify_s[str(width)],
            costs.lap_s.get(str(width)),
            costs.commit_s if width == 1 else costs.settle_s.get(str(width)),
            costs.round_s(width - 1),
        )
        rows.append((str(width - 1), *("" if part is None else f"{1000 * part:.2f}" for part in seconds)))
    return Table(tuple((name, True) for name in names), tuple(rows)).without_empty()


def split_table(case: Case) -> Table:
    """Where the time of the profiled texts went, in shares of the time after the prompt."""
    names = ("arm", "prompt s", "draft", "verify", "commit", "link", "other", "ms a token", "barriers cost")
    rows = []
    for arm in case.arms:
        one = arm.profile
        if one is None or not one.decode_s:
            continue
        parts = (one.draft_s, one.verify_s, one.commit_s, one.link_s, one.other_s)
        shares = [f"{part / one.decode_s:.1%}" if part else "" for part in parts]
        per_token = f"{1000 * one.decode_s / one.tokens:.2f}"
        rows.append((arm.name, f"{one.prefill_s:.3f}", *shares, per_token, f"{one.overhead:+.0%}"))
    return Table(tuple((name, name != "arm") for name in names), tuple(rows)).without_empty()


def cases_table(receipt: Receipt) -> Table:
    """One line for each case: its best arm beside plain decoding."""
    names = (
        "case",
        "depth 0 tok/s",
        "best",
        "tok/s",
        "× depth 0",
        "from–to",
        "drift",
        "distinct 4-grams",
        "certificates",
    )
    rows = []
    for case in receipt.cases:
        best, plain = case.best, case.arm(case.reference)
        if best is None or plain is None:
            rows.append((case.name, *[""] * (len(names) - 2), "not measured"))
            continue
        figures = case.figures(best)
        failed = [arm.name for arm in case.arms if arm.failed is not None]
        rows.append(
            (
                case.name,
                median(case.figures(plain).tokens_per_s, 1),
                best.name,
                median(figures.tokens_per_s, 1),
                median(figures.speedup, 2),
                spread(figures.speedup, 2),
                "" if case.drift is None else f"{case.drift:+.0%}",
                percent(best.distinct_4grams),
                f"FAILED: {', '.join(failed)}" if failed else certificate(best, case),
            )
        )
    numbers = (False, True, False, True, True, True, True, True, False)
    return Table(tuple(zip(names, numbers, strict=True)), tuple(rows)).without_empty()


def facts(receipt: Receipt) -> list[tuple[str, str]]:
    """What was measured on what, as (name, value)."""
    machine, model, sidecar = receipt.machine, receipt.model, receipt.sidecar
    threads = f", {machine.blas_threads} threads" if machine.blas_threads else ""
    of_model = [model.name + (f"@{model.sha[:12]}" if model.sha else ""), model.model_type, model.dtype]
    of_model += [model.quantization] if model.quantization else []
    found = [
        ("model", ", ".join([*of_model, f"{model.nbytes / 1e6:,.0f} MB, {model.num_layers} layers"])),
        ("draft head", "none" if sidecar is None else f"{sidecar.name} ({sidecar.layout}, {sidecar.precision})"),
        ("wired", "" if sidecar is None else ", ".join(f"{k} {v}" for k, v in sidecar.conventions.items())),
        ("sidecar's sha256", sidecar.sha256 if sidecar is not None else ""),
        ("machine", f"{machine.processor}, {machine.cores} cores, {machine.memory_nbytes / 1e9:.0f} GB"),
        ("system", f"{machine.system}; {machine.backend} {machine.device}; BLAS {machine.blas}{threads}"),
        ("hosts", _hosts(receipt)),
        ("versions", ", ".join(f"{name} {version}" for name, version in receipt.versions.items() if version)),
        ("started", f"{receipt.started}, took {receipt.took_s:,.0f} s"),
        ("command", receipt.command),
        ("left out", "; ".join(receipt.left_out)),
    ]
    return [(name, value) for name, value in found if value]


def notes(case: Case) -> list[str]:
    """What one must know to read the figures of a case, a sentence each."""
    prompts = case.prompts
    lengths = (
        f"{min(prompts.tokens)} to {max(prompts.tokens)}" if len(set(prompts.tokens)) > 1 else f"{prompts.tokens[0]}"
    )
    said = [
        f"{len(prompts.tokens)} prompts ({prompts.name}, {lengths} tokens), {case.tokens} tokens each, "
        f"{case.turns} turn{'s' if case.turns > 1 else ''}, {chosen(case)}; figures are medians."
    ]
    said += [f"{arm.name} FAILED: {arm.failed}." for arm in case.arms if arm.failed is not None]
    said += [f"{arm.name} was not measured: {arm.skipped}." for arm in case.arms if arm.skipped is not None]
    compared = [arm.certificate.compared for arm in case.arms if arm.certificate is not None]
    if compared:
        said.append(f"{max(compared)} tokens of every arm were compared with plain decoding (certificate).")
    said += _drift(case)
    if case.losses:
        times = "once" if case.losses == 1 else f"{case.losses} times"
        said.append(f"A host was lost and came back {times}; what that disturbed was measured again.")
    if any(arm.profile is not None and arm.profile.link_s for arm in case.arms):
        said.append(
            "Parts of a round are those of the deciding host. It waits for rows during laps (link): for links, and for "
            "the layers of the other hosts."
            if case.costs is not None and case.costs.lap_s
            else "Parts of a round are those of the deciding host; with every layer on every host what it waits for "
            "within layers stands under verify, and a lap by itself cannot be measured."
        )
    shares = [arm.distinct_4grams for arm in case.arms if arm.distinct_4grams is not None]
    if shares and min(shares) < 0.5:
        said.append("The texts repeat themselves (distinct 4-grams), which makes drafting easier than on other texts.")
    if not case.is_greedy:
        said.append(
            "Drawn tokens cannot be compared one by one: their distribution is that of plain decoding by proof."
        )
    return said


def chosen(case: Case) -> str:
    """How tokens were chosen, in words: everything that is not as it is by default."""
    one = case.sampling
    parts = ["greedy"] if case.is_greedy else [f"temperature {one.temperature:g}"]
    options = (
        ("top-p", one.top_p, 1.0),
        ("top-k", one.top_k, 0),
        ("min-p", one.min_p, 0.0),
        ("repetition penalty", one.repetition_penalty, 1.0),
        ("presence penalty", one.presence_penalty, 0.0),
        ("frequency penalty", one.frequency_penalty, 0.0),
    )
    parts += [f"{name} {value:g}" for name, value, default in options if value != default]
    biases = [f"{token} {'never' if value is None else format(value, '+g')}" for token, value in one.logit_bias.items()]
    parts += [f"logit bias of token {', '.join(biases)}"] if biases else []
    if case.is_greedy:
        return ", ".join([*parts, *([f"exactness {case.exactness}"] if case.exactness != "argmax" else [])])
    return ", ".join([*parts, f"seed {one.seed}", f"drafts judged by {one.accept}"])


def _drift(case: Case) -> list[str]:
    """What the machine's speed did between the first turn and the last, or within the only one."""
    if case.drift is None:
        return []
    by = f"{abs(case.drift):.1%} {'more' if case.drift >= 0 else 'less'} time"
    if case.turns == 1:
        return [f"Drift: {case.reference} took {by} for its first text when that was decoded again at the end."]
    least, greatest = min(case.reference_by_turn) - 1, max(case.reference_by_turn) - 1
    return [
        f"Drift: {case.reference} took {by} in the last turn than in the first (all turns: from {least:+.1%} to "
        f"{greatest:+.1%})."
    ]


def links_table(receipts: Sequence[Receipt]) -> Table:
    """Gains over links, beside those that costs measured on the very ring predict; a line for each receipt.

    Speeds are those of all texts of an arm together, as predictions are.
    """
    names = (
        "hosts",
        "link",
        "plain round, ms",
        "depth 0 tok/s",
        "best",
        "tok/s",
        "× depth 0",
        "predicted",
        "measured / predicted",
        "of all depths",
    )
    rows = []
    for receipt in receipts:
        case = receipt.cases[0]
        best, plain, costs = case.best, case.arm(case.reference), case.costs
        gains = {arm.name: gain for arm in case.arms if (gain := _gain(case, arm)) is not None}
        if best is None or plain is None or best.name not in gains:
            continue
        round_s, (measured, told) = None if costs is None else costs.round_s(0), gains[best.name]
        ratios = [ours / theirs for name, (ours, theirs) in gains.items() if name != case.reference]
        rows.append(
            (
                str(receipt.hosts),
                receipt.links_made or "as it is",
                "" if round_s is None else f"{1000 * round_s:.1f}",
                number(plain.total_tokens_per_s, 1),
                best.name,
                number(best.total_tokens_per_s, 1),
                number(measured, 2),
                number(told, 2),
                number(measured / told, 2),
                spread(Range.of(ratios), 2) if ratios else "",
            )
        )
    numbers = (True, False, True, True, False, True, True, True, True, True)
    return Table(tuple(zip(names, numbers, strict=True)), tuple(rows))


def _gain(case: Case, arm: Arm) -> tuple[float, float] | None:
    """How many times faster than plain decoding the arm was, and should have been; None where one is not known."""
    plain = case.arm(case.reference)
    if plain is None or not arm.counts_for_speed:
        return None
    speed, reference = arm.total_tokens_per_s, plain.total_tokens_per_s
    told, told_plain = arm.predicted_tokens_per_s, plain.predicted_tokens_per_s
    return (speed / reference, told / told_plain) if speed and reference and told and told_plain else None


def live_rows(
    names: Sequence[str], speeds: Sequence[float | None], reference: float | None
) -> list[tuple[str, str, str]]:
    """Rows of the table that is shown while it is measured."""
    rows = []
    for name, speed in zip(names, speeds, strict=True):
        ratio = f"{speed / reference:.2f}" if speed is not None and reference else ""
        rows.append((name, number(speed, 1), ratio))
    return rows


def certificate(arm: Arm, case: Case) -> str:
    """What the comparison with plain decoding found."""
    found = arm.certificate
    if found is None:
        if not case.is_greedy:
            return "drawn"
        # without a certificate it is known at least whether the text is another one
        alike = {True: f"none; as {case.reference}", False: f"none; NOT as {case.reference}"}
        return "none" if arm.same_as_reference is None else alike[arm.same_as_reference]
    if found.divergences == 0:
        return "exact"
    verdict = "within rounding" if found.holds else "by more than rounding"
    return f"{found.divergences} tokens differ, {verdict}"


def acceptance(figures: Figures) -> str:
    """Shares by position."""
    return " ".join(f"{share:.0%}" for share in figures.acceptance)


def spread(found: Range | None, digits: int) -> str:
    """From the least to the greatest."""
    return "" if found is None else f"{found.least:.{digits}f}–{found.greatest:.{digits}f}"


def number(value: float | None, digits: int) -> str:
    """A number, empty for none."""
    return "" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in per cent, empty for none."""
    return "" if share is None else f"{share:.0%}"


def _hosts(receipt: Receipt) -> str:
    made = receipt.links_made
    parts = " + ".join(str(stage.end - stage.start) for stage in receipt.stages)
    layers = f", layers {parts}" if parts and receipt.stages[-1].start else ""
    how = "".join(f", {word}" for word in (receipt.shard, receipt.backend) if word)
    return f"{receipt.hosts}{layers}{how}" + (f", every link made to be {made}" if made else "")


def median(found: Range | None, digits: int) -> str:
    """The median, empty for none."""
    return "" if found is None else f"{found.median:.{digits}f}"
