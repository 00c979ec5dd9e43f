"""MiMo-V2: `model.mtp.layers.{i}`, a dense layer with sliding attention for each depth.

`eh_proj([enorm(e); hnorm(h)])`, the layer, `final_layernorm`; embedding and LM head are the trunk's.
(SGLang: `mimo_v2_flash_nextn`.)
"""

from skulk_core.types import Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="mimo_v2",
    model_types=("mimo_v2_flash", "mimo_v2"),
    prefixes=(r"mtp\.layers\.(?P<i>\d+)\.",),
    required=(
        r"enorm\.weight",
        r"hnorm\.weight",
        r"eh_proj\.weight",
        r"pre_mlp_layernorm\.weight",
        r"final_layernorm\.weight",
    ),
    known=(
        r"(enorm|hnorm|eh_proj)\.weight",
        r"(input|pre_mlp|final)_layernorm\.weight",
        r"self_attn\.(q|k|v|o|qkv)_proj\.(weight|bias)",
        r"self_attn\.attention_sink_bias",
        r"mlp\.(gate|up|down)_proj\.weight",
    ),
    float32=(r"self_attn\.attention_sink_bias",),
    conventions=Conventions(),
)
