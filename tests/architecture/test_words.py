"""Words that this project once coined, and that no reader could know, stay out of code and documents.

The first list is of words that had a meaning of their own here; they occur in no name, docstring, comment or
document. The second is of everyday words that say nothing as the whole name of a module or a class.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COINED = ("holdings", "office", "in_office", "offering", "rota", "witness", "stretch", "allowance", "flood")
VAGUE = {
    *("look", "rows", "parts", "terms", "turns", "hints", "tail", "passes", "visible", "harmless"),
    *("settle", "settling", "settled"),
}

_COINED = re.compile(rf"(?<![a-z])(?:{'|'.join(COINED)})(?:s|es|ed|ing)?(?![a-z])")
_CLASS = re.compile(r"^ *class (\w+)", re.MULTILINE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

SOURCES = sorted(
    path
    for folder in ("gateway", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__) and "packaged_policies" not in path.parts
)
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def coined_in(text: str) -> set[str]:
    """The coined words in a text or a name."""
    return set(_COINED.findall(_HUMP.sub(" ", text).lower()))


@cache
def _sources() -> dict[str, tuple[list[tuple[int, str]], list[str]]]:
    """Of each source: coined words in names, comments and docstrings, with their lines; and its classes.

    Messages and names in Redis are data, and left out.
    """
    return {_name(path): _read(path.read_text()) for path in SOURCES}


def _read(source: str) -> tuple[list[tuple[int, str]], list[str]]:
    classes = _CLASS.findall(source)
    if not coined_in(source):  # most have none: parsing all of them takes ten seconds
        return [], classes
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    words = [(node.body[0].lineno, docstring) for node in nodes if (docstring := ast.get_docstring(node))]
    kinds = {tokenize.NAME, tokenize.COMMENT}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    words += [(token.start[0], token.string) for token in tokens if token.type in kinds]
    found = [(line, text) for line, text in words if coined_in(text)]
    return found, classes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("an office", {"office"}),
        ("_open_office", {"office"}),
        ("OpenOffice", {"office"}),
        ("floods of refusals", {"floods"}),
        ("WITNESSES", {"witnesses"}),
        ("rotate, officer, stretcher", set()),
        ("official", set()),
    ],
)
def test_a_coined_word_is_found_in_every_form(text, words):
    assert coined_in(text) == words


def test_no_source_uses_a_coined_word():
    assert not {name: words for name, (words, _) in _sources().items() if words}


def test_no_file_is_called_by_a_coined_word():
    assert not [_name(path) for path in SOURCES if coined_in(_name(path))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_no_document_uses_a_coined_word(path):
    lines = path.read_text().splitlines()
    assert not [(number, line) for number, line in enumerate(lines, 1) if coined_in(line)]


def test_no_module_or_class_is_called_by_a_word_that_could_name_anything():
    modules = {_name(path) for path in SOURCES if path.stem in VAGUE}
    classes = {
        (name, one)
        for name, (_, classes) in _sources().items()
        for one in classes
        if one.lower().strip("_") in VAGUE
    }
    assert not modules
    assert not classes
