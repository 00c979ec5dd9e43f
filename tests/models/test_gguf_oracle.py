"""Transformers reads the same GGUF file by code of its own: model, configuration and tokenizer must agree."""

from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
import torch
from tiny_gguf import BOS, VOCAB, gguf_case, write_gguf, write_tokenizer
from tiny_models import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from skulk_core.models.loading import load

TOKENS = np.random.default_rng(5).integers(0, VOCAB, 30)
TEXTS = [
    "the hen and the other one",
    "Ünïcödé 漢字 🙂\n\n\ttab",
    "<|im_start|>user\nhi<|im_end|> <think> 123 4567",
    "",
    " ",
]


def in_torch(file: Path, **unread: Any) -> Any:
    """What `from_pretrained(…, gguf_file=…)` makes of ``file``, without the package that it asks for first.

    ``unread`` are settings that transformers does not take from such files.
    """
    config = AutoConfig.for_model(**load_gguf_checkpoint(str(file), return_tensors=False)["config"], **unread)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    missing, surplus = model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    assert not surplus
    assert set(missing) <= {"lm_head.weight"}
    return model


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen3_moe", "phi3"])
def test_logits_are_those_of_transformers(tmp_path: Path, family: str, kind: str) -> None:
    # what transformers takes for granted: a head's size, heads turned whole, every layer of experts
    settings: dict[str, dict[str, Any]] = {
        "qwen3": {"head_dim": 128},
        "qwen3_moe": {"mlp_only_layers": []},
        "phi3": {"partial_rotary_factor": 1.0, "original_max_position_embeddings": 4096},
    }
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, **settings.get(family, {})}
    case = gguf_case(family, **sizes)

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_vocab_size(VOCAB)
        writer.add_pad_token_id(BOS)

    write_gguf(tmp_path / "m.gguf", case, kind, metadata=describe)
    theirs = in_torch(tmp_path / "m.gguf", **({"moe_intermediate_size": 32} if family == "qwen3_moe" else {}))
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)[None]).logits[0]
    ours = load(tmp_path / "m.gguf", "float32").target.model(mx.array(TOKENS)[None])[0]
    assert_close(ours, expected.numpy(), 3e-4)


def sentencepiece(writer: gguf.GGUFWriter) -> None:
    """A vocabulary of pieces with scores, as Llama 2 and Mistral have."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["▁", "t", "h", "e", "th", "the", "▁the", "n", "en", "hen", "▁hen", "a", "d", "an", "and", "▁and"]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*pieces, *words])
    writer.add_token_scores([0.0] * len(pieces) + [-float(index) for index in range(len(words))])
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    writer.add_token_types(special + [kinds.BYTE] * 256 + [kinds.NORMAL] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


@pytest.mark.parametrize("vocabulary", [write_tokenizer, sentencepiece])
def test_tokens_are_those_of_transformers(tmp_path: Path, vocabulary: Any) -> None:
    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), tokenizer=vocabulary)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ours = load(tmp_path / "m.gguf").tokenizer
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.eos_token_ids == {2}
    assert ours.bos_token_id == theirs.bos_token_id


def test_the_chat_template_is_the_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", gguf_case("llama"))
    tokenizer = load(tmp_path / "m.gguf").tokenizer
    assert tokenizer.has_chat_template
    chat = [{"role": "user", "content": "the hen"}]
    shown = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert shown == "<|im_start|>user\nthe hen<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer.apply_chat_template(chat, add_generation_prompt=True)) == shown


def test_every_token_has_a_spelling(tmp_path: Path) -> None:
    """Some converters write a token twice; the detokenizer must survive the one that no text becomes."""

    def twice(writer: gguf.GGUFWriter) -> None:
        write_tokenizer(writer)
        tokens = writer.kv_data[0]["tokenizer.ggml.tokens"].value
        tokens[VOCAB - 1] = tokens[VOCAB - 2] = "the"

    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), tokenizer=twice)
    tokenizer = load(tmp_path / "m.gguf").tokenizer
    detokenizer = tokenizer.detokenizer
    for token in range(VOCAB):
        detokenizer.add_token(token)
    assert tokenizer.encode("the") == [VOCAB - 1]


@pytest.mark.parametrize(
    ("pre", "said", "expected"),
    [("qwen2", None, False), ("qwen2", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_bos_as_the_file_says_else_as_llama_cpp_does(
    tmp_path: Path, pre: str, said: bool | None, expected: bool
) -> None:
    """Without its BOS a Llama 3 that is given a bare text answers worse."""

    def vocabulary(writer: gguf.GGUFWriter) -> None:
        write_tokenizer(writer)
        writer.kv_data[0]["tokenizer.ggml.pre"].value = pre
        if said is not None:
            writer.add_add_bos_token(said)

    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), tokenizer=vocabulary)
    tokens = load(tmp_path / "m.gguf").tokenizer.encode("the hen")
    assert (tokens[0] == BOS) is expected
    assert tokens.count(BOS) == int(expected)
