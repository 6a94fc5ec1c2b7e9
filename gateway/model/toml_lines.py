"""Finds the line of a key or value in a TOML text, for error messages.

tomllib returns values without positions. So the text is searched: first for the table's header, then for the
key below it, then for the value. Inline tables and dotted keys may be missed; the result is then the nearest
line found above. An approximate line is sufficient for a message.
"""

from __future__ import annotations

import json
import re

_HEADER = re.compile(r"^\s*\[(\[)?\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)\s*[=.]""")


class DocumentLines:
    """The lines of one document, searchable by table, key and value."""

    __slots__ = ("_lines", "_where")

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._where: list[tuple[str, int]] = []  # per line: its table and its index among equal names
        table, seen = ("", 0), dict[str, int]()
        for line in self._lines:
            header = _HEADER.match(line)
            if header is not None:
                name = ".".join(_plain(part) for part in header[2].split("."))
                table = (name, seen.get(name, 0))
                seen[name] = table[1] + 1
            self._where.append(table)

    def find(self, table: str, key: str | None = None, value: str | None = None, *, nth: int = 0) -> int:
        """Return the line, from 1, of a table, a key in it, or a value of that key; 1 if none is found."""
        inside = [number for number, where in enumerate(self._where) if where == (table, nth)]
        if key is None:
            if inside:
                return inside[0] + 1
            parent, _, name = table.rpartition(".")
            return self.find(parent, name) if table else 1
        at_key = next((number for number in inside if self._key_of(number) == key), None)
        if at_key is None:
            below = f"{table}.{key}" if table else key  # the key may be a table with its own header
            header = next((number for number, where in enumerate(self._where) if where == (below, 0)), None)
            if header is not None:
                return header + 1
            return self.find(table, nth=nth) if table else 1
        if value is not None:
            written = (json.dumps(value, ensure_ascii=False), f"'{value}'")
            for number in (number for number in inside if number >= at_key):
                if number != at_key and self._key_of(number) is not None:
                    break
                if any(text in self._lines[number] for text in written):
                    return number + 1
        return at_key + 1

    def _key_of(self, number: int) -> str | None:
        found = _KEY.match(self._lines[number])
        return None if found is None else _plain(found[1])


def _plain(written: str) -> str:
    """Return a key without its quotes."""
    written = written.strip()
    if written.startswith('"'):
        try:
            return str(json.loads(written))
        except ValueError:
            return written
    return written.strip("'")
