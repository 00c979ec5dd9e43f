"""Small checkpoints in every upstream layout, and what must come out of each. Knows nothing of the code under test."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cli_checkpoints import Tensor, write_file

H, V, N = 8, 24, 2
CARD = "---\nlicense: apache-2.0\n---\n# a model\n"
LICENCE = b"Apache License\r\nVersion 2.0 \xc2\xa9\n"


@dataclass
class Built:
    """A checkpoint: its configuration and tensors, and what its sidecar must hold.

    `head` are tensors that ship as they are, `made` those that are converted, by name with what they must become;
    `scales` are part of the head and must not ship.
    """

    layout: str
    config: dict[str, Any]
    trunk: dict[str, Tensor]
    head: dict[str, Tensor]
    num_heads: int = 1
    shared: tuple[str, ...] = ()
    made: dict[str, Tensor] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)
    stored: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything that upstream's files hold."""
        return {**self.trunk, **self.head, **self.stored, **self.scales}

    @property
    def shipped(self) -> dict[str, Tensor]:
        """Everything that the sidecar must hold, and nothing else."""
        return {name: tensor for name, tensor in {**self.head, **self.made}.items() if name not in self.shared}


def write(folder: Path, built: Built, num_shards: int = 1, card: str = CARD) -> Path:
    """Write the checkpoint: one file, or shards with an index, neighbouring tensors in different ones."""
    return write_tensors(folder, built.config, built.tensors, num_shards, card)


def write_tensors(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], num_shards: int = 1, card: str = CARD
) -> Path:
    """Write a checkpoint of any tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(card)
    (folder / "LICENSE").write_bytes(LICENCE)
    names = sorted(tensors)
    if num_shards == 1:
        write_file(folder / "model.safetensors", {name: tensors[name] for name in names})
        return folder
    weight_map = {}
    for number in range(num_shards):
        file = f"model-{number + 1:05}-of-{num_shards:05}.safetensors"
        part = {name: tensors[name] for name in names[number::num_shards]}
        write_file(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


class Maker:
    """Random tensors, the same for the same seed. BF16 ones are random bits, not-a-numbers included."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def bits(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> Tensor:
        return Tensor(dtype, shape, self._rng.bytes(int(np.prod(shape)) * nbytes))

    def bf16(self, *shape: int) -> Tensor:
        return self.bits("BF16", shape, 2)

    def f32(self, *shape: int) -> Tensor:
        return Tensor("F32", shape, self._rng.standard_normal(shape).astype("<f4").tobytes())

    def all_bf16(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {name: self.bf16(*shape) for name, shape in shapes.items()}

    def fp8(self, *shape: int) -> tuple[Tensor, torch.Tensor]:
        """A tensor of random E4M3 codes, and torch's values of them."""
        tensor = self.bits("F8_E4M3", shape, 1)
        return tensor, torch.frombuffer(bytearray(tensor.data), dtype=torch.float8_e4m3fn).float().reshape(shape)

    def e8m0(self, *shape: int) -> tuple[Tensor, torch.Tensor]:
        """Random powers of two around one."""
        codes = self._rng.integers(118, 136, shape).astype(np.uint8)
        return Tensor("F8_E8M0", shape, codes.tobytes()), torch.from_numpy(
            np.ldexp(1.0, codes.astype(int) - 127)
        ).float()

    def scale(self, *shape: int) -> tuple[Tensor, torch.Tensor]:
        values = self._rng.uniform(0.001, 0.02, shape).astype("<f4")
        return Tensor("F32", shape, values.tobytes()), torch.from_numpy(values)


def bf16_of(values: torch.Tensor) -> Tensor:
    """What torch rounds float32 values to."""
    return Tensor("BF16", tuple(values.shape), values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes())


def attention(prefix: str, names: Iterable[str] = "qkvo") -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}_proj.weight": (H, H) for name in names}


def mlp(prefix: str, names: Iterable[str] = ("gate", "up", "down")) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}_proj.weight": (H, 2 * H) if name == "down" else (2 * H, H) for name in names}


def norms(prefix: str, *names: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}.weight": (H,) for name in names}


def config(model_type: str, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": H, "vocab_size": V, "num_hidden_layers": N, "rope_theta": 10000.0}
    return {"model_type": model_type, "architectures": [f"{model_type}ForCausalLM"], **sizes, **more}


def trunk(make: Maker, prefix: str = "model.", layers: int = N, lm_head: str = "lm_head.weight") -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (V, H), f"{prefix}norm.weight": (H,)}
    for layer in range(layers):
        shapes |= attention(f"{prefix}layers.{layer}.self_attn.") | mlp(f"{prefix}layers.{layer}.mlp.")
    if lm_head:
        shapes[lm_head] = (V, H)
    return make.all_bf16(shapes)


