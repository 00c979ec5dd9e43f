"""Imports point one way, so that a part can be changed without reading what stands on it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# a part may import those of the levels above it
LEVELS = (
    ("types", "errors"),
    ("formats", "runtime"),
    ("numerics",),
    ("hub", "catalog", "sampling", "cache"),
    ("memory",),
    ("models",),
    ("heads",),
    ("decode",),
    ("cluster",),
    ("bench",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# parts of one level that may import one another, and no others
WITHIN = {("errors", "types"), ("hub", "catalog"), ("catalog", "hub")}
PUBLISHER = {"types", "errors", "formats", "runtime", "hub", "catalog"}


def imported(file: Path) -> Iterator[str]:
    """Dotted names of everything of ours that `file` imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_chain_that_contributors_read_is_this_one() -> None:
    said = " ← ".join(", ".join(parts) for parts in LEVELS)
    assert f"    {said}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def arrows() -> list[tuple[Path, str]]:
    files = [file for top in ("cli", "skulk_core", "swp") for file in sorted((ROOT / top).rglob("*.py"))]
    return [
        (file, name) for file in files for name in imported(file) if name.split(".")[0] in ("cli", "skulk_core", "swp")
    ]


def allowed(importer: tuple[str, ...], name: str) -> bool:
    top, _, rest = name.partition(".")
    part = rest.partition(".")[0]
    if importer[0] == "cli":
        return True
    if top != "skulk_core":
        return top == importer[0] == "swp"
    if importer[0] == "swp":
        return part in PUBLISHER or not part
    own = importer[1].removesuffix(".py")
    if not part or own == "__init__":
        return True
    if part not in LEVEL:
        return False
    return part == own or LEVEL[part] < LEVEL[own] or (own, part) in WITHIN


def test_no_import_points_back() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file, name in arrows()
        if not allowed(file.relative_to(ROOT).parts, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("skulk_core/cache/base.py", "skulk_core.models.base"),
        ("skulk_core/sampling/greedy.py", "skulk_core.cache.base"),
        ("skulk_core/decode/decoder.py", "skulk_core.cluster.ring"),
        ("skulk_core/models/base.py", "cli.render"),
        ("swp/extract.py", "skulk_core.models.base"),
        ("skulk_core/types.py", "skulk_core.formats.sidecar"),
    ],
)
def test_the_rule_refuses(file: str, name: str) -> None:
    """The check itself can fail."""
    assert not allowed(tuple(file.split("/")), name)


def test_the_repository_stands_alone() -> None:
    """A stranger's clone has nothing beside it."""
    texts = [f for p in ("*.py", "*.md", "*.toml", "*.yaml") for f in ROOT.rglob(p) if ".venv" not in f.parts]
    beside = "".join(("..", "/", "shared"))
    assert [str(file) for file in texts if beside in file.read_text(encoding="utf-8")] == []
