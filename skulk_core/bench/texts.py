"""What the texts of a case say of its arms: whether plain decoding would have written them, and whether they loop."""

from collections.abc import Callable, Iterator, Sequence

from skulk_core.bench.arms import CaseRun
from skulk_core.bench.workload import Workload
from skulk_core.decode.certificate import Certificate
from skulk_core.decode.engine import Engine
from skulk_core.formats.receipt import CertificateRecord, Divergence

_Answer = tuple[int, tuple[int, ...]]


def distinct_4grams(texts: Sequence[Sequence[int]]) -> float | None:
    """Of all runs of four tokens in a text the share that are different ones: 1 where nothing repeats, mean over texts.

    A text that loops is easy to draft, so acceptance on it says little. None for texts of fewer than four tokens.
    """
    shares = []
    for text in texts:
        grams = list(zip(text, text[1:], text[2:], text[3:], strict=False))
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else None


def certified(
    engine: Engine, case: CaseRun, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, CertificateRecord]]:
    """The name and certificate of every arm with texts: each text replayed by plain decoding, equal ones once."""
    answers = {(prompt, text) for arm in case.arms for (_, prompt), text in arm.texts.items()}
    total, before = sum(len(text) for _, text in answers), 0
    known: dict[_Answer, Certificate] = {}
    for arm in case.arms:
        if not arm.texts:
            continue
        mine = sorted({(prompt, text) for (_, prompt), text in arm.texts.items()})
        for answer in mine:
            if answer not in known:
                known[answer] = _replay(engine, case.workload, answer, progress, before, total)
                before += len(answer[1])
        most = 0 if arm.spec.peer is not None else max(arm.rounds_by_depth, default=0)
        yield (
            arm.spec.name,
            _record([(prompt, known[prompt, text]) for prompt, text in mine], _bound(engine, case, most)),
        )


def why_failed(certificate: CertificateRecord) -> str | None:
    """What the certificate has against an arm of ours; None if it holds."""
    worst = certificate.worst
    if worst is None or certificate.holds:
        return None
    return (
        f"token {worst.position} after prompt {worst.prompt + 1} is {worst.emitted} where plain decoding takes "
        f"{worst.plain}, whose logit leads by {worst.gap:.2g}; rounding explains {certificate.bound:.2g}"
    )


def _replay(
    engine: Engine, work: Workload, answer: _Answer, progress: Callable[[int, int], None], before: int, total: int
) -> Certificate:
    prompt, text = answer
    return engine.certify(work.prompts[prompt], text, 0, work.settings, lambda done, _: progress(before + done, total))


def _bound(engine: Engine, case: CaseRun, depth: int) -> float:
    """What rounding may turn over in passes of this depth: engines tell it with a certificate, here of one token."""
    work = case.workload
    return engine.certify(work.prompts[0], case.reference.texts[0, 0][:1], depth, work.settings).bound


def _record(found: Sequence[tuple[int, Certificate]], bound: float) -> CertificateRecord:
    divergences = [
        Divergence(prompt, one.position, one.emitted, one.plain, one.gap)
        for prompt, certificate in found
        for one in certificate.divergences
    ]
    gaps = [certificate.smallest_gap for _, certificate in found if certificate.smallest_gap is not None]
    return CertificateRecord(
        texts=len(found),
        compared=sum(certificate.compared for _, certificate in found),
        divergences=len(divergences),
        worst=max(divergences, key=lambda one: one.gap, default=None),
        smallest_gap=min(gaps, default=None),
        bound=bound,
    )
