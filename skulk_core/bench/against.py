"""Other programs' decoding beside ours: the same weights, prompts and process, plain and assisted.

They draw tokens in their own ways, and their penalties mean other things than ours, so only what is the same
everywhere may be asked of them: temperature, top-k, top-p and min-p.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step, speculative_generate_step
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from skulk_core.bench.workload import ArmSpec, Check, Peer, PeerText, Skipped
from skulk_core.errors import OptionError
from skulk_core.models.loading import LoadedModel, load
from skulk_core.sampling.settings import SamplingSettings

MLX_LM, TRANSFORMERS = "mlx-lm", "transformers"
PROGRAMS = (MLX_LM, TRANSFORMERS)
# what mlx-lm drafts if nobody says otherwise
_NUM_DRAFT_TOKENS = 2


def require_common(settings: SamplingSettings) -> None:
    """Raise `OptionError` for settings that other programs read otherwise."""
    if settings.counts_tokens or settings.logit_bias:
        raise OptionError("--against", "", "penalties and --logit-bias mean other things to other programs")


def arms_against(program: str, model: LoadedModel, path: Path, draft_model: Path | None) -> list[ArmSpec]:
    """The plain and the assisted arm of ``program`` on the checkpoint ``path``, loaded here as ``model``.

    ``draft_model`` is a checkpoint that assists. What cannot be had is an arm that says why. Raises `OptionError`.
    """
    if program == MLX_LM:
        plain: Peer | Skipped = MlxLm(model, None)
        assisted = _assisted_mlx_lm(model, draft_model)
    elif program == TRANSFORMERS:
        from skulk_core.bench.against_transformers import open_transformers

        plain, assisted = open_transformers(path, model, draft_model)
    else:
        raise OptionError("--against", program, f"not one of {', '.join(PROGRAMS)}")
    return [ArmSpec.other(program, plain, assisted=False), ArmSpec.other(program, assisted, assisted=True)]


class MlxLm(Peer):
    """mlx-lm's own loop, on the very modules that we decode with."""

    def __init__(self, model: LoadedModel, draft_model: Any | None) -> None:
        self._model, self._draft_model = model.target.model, draft_model

    def decode(self, prompt: Sequence[int], num_tokens: int, settings: SamplingSettings, check: Check) -> PeerText:
        """See `Peer`."""
        mx.random.seed(settings.seed)
        return timed(lambda: self._tokens(mx.array(list(prompt)), num_tokens, settings), num_tokens, check)

    def _tokens(self, prompt: mx.array, num_tokens: int, settings: SamplingSettings) -> Iterator[int]:
        sampler = make_sampler(settings.temperature, settings.top_p, settings.min_p, top_k=settings.top_k)
        if self._draft_model is None:
            for token, _ in generate_step(prompt, self._model, max_tokens=num_tokens, sampler=sampler):
                yield int(token)
            return
        assisted = speculative_generate_step(
            prompt,
            self._model,
            self._draft_model,
            num_draft_tokens=_NUM_DRAFT_TOKENS,
            max_tokens=num_tokens,
            sampler=sampler,
        )
        for token, _, _ in assisted:
            yield int(token)


def timed(tokens: Callable[[], Iterator[int]], num_tokens: int, check: Check) -> PeerText:
    """Take ``num_tokens`` tokens and the times of the first and the others."""
    taken: list[int] = []
    began = filled = time.perf_counter()
    for token in tokens():
        if not taken:
            filled = time.perf_counter()
        taken.append(token)
        check()
        if len(taken) == num_tokens:
            break
    return PeerText(tuple(taken), filled - began, time.perf_counter() - filled)


def _assisted_mlx_lm(model: LoadedModel, draft_model: Path | None) -> Peer | Skipped:
    if not can_trim_prompt_cache(make_prompt_cache(model.target.model)):
        return Skipped("mlx-lm drafts only for models whose caches can be cut, and this one has others")
    if draft_model is None:
        return Skipped("mlx-lm drafts with a second model: --against-draft FOLDER")
    drafting = load(draft_model)
    if drafting.target.vocab_size != model.target.vocab_size:
        raise OptionError(
            "--against-draft",
            draft_model,
            f"has a vocabulary of {drafting.target.vocab_size} tokens, the model one of {model.target.vocab_size}",
        )
    return MlxLm(model, drafting.target.model)
