"""The model inside a repository name: what is left without owner, quantisation and finetune suffixes."""

import re

# One suffix, from its separator on: how the weights are stored, or a finetune that keeps the architecture.
_SUFFIX = re.compile(
    r"""[-_.](
        \d+(\.\d+)?-?bits?            # 4bit, 8-bit, 3.5bits
      | mlx | gguf | dwq | awq | gptq | autoround | hqq | bnb | quantized | quant | qat | unsloth | dynamic
      | exl[23] | i1 | ud | \d+(\.\d+)?bpw
      | mxfp[48] | nvfp4(a16)? | fp(4|8|16|32) | bf16 | f16 | f32 | int[48] | w\d+a\d+ | q\d(_\w+)?
      | gs?(32|64|128)                # group size
      | abliterated | heretic | uncensored | derestricted
      | v\d+                          # the finetuner's own version, as in -abliterated-v2
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
_VERSION = re.compile(r"[-_.]v\d+$", re.IGNORECASE)
_BASE = re.compile(r"[-_.](base|pt)$", re.IGNORECASE)


def core_name(name: str) -> str:
    """`name` in lower case, without its owner and without every suffix that says how weights are stored or tuned.

    `mlx-community/Qwen3.5-9B-MLX-4bit` → `qwen3.5-9b`. A trailing version falls only after such a suffix, so that
    `DeepSeek-V4` keeps its own.
    """
    rest = name.rstrip("/").rpartition("/")[2]
    kept = rest
    while (suffix := _SUFFIX.search(rest)) and suffix.start() > 0:
        rest = rest[: suffix.start()]
        if not _VERSION.fullmatch(suffix.group()):
            kept = rest
    return kept.lower()


def without_base(core: str) -> str:
    """A core name without the ending that marks a pretrained model: its finetunes are released without it."""
    return _BASE.sub("", core)
