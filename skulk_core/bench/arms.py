"""Arms of a benchmark: the same prompts decoded at several depths, and by mlx-lm, in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
from mlx_lm.generate import generate_step

from skulk_core.bench.costs import Costs
from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.sampling.greedy import GreedySampler

REFERENCE = 0
MLX_LM = "mlx-lm"
Arm = int | str  # a draft depth, or MLX_LM


@dataclass
class ArmResult:
    """One arm's runs: seconds per token after the first, by (run, prompt), and what its rounds did."""

    arm: Arm
    seconds_per_token: list[float] = field(default_factory=list)
    same_as_reference: bool = True
    rounds: int = 0
    tokens: int = 0
    judged_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    predicted_tokens_per_s: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Median over all runs."""
        return 1 / statistics.median(self.seconds_per_token)

    def speedup(self, reference: "ArmResult") -> float:
        """Median of the ratios to the reference arm's run of the same turn and prompt."""
        pairs = zip(reference.seconds_per_token, self.seconds_per_token, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    @property
    def tokens_per_round(self) -> float | None:
        """Mean, None for an arm without rounds of ours."""
        return self.tokens / self.rounds if self.rounds else None

    @property
    def acceptance(self) -> list[float]:
        """Per draft position, of those reached."""
        return [a / j for a, j in zip(self.accepted_at, self.judged_at, strict=True) if j]

    def add(self, decoder: Decoder) -> None:
        """Count a text's rounds."""
        stats = decoder.stats
        self.rounds += stats.rounds
        self.tokens += stats.tokens
        while len(self.judged_at) < len(stats.judged_at):
            self.judged_at.append(0)
            self.accepted_at.append(0)
        for position, (judged, accepted) in enumerate(zip(stats.judged_at, stats.accepted_at, strict=True)):
            self.judged_at[position] += judged
            self.accepted_at[position] += accepted

    def predict(self, costs: Costs) -> None:
        """What the isolated costs of this arm's rounds and its measured tokens per round give."""
        if isinstance(self.arm, int) and self.tokens_per_round is not None:
            self.predicted_tokens_per_s = self.tokens_per_round / costs.round_s(self.arm)


def run_arms(
    target: Target,
    head: DraftHead | None,
    arms: Sequence[Arm],
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    num_runs: int,
    progress: Callable[[int, int], None],
) -> dict[Arm, ArmResult]:
    """Decode every prompt in every arm, ``num_runs`` times, arm after arm on each prompt (A B C A B C …).

    The first prompt is decoded once in every arm before anything counts. Greedy; ``arms`` must hold `REFERENCE`.
    """
    assert REFERENCE in arms, "no reference arm"
    results = {arm: ArmResult(arm) for arm in arms}
    for arm in arms:
        _decode(target, head, arm, prompts[0], num_tokens)  # warm-up
    total, done = num_runs * len(prompts) * len(arms), 0
    for _ in range(num_runs):
        for prompt in prompts:
            texts = {}
            for arm in arms:
                tokens, seconds, decoder = _decode(target, head, arm, prompt, num_tokens)
                texts[arm] = tokens
                results[arm].seconds_per_token.append(seconds / (num_tokens - 1))
                if decoder is not None:
                    results[arm].add(decoder)
                done += 1
                progress(done, total)
            for arm in arms:
                results[arm].same_as_reference &= texts[arm] == texts[REFERENCE]
    return results


def _decode(
    target: Target, head: DraftHead | None, arm: Arm, prompt: Sequence[int], num_tokens: int
) -> tuple[list[int], float, Decoder | None]:
    """Tokens, seconds after the first of them, and the decoder if it is ours."""
    if isinstance(arm, str):
        tokens: list[int] = []
        began = 0.0
        for token, _ in generate_step(mx.array(list(prompt)), target.model, max_tokens=num_tokens):
            if not tokens:
                began = time.perf_counter()
            tokens.append(int(token))
        return tokens, time.perf_counter() - began, None
    decoder = Decoder(target, head if arm else None, GreedySampler())
    tokens = [decoder.prefill(prompt, arm)]
    began = time.perf_counter()
    for round_ in decoder.rounds(num_tokens - 1):
        tokens += round_.tokens
    return tokens, time.perf_counter() - began, decoder


def prefill_seconds(target: Target, prompt: Sequence[int], num_runs: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token of ``prompt``, ours and mlx-lm's, in turn, after one of each that does not count."""
    ours, theirs = [], []
    for _ in range(num_runs + 1):
        began = time.perf_counter()
        Decoder(target, None, GreedySampler()).prefill(prompt, 0)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        next(iter(generate_step(mx.array(list(prompt)), target.model, max_tokens=1)))
        theirs.append(time.perf_counter() - began)
    return ours[1:], theirs[1:]
