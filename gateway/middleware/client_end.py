"""Reads from the ASGI scope what our own server adds to it: abort, drained, client gone, stall clock.

On other servers these entries are missing and `ClientEnd`'s defaults apply. The guard then learns that a
client has gone only when the server says so, and notices a client that takes nothing only by how long a
step takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model import extensions
from gateway.transfers import ClientEnd

if TYPE_CHECKING:
    from starlette.types import Scope

NAMES = {
    "drained": extensions.DRAINED,
    "abort": extensions.ABORT,
    "has_gone": extensions.GONE,
    "has_stall_clock": extensions.HAS_STALL_CLOCK,
}
"""The fields of `ClientEnd`, and their names in the scope."""


def client_end(scope: Scope) -> ClientEnd:
    """The client's end of this connection: what the server offers, and defaults for the rest."""
    return ClientEnd(**{name: scope[key] for name, key in NAMES.items() if key in scope})
