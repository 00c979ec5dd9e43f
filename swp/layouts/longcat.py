"""LongCat-Flash: `model.mtp.*`, one dense layer with multi-head latent attention, and an embedding of its own.

`eh_proj([enorm(e); hnorm(h)])`, the layer, `norm`; the LM head is the trunk's. (vLLM: `longcat_flash_mtp`.)
"""

from skulk_core.types import Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="longcat",
    model_types=("longcat_flash", "longcat_flash_ngram"),
    prefixes=(r"mtp\.",),
    required=(
        r"layers\.0\.enorm\.m\.weight",
        r"layers\.0\.hnorm\.m\.weight",
        r"layers\.0\.eh_proj\.weight",
        r"norm\.weight",
    ),
    known=(
        r"(embed_tokens|norm)\.weight",
        r"layers\.\d+\.((enorm|hnorm)\.m|eh_proj)\.weight",
        r"layers\.\d+\.(input|post_attention)_layernorm\.weight",
        r"layers\.\d+\.self_attn\.[\w.]+",
        r"layers\.\d+\.transformer_layer\.mlp\.(gate|up|down)_proj\.weight",
    ),
    embedding=(r"embed_tokens\.weight",),
    promises=("num_nextn_predict_layers", "mtp_num_layers"),
    conventions=Conventions(),
)
