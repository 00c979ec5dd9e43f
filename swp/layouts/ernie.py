"""ERNIE 4.5: `model.mtp_{emb_norm,hidden_norm,linear_proj,block}.{i}`, a dense layer without a norm behind it.

`mtp_linear_proj([mtp_emb_norm(e); mtp_hidden_norm(h)])`; embedding and LM head are the trunk's. (vLLM: `ernie_mtp`.)
"""

from skulk_core.types import ChainTap, Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="ernie",
    model_types=("ernie4_5", "ernie4_5_moe"),
    prefixes=(r"(?P<kept>mtp_(emb_norm|hidden_norm|linear_proj|block)\.)(?P<i>\d+)\.",),
    required=(r"mtp_emb_norm\.weight", r"mtp_hidden_norm\.weight", r"mtp_linear_proj\.weight", r"mtp_block\..*"),
    known=(
        r"mtp_(emb_norm|hidden_norm|linear_proj)\.weight",
        r"mtp_linear_proj\.bias",
        r"mtp_block\.(input|post_attention)_layernorm\.weight",
        r"mtp_block\.self_attn\.(q|k|v|o)_proj\.(weight|bias)",
        r"mtp_block\.mlp\.(gate|up|down)_proj\.(weight|bias)",
    ),
    conventions=Conventions(chain_tap=ChainTap.PRE_NORM),
)
