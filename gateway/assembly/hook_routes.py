"""Builds the webhook routes of a worker.

Without a platform authority there is nothing that the platform could end, and no route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.faces.hooks import authority_hook
from gateway.identity.secret_file import load_secret
from gateway.platform.invalidation import Invalidation

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.model.routes import HookRoute


def hook_routes(pipeline: Pipeline) -> list[HookRoute]:
    """The declarations of these routes."""
    if pipeline.authority is None:
        return []
    invalidation = Invalidation(
        store=pipeline.store,
        listing=Listing(PlainFacts(pipeline.store), on_unreadable=pipeline.telemetry.unreadable),
        perform=pipeline.authority.perform,
        peppers=pipeline.authority.peppers,
        clock=pipeline.clock,
        monotonic=pipeline.clock,
        lease_seconds=pipeline.settings.lease_milliseconds / 1000,
        is_settled=pipeline.settings.redis_url is None,
    )
    return [authority_hook(load_secret(pipeline.settings.hook_key_file), invalidation)]
