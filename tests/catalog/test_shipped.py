"""The catalog that comes with the program: what people can name without looking anything up."""

import pytest

from skulk_core.catalog import Catalog, Found
from skulk_core.runtime.resources import catalog_path
from skulk_core.types import Conventions

PUBLISHED = [
    "deepseek-ai/DeepSeek-V3.2-Exp-Base",
    "deepseek-ai/DeepSeek-V4-Flash",
    "deepseek-ai/DeepSeek-V4-Pro",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16",
    "Qwen/Qwen3.5-0.8B-Base",
    "Qwen/Qwen3.5-2B-Base",
    "Qwen/Qwen3.5-4B-Base",
    "Qwen/Qwen3.5-9B-Base",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3.5-35B-A3B-Base",
    "Qwen/Qwen3.5-122B-A10B",
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.6-27B",
    "Qwen/Qwen3.6-35B-A3B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Thinking",
]
GEMMAS = [f"google/gemma-4-{size}-it" for size in ("E2B", "E4B", "12B", "26B-A4B", "31B")]


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return Catalog.load(catalog_path(), None)


def test_every_published_head_is_listed(shipped: Catalog) -> None:
    assert sorted(entry.base for entry in shipped.sidecars) == sorted(PUBLISHED)
    assert sorted(entry.base for entry in shipped.assistants) == sorted(GEMMAS)


def test_repositories_follow_the_publishers_rules(shipped: Catalog) -> None:
    for sidecar in shipped.sidecars:
        name = sidecar.base.partition("/")[2].lower().replace(".", "-")
        assert sidecar.repo == f"FoxlightAI/{name}-mtp"
    for assistant in shipped.assistants:
        assert assistant.repo == f"{assistant.base}-assistant"


def test_qwen_heads_carry_their_conventions(shipped: Catalog) -> None:
    wired = {entry.base: entry.conventions for entry in shipped.sidecars if entry.layout == "qwen_mtp"}
    assert set(wired) == {base for base in PUBLISHED if base.startswith("Qwen/")}
    assert set(wired.values()) == {Conventions(norm_offset=1.0)}


@pytest.mark.parametrize(
    ("name", "num_hosts", "depth"),
    [
        ("mlx-community/Qwen3.5-9B-4bit", 1, 1),
        ("mlx-community/Qwen3.6-27B-8bit", 2, 1),
        ("mlx-community/Qwen3.5-35B-A3B-4bit", 3, 0),
        ("mlx-community/Qwen3.5-35B-A3B-4bit", 2, None),
        ("mlx-community/gemma-4-E2B-it-8bit", 1, 2),
        ("mlx-community/gemma-4-26B-A4B-it-4bit", 1, 1),
        ("mlx-community/gemma-4-26B-A4B-it-4bit", 2, 0),
    ],
)
def test_measured_depths(shipped: Catalog, name: str, num_hosts: int, depth: int | None) -> None:
    found = shipped.find_assistant([name]) if "gemma" in name else shipped.find_sidecar([name])
    assert isinstance(found, Found)
    assert found.entry.depth(num_hosts) == depth