def qwen(experts: str = "", *, nested: bool = False, model_type: str = "qwen3_5") -> Built:
    make = Maker(1)
    shapes = {"mtp.fc.weight": (H, 2 * H), **norms("mtp.", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    layer = "mtp.layers.0."
    shapes |= norms(layer, "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    shapes |= attention(f"{layer}self_attn.")
    if not experts:
        shapes |= mlp(f"{layer}mlp.")
    else:
        shapes |= {f"{layer}mlp.gate.weight": (3, H), f"{layer}mlp.shared_expert_gate.weight": (1, H)}
        shapes |= mlp(f"{layer}mlp.shared_expert.")
    if experts == "fused":
        shapes |= {f"{layer}mlp.experts.gate_up_proj": (3, 4, H), f"{layer}mlp.experts.down_proj": (3, H, 2)}
    if experts == "split":
        for expert in range(3):
            shapes |= mlp(f"{layer}mlp.experts.{expert}.")
    text = config(model_type, mtp_num_hidden_layers=1)
    whole = {"model_type": model_type, "architectures": ["Multimodal"], "text_config": text} if nested else text
    prefix = "model.language_model." if nested else "model."
    body = trunk(make, prefix) | ({"model.visual.patch.weight": make.bf16(4, 4)} if nested else {})
    return Built("qwen_mtp", whole, body, make.all_bf16(shapes))


def _nextn_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = {f"{prefix}eh_proj.weight": (H, 2 * H), **norms(prefix, "enorm", "hnorm", "shared_head.norm")}
    shapes |= norms(prefix, "input_layernorm", "post_attention_layernorm", "self_attn.kv_a_layernorm")
    shapes |= attention(f"{prefix}self_attn.", ("q_a", "kv_b", "o")) | {f"{prefix}mlp.gate.weight": (4, H)}
    for expert in range(2):
        shapes |= mlp(f"{prefix}mlp.experts.{expert}.")
    return shapes | mlp(f"{prefix}mlp.shared_experts.")


def deepseek(
    num_heads: int = 1, copies: str = "equal", *, tied: bool = False, model_type: str = "deepseek_v3"
) -> Built:
    """`copies`: the head's embedding and LM head are `equal` to the trunk's, `own`, or `none`."""
    make = Maker(2)
    body = trunk(make, lm_head="" if tied else "lm_head.weight")
    head: dict[str, Tensor] = {}
    shared: list[str] = []
    for depth in range(num_heads):
        prefix = f"model.layers.{N + depth}."
        head |= make.all_bf16(_nextn_shapes(prefix))
        head[f"{prefix}mlp.gate.e_score_correction_bias"] = make.f32(4)
        if copies == "equal":
            head[f"{prefix}embed_tokens.weight"] = body["model.embed_tokens.weight"]
            head[f"{prefix}shared_head.head.weight"] = body["model.embed_tokens.weight" if tied else "lm_head.weight"]
            shared += [f"{prefix}embed_tokens.weight", f"{prefix}shared_head.head.weight"]
        if copies == "own":
            head |= make.all_bf16({f"{prefix}embed_tokens.weight": (V, H), f"{prefix}shared_head.head.weight": (V, H)})
    settings = config(model_type, num_nextn_predict_layers=num_heads, tie_word_embeddings=tied)
    return Built("nextn", settings, body, head, num_heads, tuple(shared))


def deepseek_fp8(e8m0: bool = False) -> Built:
    """Blocks of 4 by 6, so that 8 and 16 columns leave edge blocks of 2 and 4."""
    make, built = Maker(3), deepseek()
    block = (4, 6)
    for name in [name for name, tensor in built.head.items() if "_proj" in name and "eh_proj" not in name]:
        rows, columns = built.head.pop(name).shape
        built.stored[name], values = make.fp8(rows, columns)
        grid = (-(-rows // block[0]), -(-columns // block[1]))
        built.scales[f"{name}_scale_inv"], scale = make.e8m0(*grid) if e8m0 else make.scale(*grid)
        spread = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
        built.made[name] = bf16_of(values * spread)
    built.config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": list(block)}
    return built


def deepseek_v4(expert_dtype: str = "fp4") -> Built:
    """Experts with 64 inputs, so that a row has two groups of 32."""
    make = Maker(4)
    body = make.all_bf16({"embed.weight": (V, H), "head.weight": (V, H), "norm.weight": (H,)})
    body |= make.all_bf16({f"layers.{layer}.attn.wq_a.weight": (H, H) for layer in range(N)})
    shapes = norms("mtp.0.", "enorm", "hnorm", "norm", "attn_norm", "ffn_norm", "attn.q_norm")
    head = make.all_bf16({**shapes, "mtp.0.ffn.gate.weight": (2, H)})
    head |= {"mtp.0.ffn.gate.bias": make.f32(2), "mtp.0.attn.attn_sink": make.f32(2)}
    for part in ("head", "attn", "ffn"):
        head |= {
            f"mtp.0.hc_{part}_{name}": make.f32(*s) for name, s in (("fn", (2, H)), ("base", (2,)), ("scale", (1,)))
        }
    head["mtp.0.emb.tok_emb.weight"], head["mtp.0.head.weight"] = body["embed.weight"], body["head.weight"]
    settings = config("deepseek_v4", num_nextn_predict_layers=1, expert_dtype=expert_dtype)
    settings["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [4, 4], "scale_fmt": "ue8m0"}
    built = Built("deepseek_v4", settings, body, head, 1, ("mtp.0.emb.tok_emb.weight", "mtp.0.head.weight"))
    for name in ("e_proj", "h_proj", "attn.wq_a", "ffn.shared_experts.w1"):
        _v4_fp8(built, make, f"mtp.0.{name}", (H, H))
    for expert in range(2):
        for part in ("w1", "w2", "w3"):
            name, shape = f"mtp.0.ffn.experts.{expert}.{part}", (4, 64)
            if expert_dtype == "fp4":
                _v4_fp4(built, make, name, shape)
            else:
                _v4_fp8(built, make, name, shape)
    return built


def _v4_fp8(built: Built, make: Maker, name: str, shape: tuple[int, int]) -> None:
    built.stored[f"{name}.weight"], values = make.fp8(*shape)
    built.scales[f"{name}.scale"], scale = make.e8m0(shape[0] // 4, shape[1] // 4)
    built.made[f"{name}.weight"] = bf16_of(values * scale.repeat_interleave(4, 0).repeat_interleave(4, 1))


def _v4_fp4(built: Built, make: Maker, name: str, shape: tuple[int, int]) -> None:
    rows, columns = shape
    packed = make.bits("I8", (rows, columns // 2), 1)
    built.stored[f"{name}.weight"] = packed
    built.scales[f"{name}.scale"], scale = make.e8m0(rows, columns // 32)
    built.made[f"{name}.weight"] = bf16_of(fp4_values(packed.data, shape) * scale.repeat_interleave(32, 1))


# OCP Microscaling Formats 1.0, table of E2M1: sign, two bits of exponent, one of mantissa
FP4 = {
    **{0b0000: 0.0, 0b0001: 0.5, 0b0010: 1.0, 0b0011: 1.5, 0b0100: 2.0, 0b0101: 3.0, 0b0110: 4.0, 0b0111: 6.0},
    **{0b1000: -0.0, 0b1001: -0.5, 0b1010: -1.0, 0b1011: -1.5, 0b1100: -2.0, 0b1101: -3.0, 0b1110: -4.0, 0b1111: -6.0},
}


def fp4_values(packed: bytes, shape: tuple[int, int]) -> torch.Tensor:
    """Unpacked by the table, one value after the other."""
    flat = [FP4[code] for byte in packed for code in (byte & 0b1111, byte >> 4)]
    return torch.tensor(flat).reshape(shape)


def nemotron() -> Built:
    make = Maker(5)
    first, second = "mtp.layers.0.", "mtp.layers.1."
    shapes = {f"{first}eh_proj.weight": (H, 2 * H), **norms(first, "enorm", "hnorm", "norm")}
    shapes |= attention(f"{first}mixer.") | norms(second, "norm", "final_layernorm")
    shapes |= {f"{second}mixer.gate.weight": (2, H), f"{second}mixer.fc1_latent_proj.weight": (4, H)}
    for expert in range(2):
        shapes |= mlp(f"{second}mixer.experts.{expert}.", ("up", "down"))
    head = make.all_bf16(shapes | mlp(f"{second}mixer.shared_experts.", ("up", "down")))
    head[f"{second}mixer.gate.e_score_correction_bias"] = make.f32(2)
    body = make.all_bf16({"backbone.embeddings.weight": (V, H), "lm_head.weight": (V, H)})
    settings = config("nemotron_h", num_nextn_predict_layers=1)
    del settings["rope_theta"]
    return Built("nemotron_h", settings, body, head)


def mimo() -> Built:
    make, prefix = Maker(6), "model.mtp_layers.0."
    shapes = {f"{prefix}input_proj.weight": (H, 2 * H)}
    kinds = ("token", "hidden", "final", "input", "post_attention")
    shapes |= norms(prefix, *(f"{kind}_layernorm" for kind in kinds))
    shapes |= attention(f"{prefix}self_attn.") | mlp(f"{prefix}mlp.") | {f"{prefix}self_attn.q_proj.bias": (H,)}
    return Built("mimo", config("mimo", num_nextn_predict_layers=1), trunk(make), make.all_bf16(shapes))


def mimo_v2() -> Built:
    make = Maker(7)
    head: dict[str, Tensor] = {}
    for depth in range(3):
        prefix = f"model.mtp.layers.{depth}."
        shapes = {f"{prefix}eh_proj.weight": (H, 2 * H), **norms(prefix, "enorm", "hnorm")}
        shapes |= norms(prefix, "input_layernorm", "pre_mlp_layernorm", "final_layernorm")
        head |= make.all_bf16(shapes | attention(f"{prefix}self_attn.") | mlp(f"{prefix}mlp."))
        head[f"{prefix}self_attn.attention_sink_bias"] = make.f32(2)
    return Built("mimo_v2", config("mimo_v2_flash"), trunk(make), head, 3)


def ernie() -> Built:
    make = Maker(8)
    shapes = {"model.mtp_linear_proj.0.weight": (H, 2 * H)}
    shapes |= {"model.mtp_emb_norm.0.weight": (H,), "model.mtp_hidden_norm.0.weight": (H,)}
    block = "model.mtp_block.0."
    shapes |= norms(block, "input_layernorm", "post_attention_layernorm") | attention(f"{block}self_attn.")
    settings = config("ernie4_5", num_nextn_predict_layers=1)
    return Built("ernie", settings, trunk(make), make.all_bf16(shapes | mlp(f"{block}mlp.")))


def longcat() -> Built:
    make, layer = Maker(9), "model.mtp.layers.0."
    shapes = {f"{layer}eh_proj.weight": (H, 2 * H), "model.mtp.norm.weight": (H,)}
    shapes |= norms(layer, "enorm.m", "hnorm.m", "input_layernorm", "post_attention_layernorm")
    shapes |= attention(f"{layer}self_attn.", ("q_a", "kv_b", "o")) | mlp(f"{layer}transformer_layer.mlp.")
    body = trunk(make)
    head = make.all_bf16(shapes) | {"model.mtp.embed_tokens.weight": body["model.embed_tokens.weight"]}
    settings = config("longcat_flash")
    settings["num_layers"] = settings.pop("num_hidden_layers")
    return Built("longcat", settings, body, head, 1, ("model.mtp.embed_tokens.weight",))


def step() -> Built:
    make = Maker(10)
    head: dict[str, Tensor] = {}
    for depth in range(3):
        prefix = f"model.layers.{N + depth}."
        shapes = {f"{prefix}eh_proj.weight": (H, 2 * H), **norms(prefix, "enorm", "hnorm")}
        shapes |= norms(prefix, "input_layernorm", "post_attention_layernorm")
        shapes |= attention(f"{prefix}self_attn.") | mlp(f"{prefix}mlp.")
        shapes |= norms(f"{prefix}transformer.", "shared_head.norm")
        head |= make.all_bf16(shapes | {f"{prefix}transformer.shared_head.output.weight": (V, H)})
    return Built("step", config("step3p5", num_nextn_predict_layers=3), trunk(make), head, 3)


LAYOUTS: dict[str, Callable[[], Built]] = {
    "Qwen3-Next, one tensor per expert": lambda: qwen("split", model_type="qwen3_next"),
    "Qwen3.5 dense": qwen,
    "Qwen3.5 dense in a multimodal checkpoint": lambda: qwen(nested=True),
    "Qwen3.5 fused experts": lambda: qwen("fused", model_type="qwen3_5_moe"),
    "Qwen3.5 one tensor per expert, nested": lambda: qwen("split", nested=True, model_type="qwen3_5_moe"),
    "DeepSeek V3": deepseek,
    "DeepSeek V3, three depths": lambda: deepseek(3),
    "DeepSeek V3, tied copies": lambda: deepseek(tied=True),
    "DeepSeek V3.2 in FP8 blocks": deepseek_fp8,
    "DeepSeek V3.2 in FP8 blocks with E8M0 scales": lambda: deepseek_fp8(e8m0=True),
    "GLM-4.7-Flash, an embedding of its own": lambda: deepseek(1, "own", model_type="glm4_moe_lite"),
    "GLM-4.5 without copies": lambda: deepseek(1, "none", model_type="glm4_moe"),
    "DeepSeek V4 with packed FP4 experts": deepseek_v4,
    "DeepSeek V4 base in FP8": lambda: deepseek_v4("fp8"),
    "Nemotron-3": nemotron,
    "MiMo-7B": mimo,
    "MiMo-V2": mimo_v2,
    "ERNIE 4.5": ernie,
    "LongCat": longcat,
    "Step 3.5": step,
}
