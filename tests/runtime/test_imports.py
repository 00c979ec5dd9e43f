"""MLX may be imported only after its BLAS is chosen, and `skulk --help` should not pay for it.

So a module that is imported before the program knows what to do must not reach MLX while it is imported.
"""

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPUTING = tuple(
    f"skulk_core.{name}" for name in ("numerics", "models", "heads", "cache", "sampling", "decode", "cluster", "bench")
)
EXEMPT = (*COMPUTING, "skulk_core.runtime.device")
MLX = ("mlx", "mlx_lm")

RunPython = Callable[..., subprocess.CompletedProcess[str]]


def modules() -> dict[str, Path]:
    found = {}
    for package in ("cli", "skulk_core", "swp"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def executed_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run while a module is imported: not those of functions, nor those for type checkers only."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield statement
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from executed_on_import(statement.orelse)
            continue
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.stmt):
                yield from executed_on_import([child])
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                yield from executed_on_import(child.body)


def imports(name: str, path: Path) -> set[str]:
    """Every module that importing this one imports directly, the packages above each included."""
    named: set[str] = set()
    for statement in executed_on_import(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Import):
            named |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            above = package[: len(package) - statement.level + 1] if statement.level else []
            base = ".".join([*above, *([statement.module] if statement.module else [])])
            named |= {base, *(f"{base}.{alias.name}" for alias in statement.names)}
    return {".".join(full.split(".")[:depth]) for full in named for depth in range(1, full.count(".") + 2)}


def reaches_mlx(name: str, graph: dict[str, set[str]], seen: set[str]) -> list[str]:
    """The chain of imports from `name` to MLX; empty if there is none."""
    if name in MLX:
        return [name]
    seen.add(name)
    for imported in sorted(graph.get(name, set()) - seen):
        chain = reaches_mlx(imported, graph, seen)
        if chain:
            return [name, *chain]
    return []


def test_only_what_computes_imports_mlx() -> None:
    graph = {name: imports(name, path) for name, path in modules().items()}
    chains = [
        " → ".join(chain)
        for name in graph
        if not any(name == exempt or name.startswith(f"{exempt}.") for exempt in EXEMPT)
        if (chain := reaches_mlx(name, graph, set()))
    ]
    assert chains == []


def test_the_walk_finds_an_import_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    for text in (
        "import mlx.core as mx",
        "try:\n    pass\nexcept OSError:\n    from mlx import nn",
        "class A:\n    import mlx",
    ):
        path.write_text(text)
        assert reaches_mlx("a.b", {"a.b": imports("a.b", path), "a": set()}, set()) == ["a.b", "mlx"]
    for text in ("def f():\n    import mlx", "if TYPE_CHECKING:\n    import mlx.core"):
        path.write_text(text)
        assert reaches_mlx("a.b", {"a.b": imports("a.b", path)}, set()) == []
    path.write_text("from . import c")
    assert reaches_mlx("a.b", {"a.b": imports("a.b", path), "a.c": {"mlx"}}, set()) == ["a.b", "a.c", "mlx"]


def test_the_command_line_starts_without_mlx(run_python: RunPython) -> None:
    code = "import sys\nimport cli.doctor, skulk_core.runtime.blas\nprint('mlx.core' in sys.modules)"
    assert run_python(code).stdout == "False\n"
