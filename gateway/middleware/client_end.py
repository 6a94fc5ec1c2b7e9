"""The client's end of a connection, out of the ASGI scope: what our own server puts there beyond ASGI.

On other servers these are missing, and the guard does without: it then learns that a client has gone
only when the server says so, and has nothing but the length of each step to see that one takes in nothing.
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
"""The fields of `ClientEnd`, and what the server calls them in the scope."""


def client_end(scope: Scope) -> ClientEnd:
    """What the server offers, and what does no harm for the rest."""
    return ClientEnd(**{name: scope[key] for name, key in NAMES.items() if key in scope})
