"""One spelling of each path, and templates that are matched as Starlette's router matches them.

In an app of somebody else's there are two readers of a path: the guard, and the app's router. The guard reads
the raw path, most routers a decoded one. They must not read two different things (I4), so every path that
could be read in two ways is no route of such an app:

- an escape for a slash, or for a character that needs none (`%2F`, `%2e`, `%61`),
- an empty segment or a dot segment, a backslash, a control character,
- bytes that are not ASCII as they are, or not UTF-8 once decoded,
- a `path` of the server that is not what its `raw_path` says.

What is left decodes segment by segment to one text and back. On this text a template has the very expression
that Starlette makes of it, so both find the same parameters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.routing import compile_path

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from starlette.types import Scope

_CANONICAL = re.compile(r"(?:[^%\\\x00-\x20\x7f-\xff]|%[0-9A-Fa-f]{2})*")
_NEEDLESS = re.compile(r"%(?:2[DdEeFf]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
"""Escapes of `/`, and of what RFC 3986 calls unreserved: letters, digits, `-`, `.`, `_` and `~`."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_DOTS = frozenset({".", ".."})


def read_path(raw_path: bytes) -> str | None:
    """The text of a raw path; None for one that could be read in two ways."""
    raw = raw_path.decode("latin-1")
    if not raw.startswith("/") or not _CANONICAL.fullmatch(raw) or _NEEDLESS.search(raw):
        return None
    try:
        text = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return None
    *segments, last = text[1:].split("/")
    if "" in segments or not _DOTS.isdisjoint((*segments, last)) or _CONTROL.search(text):
        return None
    return text


def is_as_served(scope: Scope, text: str) -> bool:
    """Whether the router of the app will read this very path, below its mount."""
    path, root = scope.get("path", ""), scope.get("root_path", "")
    if root and path.startswith(root + "/"):
        path = path[len(root) :]
    return bool(path == text)


class PathTemplate:
    """A path in Starlette's form, such as `/files/{model:path}/-/{package}/{file:path}`."""

    def __init__(self, template: str, *needed: str) -> None:
        """`needed` are parameters that it has to have."""
        try:
            self._expression, _, self._convertors = compile_path(template)
        except (AssertionError, ValueError) as error:
            raise Misconfigured(template, f"is no path as Starlette writes them: {error}") from error
        missing = [name for name in needed if name not in self._convertors]
        if missing or not template.startswith("/"):
            raise Misconfigured(template, f"expected a path with {', '.join(f'{{{one}}}' for one in needed)}")
        self.template = template

    def find(self, raw_path: bytes) -> dict[str, str] | None:
        """The parameters of a raw path as texts; None where it does not match."""
        text = read_path(raw_path)
        match = None if text is None else self._expression.match(text)
        if match is None or match.end() != len(match.string):
            return None
        return match.groupdict()

    def matches(self, raw_path: bytes) -> bool:
        """Whether a raw path has this form."""
        return self.find(raw_path) is not None

    def converted(self, raw_path: bytes) -> dict[str, Any] | None:
        """The parameters as the app's router hands them to a handler."""
        found = self.find(raw_path)
        return found and {name: self._convertors[name].convert(text) for name, text in found.items()}
