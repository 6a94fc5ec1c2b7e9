"""Typed looks into one TOML document that collect complaints instead of stopping at the first.

Every look names the table and key it is about, so that a complaint has a line. What is wrong is
left out of the result; whoever reads asks at the end whether there were complaints.

Not here: what a document means (`documents.py`).
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.directory.document_lines import DocumentLines
from gateway.model.errors import BadNameError, Misconfigured
from gateway.model.trusted_files import read_trusted, refusal_of, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted

MAX_DOCUMENT_BYTES = 1 << 20  # five thousand grants are some 500 kB

_TOML_PLACE = re.compile(r"\s*\(at (?:line ([0-9]+), column [0-9]+|end of document)\)")

Value = TypeVar("Value")


class DocumentTables:
    """The tables of one document, and what is wrong with them."""

    __slots__ = ("_lines", "_on_distrust", "_path", "content", "problems")

    def __init__(self, path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse) -> None:
        self._path = path
        self._lines = DocumentLines("")
        self._on_distrust = on_distrust
        self.problems: list[Misconfigured] = []
        self.content: dict[str, Any] = self._load()

    def where(self, table: str, key: str | None = None, value: str | None = None, nth: int = 0) -> str:
        """File and line of a table, a key in it, or a value of that key."""
        return f"{self._path}:{self._lines.find(table, key, value, nth=nth)}"

    def complain(
        self, why: str, table: str, key: str | None = None, value: str | None = None, nth: int = 0
    ) -> None:
        """Note what was found at this place and what is expected."""
        self.problems.append(Misconfigured(self.where(table, key, value, nth), why))

    def table(self, parent: Mapping[str, Any], at: str, key: str) -> dict[str, Any]:
        """A table below another one; empty when it is not written."""
        found = parent.get(key, {})
        if isinstance(found, dict):
            return found
        self.complain(f"{key} is {found!r}; expected a table", at, key)
        return {}

    def refuse_unknown(self, table: Mapping[str, Any], at: str, known: tuple[str, ...], nth: int = 0) -> None:
        """Complain of every key that means nothing: most are misspelt, and would silently say nothing."""
        for key in table:
            if key not in known:
                self.complain(f"unknown key {key!r}; expected {', '.join(known)}", at, key, nth=nth)

    def text(self, table: Mapping[str, Any], at: str, key: str, default: str) -> str:
        """A string."""
        found = table.get(key, default)
        if isinstance(found, str):
            return found
        self.complain(f"{key} is {found!r}; expected a string", at, key)
        return default

    def flag(self, table: Mapping[str, Any], at: str, key: str) -> bool:
        """True or false; false when it is not written."""
        found = table.get(key, False)
        if isinstance(found, bool):
            return found
        self.complain(f"{key} is {found!r}; expected true or false", at, key)
        return False

    def seconds(self, table: Mapping[str, Any], at: str, key: str, most: float) -> float:
        """A number of seconds from 0 to `most`; 0 when it is not written."""
        found = table.get(key, 0)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if is_number and 0 <= found <= most:  # NaN, which TOML can write, is neither
            return float(found)
        self.complain(f"{key} is {found!r}; expected a number of seconds from 0 to {most:g}", at, key)
        return 0.0

    def names(
        self, table: Mapping[str, Any], at: str, key: str, parse: Callable[[str], Value], nth: int = 0
    ) -> tuple[Value, ...]:
        """A list of names, each once."""
        written = table.get(key, [])
        if not isinstance(written, list):
            self.complain(f"{key} is {written!r}; expected a list of strings", at, key, nth=nth)
            return ()
        found: dict[str, Value] = {}
        for text in written:
            if not isinstance(text, str):
                self.complain(f"{text!r} in {key}; expected a string", at, key, nth=nth)
            elif text in found:
                self.complain(f"{text!r} again in {key}; expected it once", at, key, text, nth)
            else:
                found |= self.name(text, parse, at, key, nth)
        return tuple(found.values())

    def name(
        self, text: str, parse: Callable[[str], Value], at: str, key: str, nth: int = 0
    ) -> dict[str, Value]:
        """One name by what was written, or nothing and a complaint."""
        try:
            return {text: parse(text)}
        except BadNameError as error:
            self.complain(f"{text!r} in {key}: {error}", at, key, text, nth)
            return {}

    def _load(self) -> dict[str, Any]:
        """The file as TOML; empty for an empty file, and for what cannot be read."""
        try:
            text = read_trusted(
                self._path, max_bytes=MAX_DOCUMENT_BYTES, on_distrust=self._on_distrust
            ).decode("utf-8")
        except OSError as error:
            self._complain_of_file(1, f"cannot be read ({refusal_of(self._path, error)})")
            return {}
        except Misconfigured as error:
            self._complain_of_file(1, error.why)
            return {}
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._complain_of_file(line, "is not UTF-8; expected UTF-8 text")
            return {}
        self._lines = DocumentLines(text)
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = _TOML_PLACE.search(str(error))
            line = int(place[1]) if place and place[1] else text.count("\n") + 1
            self._complain_of_file(line, f"is not TOML: {_TOML_PLACE.sub('', str(error))}; expected TOML")
            return {}
        except RecursionError:
            self._complain_of_file(1, "nests too deep to be read; expected a tenant document")
            return {}

    def _complain_of_file(self, line: int, why: str) -> None:
        self.problems.append(Misconfigured(f"{self._path}:{line}", why))
