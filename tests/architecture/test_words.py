"""Words that this project once coined, and that no reader could know, stay out of code and documents.

The first list is of words that had a meaning of their own here; they occur in no name, docstring, comment or
document. The second is of everyday words that say nothing as the whole name of a module or a class.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COINED = ("holdings", "office", "in_office", "offering", "rota", "witness", "stretch", "allowance", "flood")
VAGUE = {
    *("look", "rows", "parts", "terms", "turns", "hints", "tail", "passes", "visible", "harmless"),
    *("settle", "settling", "settled"),
}

_COINED = re.compile(rf"(?<![a-z])(?:{'|'.join(COINED)})(?:s|es|ed|ing)?(?![a-z])")
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


def _words_of_source(path: Path) -> list[tuple[int, str]]:
    """Names, comments and docstrings, each with its line. Messages and Redis names are data, and left out."""
    source = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    words = [
        (node.body[0].lineno, docstring)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and (docstring := ast.get_docstring(node))
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    kinds = {tokenize.NAME, tokenize.COMMENT}
    return words + [(token.start[0], token.string) for token in tokens if token.type in kinds]


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


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_source_uses_a_coined_word(path):
    found = [(line, coined_in(text)) for line, text in _words_of_source(path) if coined_in(text)]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_file_is_called_by_a_coined_word(path):
    assert not coined_in(_name(path))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_no_document_uses_a_coined_word(path):
    lines = path.read_text().splitlines()
    assert not [(number, line) for number, line in enumerate(lines, 1) if coined_in(line)]


def test_no_module_or_class_is_called_by_a_word_that_could_name_anything():
    modules = {_name(path) for path in SOURCES if path.stem in VAGUE}
    classes = {
        (_name(path), node.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.lower().strip("_") in VAGUE
    }
    assert not modules
    assert not classes
