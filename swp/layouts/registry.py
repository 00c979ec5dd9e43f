"""Every layout by its name; each is imported when it is first asked for."""

from importlib import import_module
from typing import cast

from swp.layouts.base import Layout

_MODULES = {
    name: f"swp.layouts.{name}"
    for name in (*("qwen_mtp", "nextn", "deepseek_v4", "nemotron_h", "mimo", "mimo_v2", "ernie", "longcat", "step"),)
}

# Released with a separate draft model in place of a head.
ASSISTED_TYPES = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")
ASSISTANT_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")


def layout_names() -> tuple[str, ...]:
    """Names of all layouts, in the order in which they are tried."""
    return tuple(_MODULES)


def layout(name: str) -> Layout:
    """The layout of that name, which must be one of `layout_names()`."""
    return cast(Layout, import_module(_MODULES[name]).LAYOUT)
