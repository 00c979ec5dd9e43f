"""Other programs' decoding beside ours: the same weights, prompts and process, plain and assisted.

They draw tokens in their own ways, and their penalties mean other things than ours, so only what is the same
everywhere may be asked of them: temperature, top-k, top-p and min-p.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step, speculative_generate_step
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import load_model

from skulk_core.bench.workload import ASSISTED, WITH_DRAFTS, ArmSpec, Check, Peer, PeerText, Skipped
from skulk_core.errors import OptionError
from skulk_core.models.loading import FILES_AT_FAULT, LoadedModel, cast, shortened
from skulk_core.sampling.settings import SamplingSettings

MLX_LM, TRANSFORMERS = "mlx-lm", "transformers"
PROGRAMS = (MLX_LM, TRANSFORMERS)
# what mlx-lm drafts if nobody says otherwise
_NUM_DRAFT_TOKENS = 2
# what a peer must decode before it is measured
_TRIAL, _TRIAL_TOKENS = tuple(range(1, 9)), 4


def require_common(settings: SamplingSettings) -> None:
    """Raise `OptionError` for settings that other programs read otherwise."""
    if settings.counts_tokens or settings.logit_bias:
        raise OptionError("--against", "", "penalties and --logit-bias mean other things to other programs")


@dataclass(frozen=True)
class Against:
    """A program to measure on the checkpoint ``path``, which is loaded here as ``model``.

    ``draft_model`` is a checkpoint that is to assist it, ``assistant`` the one that assists us, each None if there is
    none. ``most_tokens`` are those of the longest prompt with its answer.
    """

    program: str
    model: LoadedModel
    path: Path
    most_tokens: int
    draft_model: Path | None = None
    assistant: Path | None = None


def arms_against(against: Against) -> list[ArmSpec]:
    """The program's plain arm, and its assisted ones. What cannot be had is an arm that says why.

    Raises `OptionError` for a program or a draft model that is none.
    """
    if against.program == MLX_LM:
        peers: list[tuple[str, Peer | Skipped]] = [("", MlxLm(against.model, None)), _assisted_mlx_lm(against)]
    elif against.program == TRANSFORMERS:
        from skulk_core.bench.against_transformers import open_transformers

        peers = open_transformers(against)
    else:
        raise OptionError("--against", against.program, f"not one of {', '.join(PROGRAMS)}")
    return [ArmSpec.other(against.program, how, _tried(peer)) for how, peer in peers]


def _tried(peer: Peer | Skipped) -> Peer | Skipped:
    """The peer, if it decodes a few tokens; a failure in the middle of a benchmark would cost the rest of it."""
    if isinstance(peer, Skipped):
        return peer
    try:
        peer.decode(_TRIAL, _TRIAL_TOKENS, SamplingSettings(), lambda: None)
    except FILES_AT_FAULT as error:
        return Skipped(f"it fails on this model: {shortened(str(error)) or type(error).__name__}")
    return peer


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


def _assisted_mlx_lm(against: Against) -> tuple[str, Peer | Skipped]:
    """mlx-lm's speculative loop, which drafts with a second model and cuts the caches of both."""
    why_not = _why_not_cut(against.model.target.model, against.most_tokens)
    if why_not is not None:
        return ASSISTED, Skipped(why_not)
    if against.draft_model is None:
        return ASSISTED, Skipped("mlx-lm drafts with a second model, which --against-draft FOLDER names")
    drafting = _draft_model(against.draft_model, against.model)
    if isinstance(drafting, Skipped):
        return ASSISTED, drafting
    why_not = _why_not_cut(drafting, against.most_tokens)
    if why_not is not None:
        return ASSISTED, Skipped(f"as a draft model: {why_not}")
    return WITH_DRAFTS, MlxLm(against.model, drafting)


def _draft_model(path: Path, model: LoadedModel) -> Any:
    """The model that drafts, in the dtype of the one that verifies, or why there is none. Raises `OptionError`."""
    if not path.is_dir():
        raise OptionError("--against-draft", path, "no such folder")
    try:
        drafting, _ = load_model(path)
    except (*FILES_AT_FAULT, OSError) as error:
        return Skipped(f"mlx-lm cannot load {path.name} as a draft model: {shortened(str(error))}")
    cast(drafting, model.target.dtype)
    vocab_size = drafting(mx.array([[0]])).shape[-1]
    if vocab_size != model.target.vocab_size:
        reason = f"has a vocabulary of {vocab_size} tokens, the model one of {model.target.vocab_size}"
        raise OptionError("--against-draft", path, reason)
    return drafting


def _why_not_cut(model: Any, most_tokens: int) -> str | None:
    """Why mlx-lm cannot take refused drafts back out of the caches of ``model``; None if it can."""
    caches = make_prompt_cache(model)
    if not can_trim_prompt_cache(caches):
        return "mlx-lm drafts only for models whose caches can be cut, and a recurrent state cannot be"
    # a cache of a sliding window stops being cut, without a word, once it is full
    windows = [size for cache in caches for size in _windows(cache)]
    if windows and most_tokens + _NUM_DRAFT_TOKENS >= min(windows):
        return f"mlx-lm cannot take drafts back once a window of {min(windows)} tokens is full"
    return None


def _windows(cache: Any) -> list[int]:
    """Sizes of the sliding windows in a cache, which may be made of several."""
    if hasattr(cache, "caches"):
        return [size for part in cache.caches for size in _windows(part)]
    size = getattr(cache, "max_size", None)
    return [] if size is None else [size]
