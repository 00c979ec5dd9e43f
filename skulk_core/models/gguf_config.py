"""From a GGUF file's metadata to the configuration that mlx-lm's model is built from."""

from array import array
from typing import Any

from skulk_core.errors import FileError, UnsupportedArchitecture
from skulk_core.models.gguf_architectures import ARCHITECTURES, MIXTRAL, Architecture
from skulk_core.models.gguf_file import GgufFile
from skulk_core.models.gguf_rope import rope_settings

# what llama.cpp's graph heeds and mlx-lm's models of these architectures have no place for
_UNSERVED = (
    "attention.clamp_kqv",
    "attention.scale",
    "attention.temperature_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "nextn_predict_layers",
    "rope.dimension_sections",
)
_UNSERVED_SCALES = ("embedding_scale", "logit_scale", "residual_scale")
_STOPS = ("eos", "eot", "eom")


class Metadata:
    """Values of one file by key; those of its architecture without its name before them."""

    def __init__(self, file: GgufFile) -> None:
        self.path, self._all = file.path, file.metadata
        self.architecture = self._string("general.architecture")

    def has(self, key: str) -> bool:
        """Whether the file says anything of ``key``."""
        return f"{self.architecture}.{key}" in self._all

    def number(self, key: str, default: float | None = None) -> Any:
        """A number; a list that repeats one number counts as it. Raises `FileError` if there is none."""
        found = self._all.get(f"{self.architecture}.{key}", default)
        if isinstance(found, list) and len(set(found)) == 1:
            found = found[0]
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            said = "no value" if found is None else found
            raise FileError(self.path, f"{self.architecture}.{key} must be one number: {said} was found")
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """Whatever the file says of ``key``."""
        return self._all.get(f"{self.architecture}.{key}", default)

    def token(self, name: str) -> int | None:
        """The id of the special token called ``name``."""
        found = self._all.get(f"tokenizer.ggml.{name}_token_id")
        return found if isinstance(found, int) else None

    def _string(self, key: str) -> str:
        found = self._all.get(key)
        if not isinstance(found, str) or not found:
            raise FileError(self.path, f"names no {key}")
        return found


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture of ``file``. Raises `FileError`, `UnsupportedArchitecture`."""
    metadata = Metadata(file)
    found = ARCHITECTURES.get(metadata.architecture)
    if found is None:
        raise UnsupportedArchitecture(file.path, metadata.architecture, tuple(sorted(ARCHITECTURES)))
    return MIXTRAL if metadata.architecture == "llama" and metadata.get("expert_count") else found


def make_config(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """What `config.json` of the same model says. Raises `FileError`."""
    metadata = Metadata(file)
    unserved = [key for key in _UNSERVED if metadata.get(key) not in (None, 0)]
    unserved += [key for key in _UNSERVED_SCALES if metadata.get(key) not in (None, 0, 1)]
    if metadata.architecture == "olmo2" and metadata.get("attention.sliding_window"):
        unserved.append("attention.sliding_window")
    if unserved:
        raise FileError(file.path, f"sets {metadata.architecture}.{unserved[0]}, which mlx-lm's model cannot follow")
    hidden_size, num_heads = metadata.number("embedding_length"), metadata.number("attention.head_count")
    num_kv_heads = metadata.number("attention.head_count_kv", num_heads)
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        raise FileError(file.path, f"says that {num_heads} heads share {num_kv_heads} heads of keys and values")
    num_layers = metadata.number("block_count")
    if num_layers > len(file.tensors):
        raise FileError(file.path, f"says that it has {num_layers:,} layers, and holds {len(file.tensors)} tensors")
    head_dim = metadata.number("attention.key_length", hidden_size // num_heads)
    if head_dim % 2 or metadata.number("attention.value_length", head_dim) != head_dim:
        raise FileError(file.path, f"its keys are {head_dim} long; they must be as long as its values, and even")
    stops = [token for name in _STOPS if (token := metadata.token(name)) is not None]
    config: dict[str, Any] = {
        "model_type": architecture.model_type,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": metadata.number("context_length"),
        # a model of experts alone may leave it out, and mlx-lm's have no use for it then
        "intermediate_size": metadata.number("feed_forward_length", 0),
        "vocab_size": _shape(file, "token_embd.weight", 2)[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "attention_out_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "use_qk_norm": "blk.0.attn_q_norm.weight" in file.tensors,
        "eos_token_id": list(dict.fromkeys(stops)),
        "bos_token_id": metadata.token("bos"),
    }
    factors = {name: _floats(file, name) for name in file.tensors if name.startswith("rope_f")}
    return config | _experts(file, metadata) | rope_settings(metadata, architecture, head_dim, factors)


def _experts(file: GgufFile, metadata: Metadata) -> dict[str, Any]:
    """Settings of a mixture of experts, empty for a dense model."""
    if not metadata.get("expert_count"):
        return {}
    width = _shape(file, "blk.0.ffn_gate_exps.weight", 3)[1]
    num_experts = metadata.number("expert_count")
    shared = "blk.0.ffn_gate_shexp.weight"
    return {
        "num_experts": num_experts,
        "num_local_experts": num_experts,
        "num_experts_per_tok": metadata.number("expert_used_count"),
        "intermediate_size": metadata.number("feed_forward_length", width),
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": _shape(file, shared, 2)[0] if shared in file.tensors else 0,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        # where the file is silent, what llama.cpp's graph of the architecture does
        "norm_topk_prob": metadata.get("expert_weights_norm", metadata.architecture == "qwen3moe"),
    }


def _shape(file: GgufFile, name: str, num_dims: int) -> tuple[int, ...]:
    if name not in file.tensors:
        raise FileError(file.path, f"has no tensor {name}")
    shape = file.tensors[name].shape
    if len(shape) != num_dims:
        raise FileError(file.path, f"tensor {name} is {list(shape)}, not of {num_dims} dimensions")
    return shape


def _floats(file: GgufFile, name: str) -> tuple[float, ...]:
    tensor = file.tensors[name]
    if tensor.kind != "F32":
        raise FileError(file.path, f"tensor {name} is {tensor.kind}, not F32")
    with file.path.open("rb") as stream:
        stream.seek(tensor.start)
        return tuple(array("f", stream.read(tensor.end - tensor.start)))
