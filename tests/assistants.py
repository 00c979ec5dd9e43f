"""The trained tiny Gemma 4 and its assistant in `data/gemma4`: see `train_assistant.py`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mlx.core as mx

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import assistant_head
from skulk_core.heads.loading import LoadedHead, load_head
from skulk_core.models.loading import LoadedModel, load
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler
from skulk_core.types import PositionRule

DATA = Path(__file__).with_name("data") / "gemma4"
TARGET, ASSISTANT = DATA / "target", DATA / "assistant"

NUM_CENTROIDS = 14

# Openings in the manner of what it was trained on.
PROMPTS = (
    "The class statement is used to ",
    "An expression list containing at least one comma yields a tuple.",
    "If the object has no such attribute, an ",
)


# Greedy text that goes on saying something new, where without penalties it comes to stand still.
VARIED = SamplingSettings(repetition_penalty=1.3, frequency_penalty=0.1)


def num_distinct(tokens: list[int]) -> int:
    """Runs of four tokens, each counted once."""
    return len({tuple(tokens[at : at + 4]) for at in range(len(tokens) - 3)})


@cache
def target() -> LoadedModel:
    """The trained target."""
    return load(TARGET, "float32")


@cache
def assistant(rule: PositionRule = PositionRule.LAST_COMMITTED, precision: str = "auto") -> LoadedHead:
    """The assistant that was trained for it, at ``rule``: it was trained at the default."""
    files = assistant_head(ASSISTANT)
    return load_head(target(), files, precision=precision, overrides={"position_rule": rule})


def clustered(folder: Path) -> LoadedHead:
    """The assistant with centroids, as E2B's and E4B's have them: tokens by cluster, and each cluster's mean row."""
    arrays = mx.load(str(ASSISTANT / "model.safetensors"))
    assert isinstance(arrays, dict)
    rows = arrays["model.embed_tokens.weight"].astype(mx.float32)
    # neighbours in one direction of the embedding, so that a cluster's mean says something of it
    ordering = mx.argsort(rows[:, 0])
    means = rows[ordering].reshape(NUM_CENTROIDS, -1, rows.shape[1]).mean(axis=1)
    arrays |= {
        "masked_embedding.centroids.weight": means.astype(mx.bfloat16),
        "masked_embedding.token_ordering": ordering.astype(mx.int64),
    }
    config = json.loads((ASSISTANT / "config.json").read_text())
    assert config["num_centroids"] == NUM_CENTROIDS
    config["use_ordered_embeddings"] = True
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return load_head(target(), assistant_head(folder), overrides={"position_rule": PositionRule.LAST_COMMITTED})


@dataclass(frozen=True)
class Decoded:
    """An answer's tokens; of every round the token it begins at, the drafts made and those accepted."""

    tokens: list[int]
    rounds: list[tuple[int, int, int]]

    def accepted(self, start: int, end: int) -> float:
        """The share of drafts accepted in rounds that begin in tokens ``[start, end)``."""
        judged = [(drafted, accepted) for at, drafted, accepted in self.rounds if start <= at < end]
        return sum(accepted for _, accepted in judged) / sum(drafted for drafted, _ in judged)


def decode(
    head: DraftHead | None,
    text: str,
    depth: int,
    num_tokens: int,
    settings: SamplingSettings | None = None,
    after_prefill: Callable[[list[int]], None] = lambda prompt: None,
) -> Decoded:
    """The answer to ``text``."""
    decoder = Decoder(target().target, head, make_sampler(settings or SamplingSettings()))
    prompt: list[int] = target().tokenizer.encode(text)
    tokens = [decoder.prefill(prompt, depth)]
    after_prefill(prompt)
    rounds = []
    for round_ in decoder.rounds(num_tokens - 1):
        rounds.append((len(tokens), round_.num_drafted, round_.num_accepted))
        tokens += round_.tokens
    return Decoded(tokens, rounds)
