"""transformers' decoding beside ours: `generate`, plain, and assisted in the best way it offers for the model."""

import time
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from skulk_core.bench.workload import ASSISTED, WITH_DRAFTS, WITH_LOOKUP, Check, Peer, PeerText, Skipped
from skulk_core.errors import OptionError
from skulk_core.models.loading import FILES_AT_FAULT, shortened
from skulk_core.runtime.packages import PUBLISH, pip_command
from skulk_core.sampling.settings import SamplingSettings

if TYPE_CHECKING:
    from skulk_core.bench.against import Against

# what its documentation drafts by prompt lookup
_LOOKUP_TOKENS = 10
# drafts a round of an assistant whose checkpoint does not say how many, for which `generate` has no default
_ASSISTANT_TOKENS = 6
_DTYPES = {"mlx.core.float32": "float32", "mlx.core.bfloat16": "bfloat16", "mlx.core.float16": "float16"}


def open_transformers(against: "Against") -> list[tuple[str, Peer | Skipped]]:
    """How it is assisted, and the peer or why there is none: plain, and as well as this release can."""
    why_not = _why_not(against)
    if why_not is not None:
        return [("", Skipped(why_not)), (ASSISTED, Skipped(why_not))]
    loaded = _load(against.path, str(against.model.target.dtype))
    if isinstance(loaded, Skipped):
        return [("", loaded), (ASSISTED, loaded)]
    return [("", Transformers(loaded)), *_assisted(loaded, against)]


class Transformers(Peer):
    """`generate` with the given way of assisting; all else as its documentation has it."""

    def __init__(self, model: Any, assistant: Any | None = None, lookup_tokens: int | None = None) -> None:
        self._model, self._assistant, self._lookup_tokens = model, assistant, lookup_tokens

    def decode(self, prompt: Sequence[int], num_tokens: int, settings: SamplingSettings, check: Check) -> PeerText:
        """See `Peer`."""
        import torch
        from transformers import GenerationConfig, set_seed

        set_seed(settings.seed % 2**32)
        drawn = {} if settings.is_greedy else _drawn(settings)
        make_config: Any = GenerationConfig
        config = make_config(
            max_new_tokens=num_tokens,
            do_sample=not settings.is_greedy,
            eos_token_id=None,
            pad_token_id=0,
            prompt_lookup_num_tokens=self._lookup_tokens,
            **drawn,
        )
        clock, fed = _Clock(check), torch.tensor([list(prompt)])
        began = time.perf_counter()
        out = self._model.generate(
            fed,
            attention_mask=torch.ones_like(fed),
            generation_config=config,
            streamer=clock,
            assistant_model=self._assistant,
        )
        ended = time.perf_counter()
        tokens = tuple(out[0, len(prompt) :].tolist())
        assert clock.first_s is not None, "generate told of no token"
        return PeerText(tokens[:num_tokens], clock.first_s - began, ended - clock.first_s, clock.num_first)


class _Clock:
    """What `generate` calls a streamer: told of the prompt, then of tokens."""

    def __init__(self, check: Check) -> None:
        self._check, self._told = check, 0
        self.first_s: float | None = None
        self.num_first = 0

    def put(self, value: Any) -> None:
        self._told += 1
        if self._told == 2:
            # assisted, the first pass may bring several
            self.first_s, self.num_first = time.perf_counter(), int(value.numel())
        self._check()

    def end(self) -> None:
        return


def _why_not(against: "Against") -> str | None:
    if util.find_spec("torch") is None:
        return f"torch is not installed: {pip_command(PUBLISH)}"
    if against.path.is_file():
        return "a GGUF file is not read by transformers here"
    if against.model.quantization is not None:
        return "transformers cannot read weights that MLX has packed"
    return None


def _load(path: Path, dtype: str) -> Any | Skipped:
    import transformers
    from transformers.utils import logging

    say: Any = logging
    say.disable_progress_bar()
    # its annotations do not say that a pair comes back where loading_info is asked for
    auto: Any = transformers.AutoModelForCausalLM
    try:
        model, found = auto.from_pretrained(path, dtype=_DTYPES[dtype], output_loading_info=True, local_files_only=True)
    except (*FILES_AT_FAULT, ImportError, OSError, StrictDataclassError) as error:
        return Skipped(f"transformers {transformers.__version__} cannot load it: {shortened(str(error))}")
    missing = sorted(found["missing_keys"])
    if missing:
        return Skipped(f"transformers finds no weights for {', '.join(missing[:3])}, and would make some up")
    return model.eval()


def _assisted(loaded: Any, against: "Against") -> list[tuple[str, Peer | Skipped]]:
    if getattr(loaded, "_is_stateful", False):
        return [(ASSISTED, Skipped("transformers assists no model that has a recurrent state, as this one has"))]
    lookup = (WITH_LOOKUP, Transformers(loaded, lookup_tokens=_LOOKUP_TOKENS))
    path = against.draft_model or against.assistant
    if path is None:
        return [lookup]
    if not path.is_dir():
        raise OptionError("--against-draft", path, "no such folder")
    drafting = _load(path, str(against.model.target.dtype))
    if isinstance(drafting, Skipped):
        return [(ASSISTED, Skipped(f"as a draft model, {path.name}: {drafting.reason}")), lookup]
    config = drafting.generation_config
    if against.draft_model is None and config is not None and config.num_assistant_tokens is None:
        config.num_assistant_tokens = _ASSISTANT_TOKENS
    return [(WITH_DRAFTS, Transformers(loaded, drafting))]


def _drawn(settings: SamplingSettings) -> dict[str, Any]:
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": settings.min_p or None,
    }
