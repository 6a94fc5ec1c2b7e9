"""The webhooks of one worker, built of its rooms.

Where nobody asks the platform, there is nothing that it could end, and no route to do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.listing import Listing
from gateway.directory.reading import StoreReading
from gateway.faces.hooks import authority_hook
from gateway.identity.secret_file import load_secret
from gateway.platform.invalidation import Invalidation

if TYPE_CHECKING:
    from gateway.assembly.rooms import Rooms
    from gateway.model.access import HookRoute


def hook_routes(rooms: Rooms) -> list[HookRoute]:
    """The declarations of these routes."""
    if rooms.authority is None:
        return []
    invalidation = Invalidation(
        store=rooms.store,
        listing=Listing(StoreReading(rooms.store), on_unreadable=rooms.telemetry.unreadable),
        perform=rooms.authority.perform,
        peppers=rooms.authority.peppers,
        clock=rooms.clock,
        monotonic=rooms.clock,
        lease_seconds=rooms.settings.lease_milliseconds / 1000,
        is_settled=rooms.settings.redis_url is None,
    )
    return [authority_hook(load_secret(rooms.settings.hook_key_file), invalidation)]
