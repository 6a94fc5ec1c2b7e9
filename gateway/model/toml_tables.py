"""Typed access to the tables of one TOML text that collects all errors instead of stopping at the first.

Every method takes the table and key it reads, so that an error has a line. An invalid value is left out of
the result; the caller checks `problems` at the end, and raises them together (`DocumentProblems`).

Non-goals: reading files, and what a text means.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.model.errors import BadNameError, Misconfigured
from gateway.model.toml_lines import DocumentLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

MAX_SHOWN_CHARACTERS = 200  # of a quoted value

Value = TypeVar("Value")


class DocumentProblems(Misconfigured):
    """All problems of some documents. `where` is the place of the first."""

    def __init__(self, problems: Iterable[Misconfigured]) -> None:
        self.problems = tuple(problems)
        first, *more = self.problems
        super().__init__(first.where, "\n".join([first.why, *map(str, more)]))


class TomlTables:
    """The tables of one text, and the problems found in them. `path` is where it was read."""

    __slots__ = ("_lines", "_path", "content", "problems")

    def __init__(self, path: Path, text: str, content: dict[str, Any]) -> None:
        self._path = path
        self._lines = DocumentLines(text)
        self.content = content
        self.problems: list[Misconfigured] = []

    def where(self, table: str, key: str | None = None, value: str | None = None, nth: int = 0) -> str:
        """Return file and line of a table, a key in it, or a value of that key."""
        return f"{self._path}:{self._lines.find(table, key, value, nth=nth)}"

    def complain(
        self, why: str, table: str, key: str | None = None, value: str | None = None, nth: int = 0
    ) -> None:
        """Record a problem at this place, with what was expected."""
        self.problems.append(Misconfigured(self.where(table, key, value, nth), why))

    def table(self, parent: Mapping[str, Any], at: str, key: str, nth: int = 0) -> dict[str, Any]:
        """Return a table below another one; empty if it is missing."""
        found = parent.get(key, {})
        if isinstance(found, dict):
            return found
        self.complain(f"{key} is {_shown(found)}; expected a table", at, key, nth=nth)
        return {}

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        """Return the tables of `[[key]]`; none after recording a problem."""
        found = self.content.get(key, [])
        if isinstance(found, list) and all(isinstance(one, dict) for one in found):
            return found
        self.complain(f"{key} is no list of tables; expected [[{key}]]", "", key)
        return []

    def refuse_unknown(self, table: Mapping[str, Any], at: str, known: tuple[str, ...], nth: int = 0) -> None:
        """Record a problem for every unknown key: most are misspelt, and would have no effect."""
        for key in table:
            if key not in known:
                self.complain(f"unknown key {key!r}; expected {', '.join(known)}", at, key, nth=nth)

    def text(self, table: Mapping[str, Any], at: str, key: str, default: str, nth: int = 0) -> str:
        """Return a string."""
        found = table.get(key, default)
        if isinstance(found, str):
            return found
        self.complain(f"{key} is {_shown(found)}; expected a string", at, key, nth=nth)
        return default

    def flag(self, table: Mapping[str, Any], at: str, key: str) -> bool:
        """Return true or false; false if it is missing."""
        found = table.get(key, False)
        if isinstance(found, bool):
            return found
        self.complain(f"{key} is {_shown(found)}; expected true or false", at, key)
        return False

    def seconds(self, table: Mapping[str, Any], at: str, key: str, most: float) -> float:
        """Return a number of seconds from 0 to `most`; 0 if it is missing."""
        found = table.get(key, 0)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if is_number and 0 <= found <= most:  # NaN, which TOML can express, fails this comparison
            return float(found)
        self.complain(f"{key} is {_shown(found)}; expected a number of seconds from 0 to {most:g}", at, key)
        return 0.0

    def moment(self, table: Mapping[str, Any], at: str, key: str, nth: int = 0) -> float | None:
        """Return a time as seconds since the epoch; None if it is missing.

        A time without a zone is refused: it would be another time on each machine.
        """
        if key not in table:
            return None
        found = table[key]
        try:
            moment = datetime.fromisoformat(found) if isinstance(found, str) else found
            if isinstance(moment, datetime) and moment.tzinfo is not None:
                return moment.timestamp()
        except (ValueError, OverflowError):
            pass
        expected = "a date and a time with its zone, such as 2030-01-31T12:00:00Z"
        self.complain(f"{key} is {_shown(found)}; expected {expected}", at, key, nth=nth)
        return None

    def names(
        self, table: Mapping[str, Any], at: str, key: str, parse: Callable[[str], Value], nth: int = 0
    ) -> tuple[Value, ...]:
        """Return a list of names, each once."""
        written = table.get(key, [])
        if not isinstance(written, list):
            self.complain(f"{key} is {_shown(written)}; expected a list of strings", at, key, nth=nth)
            return ()
        found: dict[str, Value] = {}
        for text in written:
            if not isinstance(text, str):
                self.complain(f"{_shown(text)} in {key}; expected a string", at, key, nth=nth)
            elif text in found:
                self.complain(f"{text!r} again in {key}; expected it once", at, key, text, nth)
            else:
                found |= self.name(text, parse, at, key, nth)
        return tuple(found.values())

    def name(
        self, text: str, parse: Callable[[str], Value], at: str, key: str, nth: int = 0
    ) -> dict[str, Value]:
        """Return one name by its text, or nothing after recording a problem."""
        try:
            return {text: parse(text)}
        except BadNameError as error:
            self.complain(f"{text!r} in {key}: {error}", at, key, text, nth)
            return {}


def _shown(value: object) -> str:
    """Return a value for a message: shortened, and without a number of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
