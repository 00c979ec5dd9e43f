"""Step 3.5: extra decoder layers behind the trunk's, each with a norm and an LM head of its own.

`eh_proj([enorm(e); hnorm(h)])`, a layer, `transformer.shared_head.norm` and `.output`. RMSNorm weights are released
centred on zero. (vLLM: `step3p5_mtp`; mlx-lm: `step3p5`.)
"""

from skulk_core.types import ChainTap, Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="step",
    model_types=("step3p5", "step3p7"),
    prefixes=(r"layers\.(?P<i>\d+)\.",),
    after_trunk=True,
    required=(
        r"enorm\.weight",
        r"hnorm\.weight",
        r"eh_proj\.weight",
        r"(transformer\.)?shared_head\.norm\.weight",
        r"(transformer\.)?shared_head\.output\.weight",
    ),
    known=(
        r"(enorm|hnorm|eh_proj)\.weight",
        r"(transformer\.)?shared_head\.(norm|output)\.weight",
        r"(transformer\.)?(embed_tokens|tok_embeddings)\.weight",
        r"(transformer\.)?(input|post_attention)_layernorm\.weight",
        r"(transformer\.)?self_attn\.[\w.]+",
        r"(transformer\.)?(mlp|share_expert)\.(gate|up|down)_proj\.weight",
        r"(transformer\.)?moe\.(gate|gate_proj|up_proj|down_proj)\.weight",
        r"(transformer\.)?moe\.router_bias",
    ),
    embedding=(r"(transformer\.)?(embed_tokens|tok_embeddings)\.weight",),
    lm_head=(r"(transformer\.)?shared_head\.output\.weight",),
    conventions=Conventions(norm_offset=1.0, chain_tap=ChainTap.PRE_NORM),
)
