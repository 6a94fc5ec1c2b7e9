"""The path of a request that a proxy serves: accepted only where every server reads it in the same way.

The gateway decides, but the proxy and what is behind it serve. Each of them has its own habits: one decodes
`%2F`, one merges slashes, one resolves dot segments, one cuts a segment at `;`. If a path changes by any of
these, what is served might be another thing than what was decided. So nothing is normalised here either:
the path has to be in the one form that no server changes, and any other is refused.

That costs little. All paths of files and blobs have this form, but for models whose ids contain a character
that has to be escaped and is ASCII (a blank, `;`, `%`), or a segment `-`: these cannot be served by a proxy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.check_prefixes import CheckPrefix

_READ_IN_ONE_WAY = re.compile(
    rb"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[89A-Fa-f][0-9A-Fa-f])++)+"
)
"""Segments, none empty or a dot segment. A character of RFC 3986's `pchar` stands for itself, without `;`.
Escaped are bytes beyond ASCII alone, which have no meaning in a path for anybody."""


def verify_read_in_one_way(raw_path: bytes) -> None:
    """Raises `Refusal(MALFORMED_PATH)` for a path that some server would change."""
    if _READ_IN_ONE_WAY.fullmatch(raw_path) is None:
        raise Refusal(Reason.MALFORMED_PATH)


class ProxiedPaths:
    """Translates paths of a proxy to ours. Without prefixes both are the same."""

    def __init__(self, prefixes: Iterable[CheckPrefix]) -> None:
        self._prefixes = [(one.of_proxy.encode(), one.of_gateway.encode()) for one in prefixes]

    def own_path(self, raw_path: bytes) -> bytes:
        """Our path for a path of the proxy. Raises `Refusal(NO_ROUTE)` where the proxy has nothing of ours.

        At most one prefix applies: none of them lies below another.
        """
        if not self._prefixes:
            return raw_path
        for of_proxy, of_gateway in self._prefixes:
            if raw_path.startswith(of_proxy + b"/"):
                return of_gateway + raw_path[len(of_proxy) :]
        raise Refusal(Reason.NO_ROUTE)
