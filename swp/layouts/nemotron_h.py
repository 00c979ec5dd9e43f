"""NVIDIA Nemotron-3-Super: `mtp.layers.0` is attention, `mtp.layers.1` experts; together they are one depth.

`eh_proj([enorm(e); hnorm(h)])` stands in the first layer, `final_layernorm` in the last; embedding and LM head are the
trunk's. (vLLM: `nemotron_h_mtp`.)
"""

from skulk_core.types import Conventions
from swp.layouts.base import Layout

LAYOUT = Layout(
    name="nemotron_h",
    model_types=("nemotron_h", "nemotron_h_puzzle"),
    prefixes=(r"mtp\.",),
    required=(
        r"layers\.0\.enorm\.weight",
        r"layers\.0\.hnorm\.weight",
        r"layers\.0\.eh_proj\.weight",
        r"layers\.0\.mixer\.q_proj\.weight",
        r"layers\.\d+\.final_layernorm\.weight",
    ),
    known=(
        r"layers\.\d+\.(enorm|hnorm|eh_proj|norm|final_layernorm)\.weight",
        r"layers\.\d+\.mixer\.(q|k|v|o)_proj\.(weight|bias)",
        r"layers\.\d+\.mixer\.gate\.(weight|e_score_correction_bias)",
        r"layers\.\d+\.mixer\.(shared_experts|experts\.\d+)\.(up|down)_proj\.weight",
        r"layers\.\d+\.mixer\.fc\d_latent_proj\.weight",
    ),
    conventions=Conventions(),
)
