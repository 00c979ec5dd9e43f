"""DeepSeek V3, V3.1, V3.2, GLM-4.5 to 5 and others: extra decoder layers behind the trunk's, one for each depth.

`eh_proj([enorm(e); hnorm(h)])`, an ordinary decoder layer, `shared_head.norm`, LM head. Most releases carry copies of
the trunk's embedding and LM head; GLM-4.7-Flash carries its own. (transformers: `MtpModel`; vLLM: `deepseek_mtp`.)
"""

from skulk_core.types import Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="nextn",
    model_types=("deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2", "mellum"),
    prefixes=(r"layers\.(?P<i>\d+)\.",),
    after_trunk=True,
    required=(r"enorm\.weight", r"hnorm\.weight", r"eh_proj\.weight", r"shared_head\.norm\.weight"),
    known=(
        r"(enorm|hnorm|eh_proj|embed_tokens)\.weight",
        r"shared_head\.(norm|head)\.weight",
        r"(input|post_attention|post_self_attn|post_mlp)_layernorm\.weight",
        r"self_attn\.[\w.]+",
        r"mlp\.(gate|up|down)_proj\.weight",
        r"mlp\.gate\.(weight|e_score_correction_bias)",
        r"mlp\.(shared_experts|experts\.\d+)\.(gate|up|down)_proj\.weight",
        r"mlp\.experts\.(gate_up|gate|up|down)_proj",
    ),
    embedding=(r"embed_tokens\.weight",),
    lm_head=(r"shared_head\.head\.weight",),
    conventions=Conventions(),
)
