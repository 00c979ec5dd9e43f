"""Trains the tiny Gemma 4 target and assistant in `tests/data/gemma4`: `python tests/train_assistant.py`.

Characters of Python's own reference manual, as Python carries it (`pydoc_data.topics` of 3.11, PSF licence), in rows
longer than the sliding layers' windows. The target learns the text, then the assistant learns what the target says of
it, chained three deep, at one position for a chain. Both are transformers' own modules; nothing of skulk is used.
Seeded, one thread, about seven minutes.
"""

import itertools
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gemma4_tiny import save_assistant, save_target, torch_assistant, torch_target
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
OUT = HERE / "data" / "gemma4"
VOCAB = 112
WINDOW = 24
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
TARGET: dict[str, Any] = {
    "vocab_size": VOCAB,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_hidden_layers": 6,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "attn_implementation": "sdpa",
}
ASSISTANT: dict[str, Any] = {"vocab_size": VOCAB, "intermediate_size": 96, "hidden_size": 48}
# Rows and their length, in turn: most of what is learned is near, and short rows are cheaper.
BATCHES = ((10, 208), (4, 520), (10, 208), (2, 1040))
TARGET_STEPS, ASSISTANT_STEPS, DEPTH = 480, 240, 3


def corpus() -> str:
    """The manual, less what few characters there are that the vocabulary has no room for."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def alphabet(text: str) -> list[str]:
    """The special tokens and the commonest characters."""
    common = sorted(set(text), key=lambda char: (-text.count(char), char))
    return [*SPECIAL, *common[: VOCAB - len(SPECIAL)]]


def tokenizer_of(tokens: list[str]) -> PreTrainedTokenizerFast:
    """One token a character."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def train(parameters: Any, steps: int, rate: float, loss_of: Any) -> None:
    """AdamW with a warm-up and a cosine, over ``loss_of()``."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    began = time.monotonic()
    for step in range(steps):
        warm = min(1.0, (step + 1) / 30)
        for group in optimizer.param_groups:
            group["lr"] = (
                rate * warm * (0.02 + 0.98 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()) / 2)
            )
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


@torch.no_grad()
def begin(model: Any, std: float) -> None:
    """Weights to begin training with: those of the seeded test models are too large."""
    for parameter in model.parameters():
        parameter.fill_(1.0) if parameter.ndim == 1 else parameter.normal_(0.0, std)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(1.0)


@torch.no_grad()
def rounded(model: Any) -> None:
    """To what bfloat16 can say, which is how the weights are kept."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


@cache
def masks(length: int) -> dict[str, torch.Tensor]:
    """What the draft after each of ``length`` rows may see of the target's: see `heads/gemma4_assistant.py`."""
    own, key = torch.arange(length)[:, None], torch.arange(length)[None]
    full = key <= own
    sliding = full & (key > own - (WINDOW + 1))
    return {
        kind: torch.zeros(length, length).masked_fill(~seen, -torch.inf)[None, None]
        for kind, seen in (("full_attention", full), ("sliding_attention", sliding))
    }


def chained_loss(assistant: Any, target: Any, batch: torch.Tensor) -> torch.Tensor:
    """How far the drafts of every row are from what the target says there, given the text up to each draft."""
    with torch.no_grad():
        out = target.model.language_model(batch, use_cache=False, return_shared_kv_states=True)
        hidden, shared = out.last_hidden_state, dict(out.shared_kv_states)
        wanted = F.log_softmax(capped(target, hidden), dim=-1)
        embedded = target.get_input_embeddings()(batch)
    length = batch.shape[1]
    seen = masks(length)
    h, loss = hidden[:, :-1], torch.zeros(())
    for step in range(DEPTH):
        rows = length - 1 - step
        entering = torch.cat([embedded[:, 1 + step :], h[:, :rows]], dim=-1)
        drafting = assistant.model(
            inputs_embeds=assistant.pre_projection(entering),
            attention_mask={kind: mask[..., :rows, :] for kind, mask in seen.items()},
            position_ids=torch.arange(1, rows + 1)[None],
            shared_kv_states=shared,
            use_cache=False,
            # a number would have it cut layer inputs, which these sizes have none of
            logits_to_keep=torch.tensor(0),
        ).last_hidden_state
        drafted = F.log_softmax(assistant.lm_head(drafting), dim=-1)
        loss = loss + F.kl_div(drafted, wanted[:, 1 + step :], reduction="none", log_target=True).sum(-1).mean()
        h = assistant.post_projection(drafting)
    return loss / DEPTH


def capped(target: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The target's logits of hidden rows."""
    cap = target.config.text_config.final_logit_softcapping
    return cap * torch.tanh(target.lm_head(hidden) / cap)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = corpus()
    tokens = alphabet(text)
    tokenizer = tokenizer_of(tokens)
    ids = {token: index for index, token in enumerate(tokens)}
    data = torch.tensor([ids.get(char, ids["<unk>"]) for char in text])

    sizes = itertools.cycle(BATCHES)

    def batch() -> torch.Tensor:
        rows, length = next(sizes)
        starts = torch.randint(0, len(data) - length, (rows,))
        return torch.stack([data[start : start + length] for start in starts])

    target = torch_target("31B", **TARGET)
    begin(target, 0.05)
    target.train()

    def target_loss() -> torch.Tensor:
        rows = batch()
        logits = capped(target, target.model.language_model(rows, use_cache=False).last_hidden_state)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())

    train(target.parameters(), TARGET_STEPS, 4e-3, target_loss)
    target.requires_grad_(False)
    target.eval()
    rounded(target)
    assistant = torch_assistant(target, **ASSISTANT)
    begin(assistant, 0.05)
    assistant.train()
    train(assistant.parameters(), ASSISTANT_STEPS, 4e-3, lambda: chained_loss(assistant, target, batch()))
    for save, model, name in ((save_target, target, "target"), (save_assistant, assistant, "assistant")):
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        save(model.eval(), folder, dtype=torch.bfloat16)
        tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
