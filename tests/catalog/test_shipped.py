"""The catalog that comes with the program: what people can name without looking anything up."""

from collections import Counter
from pathlib import Path

import pytest

from skulk_core.catalog import Catalog, HeadEntry, Subject, resolve
from skulk_core.runtime.resources import catalog_path
from swp.layouts.registry import layout, layout_names

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


def test_heads_are_wired_as_an_extract_would_say(shipped: Catalog) -> None:
    """The published files say nothing themselves; what is extracted anew carries its layout's conventions."""
    for sidecar in shipped.sidecars:
        assert sidecar.layout in layout_names()
        assert sidecar.conventions == layout(sidecar.layout).conventions, sidecar.base
    assert {assistant.conventions for assistant in shipped.assistants} == {None}


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
    subject = Subject(name, (name,), Path("nowhere"), Path("nowhere"))
    found = resolve(subject, shipped.entries).require()
    entry = found.entries[0]
    assert isinstance(entry, HeadEntry)
    assert entry.depth(num_hosts) == depth


def test_nothing_is_pinned_that_nobody_checked(shipped: Catalog) -> None:
    assert {(entry.revision, entry.source_sha) for entry in shipped.entries} == {(None, None)}


def test_licences_are_those_of_the_base_models(shipped: Catalog) -> None:
    licences = Counter((entry.base.partition("/")[0], entry.licence) for entry in shipped.entries)
    assert licences == {
        ("Qwen", "apache-2.0"): 12,
        ("deepseek-ai", "mit"): 3,
        ("nvidia", "other"): 1,
        ("google", "apache-2.0"): 5,
    }


def test_models_of_one_shape_are_those_known_to_be(shipped: Catalog) -> None:
    """A fingerprint that two entries share by mistake would make neither of them known by its configuration."""
    shapes: dict[str, list[str]] = {}
    for entry in shipped.entries:
        if entry.fingerprint is not None:
            shapes.setdefault(str(entry.fingerprint), []).append(entry.base)
    assert sorted(bases for bases in shapes.values() if len(bases) > 1) == [
        ["Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen/Qwen3-Next-80B-A3B-Thinking"],
        ["Qwen/Qwen3.5-27B", "Qwen/Qwen3.6-27B"],
        ["Qwen/Qwen3.5-35B-A3B-Base", "Qwen/Qwen3.6-35B-A3B"],
    ]
    assert len(shapes) == 17
