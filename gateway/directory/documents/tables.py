"""Reads one tenant document: its tables, or the problems that keep it from being read.

Non-goals: access to the tables (`TomlTables`), and what a document means (`parse.py`).
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Misconfigured
from gateway.model.toml_lines import DocumentLines
from gateway.model.toml_tables import TomlTables
from gateway.model.trusted_files import read_trusted, refusal_of, refuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted

_TOML_PLACE = re.compile(r"\s*\(at (?:line ([0-9]+), column [0-9]+|end of document)\)")
MAX_DOCUMENT_BYTES = 1 << 20  # five thousand grants are about 500 kB


class DocumentTables(TomlTables):
    """The tables of one document, and the problems found in them."""

    __slots__ = ("_on_distrust",)

    def __init__(self, path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse) -> None:
        super().__init__(path, "", {})
        self._on_distrust = on_distrust
        self.content = self._load()

    def _load(self) -> dict[str, Any]:
        """Return the file as TOML; empty for an empty file and for one that cannot be read."""
        text = self._read_text()
        if text is None:
            return {}
        self._lines = DocumentLines(text)
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = _TOML_PLACE.search(str(error))
            line = int(place[1]) if place and place[1] else text.count("\n") + 1
            self._complain_of_file(line, f"is not TOML: {_TOML_PLACE.sub('', str(error))}; expected TOML")
        except ValueError:  # not TOML's error: Python refuses numbers of thousands of digits
            self._complain_of_file(
                1, "holds a number that is too long to be read; expected a tenant document"
            )
        except RecursionError:
            self._complain_of_file(1, "nests too deep to be read; expected a tenant document")
        return {}

    def _read_text(self) -> str | None:
        """Return the file's text; None, with a problem recorded, if it is not trusted or not text."""
        try:
            raw = read_trusted(self._path, max_bytes=MAX_DOCUMENT_BYTES, on_distrust=self._on_distrust)
            return raw.decode("utf-8")
        except OSError as error:
            self._complain_of_file(1, f"cannot be read ({refusal_of(self._path, error)})")
        except Misconfigured as error:
            self._complain_of_file(1, error.why)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._complain_of_file(line, "is not UTF-8; expected UTF-8 text")
        return None

    def _complain_of_file(self, line: int, why: str) -> None:
        self.problems.append(Misconfigured(f"{self._path}:{line}", why))
