"""Receipts as `skulk bench` writes them, made without measuring: every figure can be worked out by hand."""

from dataclasses import replace
from typing import Any

from skulk_core.formats.receipt import Arm, Case, CertificateRecord, CostsRecord, Counts, Profile, Receipt, Sample
from skulk_core.formats.receipt_facts import MachineRecord, ModelRecord, PromptsRecord, SamplingRecord, SidecarRecord

SIDECAR_SHA256 = "5" * 64
GREEDY = SamplingRecord(0.0, 1.0, 0, 0.0, 1.0, 0.0, 0.0, {}, 0, "block")
MACHINE = MachineRecord("Linux 6.1 x86_64", "Example CPU 9", 2, 16 << 30, "cpu", "Example CPU 9", "blis", 1)
PROMPTS = PromptsRecord("docs", "a" * 64, (10, 12), False, None)
_PLAIN_S = 1.0
_NO_ROUNDS: dict[str, Any] = {"counts": None, "profile": None, "predicted_tokens_per_s": None}


def samples(speedup: float) -> tuple[Sample, ...]:
    """Two turns over two prompts; the second turn is a tenth slower in every arm, the second prompt a fifth."""
    return tuple(
        Sample(turn, prompt, 10 + 2 * prompt, 0.02, 199, _PLAIN_S * (1 + 0.1 * turn + 0.2 * prompt) / speedup, 30 << 20)
        for turn in range(2)
        for prompt in range(2)
    )


def arm(depth: int | None, speedup: float, **changes: Any) -> Arm:
    """An arm of ours, by default one that plain decoding agrees with; None for `auto`."""
    most = 4 if depth is None else depth
    rounds = round(796 / (1 + 0.7 * most))
    judged = tuple(round(rounds * 0.85**at) for at in range(most))
    counts = Counts(
        rounds, {str(most): rounds}, 796, 0, rounds + 4, judged, tuple(round(number * 0.8) for number in judged)
    )
    known = Arm(
        name="auto" if depth is None else f"depth {depth}",
        program="skulk",
        depth=depth,
        samples=samples(speedup),
        counts=counts,
        distinct_4grams=0.63,
        same_as_reference=True,
        certificate=CertificateRecord(2, 400, 0, None, 0.01, 1e-5),
        profile=Profile(0.02, 0.1 * most / speedup, 0.7 / speedup, 0.1, 0.0, 0.03, 199, 0.12),
        predicted_tokens_per_s=190.0 * speedup,
        failed=None,
        skipped=None,
    )
    return replace(known, **changes)


def peer(name: str = "mlx-lm", speedup: float = 0.64) -> Arm:
    """Another program's arm."""
    return replace(arm(0, speedup), name=name, program="mlx-lm", depth=None, **_NO_ROUNDS)


def case(**changes: Any) -> Case:
    """Depth 3 is the fastest."""
    arms = (
        peer(),
        arm(0, 1.0),
        arm(1, 1.45),
        arm(2, 1.74),
        arm(3, 1.92),
        arm(4, 1.81),
        arm(None, 1.78),
    )
    costs = CostsRecord(
        {str(width): 0.004 + 0.0004 * width for width in range(1, 6)},
        {str(depth): 0.0009 * depth for depth in range(1, 5)},
        {str(width): 0.001 for width in range(2, 6)},
        0.0004,
    )
    known = Case(
        "docs, 200 tokens, temperature 0", 200, 2, PROMPTS, GREEDY, "argmax", "depth 0", (1.0, 1.1), costs, arms
    )
    return replace(known, **changes)


def receipt(**changes: Any) -> Receipt:
    """Of the demo, complete, with one case."""
    known = Receipt(
        complete=True,
        started="2026-11-01T12:00:00Z",
        took_s=81.5,
        command="skulk bench demo",
        versions={"python": "3.11.7", "skulk-mtp": "0.1.0", "mlx": "0.32.4", "mlx-lm": "0.32.2"},
        machine=MACHINE,
        hosts=1,
        link_delay_ms=0.0,
        model=ModelRecord("demo", "", "qwen3_5_text", "float32", "", 25_000_000, 8, 256, 4096),
        sidecar=SidecarRecord("demo sidecar", SIDECAR_SHA256, "qwen_mtp", "trunk"),
        cases=(case(),),
    )
    return replace(known, **changes)
