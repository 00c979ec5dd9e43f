"""DeepSeek V4 Flash and Pro of April 2026: one block over the trunk's unmerged residual streams, for each depth.

`h_proj(hnorm(h)) + e_proj(enorm(e))`, a block, then the streams are merged by `hc_head_*`, normed and read by `head`.
A later V4-Flash release has another drafter, DSpark, under the same prefix: `main_proj` fuses several trunk layers, and
a Markov head corrects the logits. It is refused. (DeepSeek's own inference code; vLLM: `deepseek_v4_mtp`.)
"""

from skulk_core.types import ChainTap, Conventions, HiddenTap
from swp.layouts.base import Layout

_DSPARK = "DSpark, the drafter of later V4-Flash releases"

LAYOUT = Layout(
    name="deepseek_v4",
    model_types=("deepseek_v4",),
    prefixes=(r"mtp\.(?P<i>\d+)\.",),
    required=(
        r"enorm\.weight",
        r"hnorm\.weight",
        r"e_proj\.weight",
        r"h_proj\.weight",
        r"norm\.weight",
        r"hc_head_fn",
        r"hc_head_base",
        r"hc_head_scale",
    ),
    known=(
        r"(enorm|hnorm|e_proj|h_proj|norm|head|attn_norm|ffn_norm)\.weight",
        r"emb\.tok_emb\.weight",
        r"hc_(head|attn|ffn)_(fn|base|scale)",
        r"attn\.[\w.]+",
        r"ffn\.gate\.(weight|bias|tid2eid)",
        r"ffn\.(shared_experts|experts\.\d+)\.w[123]\.weight",
    ),
    foreign={
        r"main_(proj|norm)\..*": _DSPARK,
        r"markov_head\..*": _DSPARK,
        r"confidence_head\..*": _DSPARK,
    },
    embedding=(r"emb\.tok_emb\.weight",),
    lm_head=(r"head\.weight",),
    trunk_embedding="embed.weight",
    trunk_lm_head="head.weight",
    float32=(r"ffn\.gate\.bias", r"attn\.attn_sink", r"attn\.(.*\.)?ape"),
    integers=(r"ffn\.gate\.tid2eid",),
    conventions=Conventions(hidden_tap=HiddenTap.PRE_NORM, chain_tap=ChainTap.PRE_NORM),
)
