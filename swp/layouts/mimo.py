"""MiMo-7B: `model.mtp_layers.{i}`, a Qwen2 layer for each depth; the hidden state comes first.

`input_proj([hidden_layernorm(h); token_layernorm(e)])`; embedding and LM head are the trunk's. (vLLM: `mimo_mtp`.)
"""

from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="mimo",
    model_types=("mimo",),
    prefixes=(r"mtp_layers\.(?P<i>\d+)\.",),
    required=(
        r"token_layernorm\.weight",
        r"hidden_layernorm\.weight",
        r"input_proj\.weight",
        r"final_layernorm\.weight",
    ),
    known=(
        r"(token|hidden|final|input|post_attention)_layernorm\.weight",
        r"input_proj\.weight",
        r"self_attn\.(q|k|v|o)_proj\.(weight|bias)",
        r"mlp\.(gate|up|down)_proj\.weight",
    ),
    conventions=Conventions(
        concat_order=ConcatOrder.HIDDEN_FIRST, hidden_tap=HiddenTap.PRE_NORM, chain_tap=ChainTap.PRE_NORM
    ),
)
