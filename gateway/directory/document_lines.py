"""Where in a TOML text a key or value stands, for complaints that point at a line.

tomllib gives values without places. The text is searched the way a person would: the table's header
first, then the key below it, then the value. Inline tables and dotted keys may be missed; the answer
is then the nearest thing found above. A guess is good enough here, because it only points.
"""

from __future__ import annotations

import json
import re

_HEADER = re.compile(r"^\s*\[(\[)?\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)\s*[=.]""")


class DocumentLines:
    """The lines of one document, to look places up in."""

    __slots__ = ("_lines", "_where")

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._where: list[tuple[str, int]] = []  # per line: its table, and which of that name it is
        table, seen = ("", 0), dict[str, int]()
        for line in self._lines:
            header = _HEADER.match(line)
            if header is not None:
                name = ".".join(_plain(part) for part in header[2].split("."))
                table = (name, seen.get(name, 0))
                seen[name] = table[1] + 1
            self._where.append(table)

    def find(self, table: str, key: str | None = None, value: str | None = None, *, nth: int = 0) -> int:
        """The line, from 1, of a table, or of a key in it, or of a value of that key; 1 if all fails."""
        inside = [number for number, where in enumerate(self._where) if where == (table, nth)]
        if key is None:
            if inside:
                return inside[0] + 1
            parent, _, name = table.rpartition(".")
            return self.find(parent, name) if table else 1
        at_key = next((number for number in inside if self._key_of(number) == key), None)
        if at_key is None:
            below = f"{table}.{key}" if table else key  # the key may be a table with a header of its own
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
    """A key without its quotes."""
    written = written.strip()
    if written.startswith('"'):
        try:
            return str(json.loads(written))
        except ValueError:
            return written
    return written.strip("'")
