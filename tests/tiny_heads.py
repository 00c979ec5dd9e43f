"""The Qwen MTP head as an oracle, made of transformers' own modules, and its tensors as upstream names them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import save_file
from tiny_checkpoints import Tensors, randomise

from skulk_core.formats.sidecar import SidecarMetadata, TrunkFingerprint
from skulk_core.sampling.base import Place
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap

FULL_ATTENTION_LAYER = 1


class TorchHead(torch.nn.Module):
    """`fc`, two norms, one decoder layer of the trunk's kind and a norm; nothing is cached, every draft starts anew."""

    def __init__(self, trunk: Any, seed: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        config, norm, layer = trunk.config, type(trunk.model.norm), type(trunk.model.layers[FULL_ATTENTION_LAYER])
        size, eps = config.hidden_size, config.rms_norm_eps
        self.fc = torch.nn.Linear(2 * size, size, bias=False)
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden = norm(size, eps), norm(size, eps)
        self.layers = torch.nn.ModuleList([layer(config, FULL_ATTENTION_LAYER)])
        self.norm = norm(size, eps)
        # a list, so that the trunk's parameters are not this module's
        self._trunk = [trunk]
        self.eval()
        randomise(self)

    @property
    def norm_offset(self) -> float:
        """What the trunk's norms add to their weights."""
        return 0.0 if type(self.norm).__name__.startswith("Llama") else 1.0

    def tensors(self, norm_offset: float | None = None) -> Tensors:
        """The weights in upstream names, for a loader that adds ``norm_offset`` to every norm."""
        shift = 0.0 if norm_offset is None else self.norm_offset - norm_offset
        return {
            f"mtp.{name}": (tensor + shift if tensor.ndim == 1 else tensor).detach().contiguous()
            for name, tensor in self.state_dict().items()
        }

    @torch.no_grad()
    def draft(
        self, hidden: "TorchHidden", tokens: torch.Tensor, depth: int, conventions: Conventions
    ) -> tuple[list[int], np.ndarray]:
        """Tokens and logits ``[depth, V]`` after the pairs of ``hidden`` rows and the ``tokens`` that came."""
        h = hidden.post_norm if conventions.hidden_tap is HiddenTap.POST_NORM else hidden.pre_norm
        drafted, logits = [], []
        for _ in range(depth):
            out = self._layer(h, tokens, conventions)[-1:]
            normed = self.norm(out)
            logits.append(self._trunk[0].lm_head(normed)[0].numpy())
            drafted.append(int(logits[-1].argmax()))
            tokens = torch.cat([tokens, torch.tensor(drafted[-1:])])
            h = torch.cat([h, normed if conventions.chain_tap is ChainTap.POST_NORM else out])
        return drafted, np.stack(logits)

    def _layer(self, h: torch.Tensor, tokens: torch.Tensor, conventions: Conventions) -> torch.Tensor:
        trunk, rows = self._trunk[0].model, len(tokens)
        halves = [self.pre_fc_norm_embedding(trunk.embed_tokens(tokens)), self.pre_fc_norm_hidden(h)]
        if conventions.concat_order is ConcatOrder.HIDDEN_FIRST:
            halves.reverse()
        z = self.fc(torch.cat(halves, dim=-1))[None]
        positions = torch.arange(rows)[None]
        mask = torch.full((rows, rows), -torch.inf).triu(1)[None, None]
        out = self.layers[0](z, position_embeddings=trunk.rotary_emb(z, positions), attention_mask=mask)
        return out[0]


class TorchHidden:
    """What a head reads of the trunk's rows, by transformers: before and after the final norm, ``[T, H]``."""

    def __init__(self, pre_norm: torch.Tensor, post_norm: torch.Tensor) -> None:
        self.pre_norm, self.post_norm = pre_norm, post_norm

    def first(self, rows: int) -> "TorchHidden":
        return TorchHidden(self.pre_norm[:rows], self.post_norm[:rows])


@torch.no_grad()
def torch_hidden(trunk: Any, tokens: torch.Tensor) -> TorchHidden:
    """Both taps of ``trunk`` over ``tokens``."""
    entering: list[torch.Tensor] = []
    hook = trunk.model.norm.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0][0]))
    leaving = trunk.model(tokens[None]).last_hidden_state[0]
    hook.remove()
    return TorchHidden(entering[0], leaving)


class RecordingSampler(GreedySampler):
    """Greedy; keeps the logits that drafts were chosen from."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: list[mx.array] = []

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        self.logits.append(logits[0])
        return super().draft(logits, place, drafted)


def metadata(trunk: Any, conventions: Conventions, **changes: Any) -> SidecarMetadata:
    """Metadata of a sidecar made for ``trunk``; ``changes`` are to its fingerprint."""
    config = trunk.config
    fingerprint = TrunkFingerprint(config.hidden_size, config.vocab_size, config.num_hidden_layers, 10000.0)
    return SidecarMetadata(
        layout="qwen_mtp",
        num_heads=1,
        conventions=conventions,
        source_repo="someone/tiny",
        source_sha="",
        source_dtypes=("F32",),
        shared_tensors=("model.embed_tokens.weight", "lm_head.weight"),
        tool="test",
        trunk=replace(fingerprint, **changes),
    )


def write_sidecar(file: Path, tensors: Tensors, metadata: SidecarMetadata | None = None) -> Path:
    """A sidecar with our metadata, or as other publishers write it."""
    save_file(tensors, file, metadata.to_strings() if metadata else {"format": "pt"})
    return file
