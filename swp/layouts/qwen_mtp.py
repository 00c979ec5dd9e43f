"""Qwen3-Next, Qwen3.5, Qwen3.6, Qwen3.8, dense and mixture of experts; `mtp.*` beside the trunk.

One full-attention decoder layer, fed by `fc([norm(e); norm(h)])`; embedding and LM head are the trunk's. RMSNorm
weights are released centred on zero. (transformers: `qwen3_next`, `qwen3_5`; vLLM: `qwen3_next_mtp`.)
"""

from skulk_core.types import Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="qwen_mtp",
    model_types=("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
    prefixes=(r"mtp\.",),
    required=(
        r"fc\.weight",
        r"pre_fc_norm_embedding\.weight",
        r"pre_fc_norm_hidden\.weight",
        r"norm\.weight",
        r"layers\.0\.self_attn\.q_proj\.weight",
    ),
    known=(
        r"fc\.weight",
        r"(pre_fc_norm_embedding|pre_fc_norm_hidden|norm)\.weight",
        r"layers\.\d+\.(input|post_attention)_layernorm\.weight",
        r"layers\.\d+\.self_attn\.(q|k|v|o)_(proj\.(weight|bias)|norm\.weight)",
        r"layers\.\d+\.mlp\.(shared_expert\.|experts\.\d+\.)?(gate|up|down|gate_up)_proj\.weight",
        r"layers\.\d+\.mlp\.(gate|shared_expert_gate)\.weight",
        r"layers\.\d+\.mlp\.experts\.(gate_up|gate|up|down)_proj",
    ),
    conventions=Conventions(norm_offset=1.0),
    promises=("mtp_num_hidden_layers", "num_nextn_predict_layers"),
)
