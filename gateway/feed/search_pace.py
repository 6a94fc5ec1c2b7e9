"""Slows a tenant down that has the gateway search: its searches take a quarter of a core at most.

A search that took a while is followed by a pause three times as long, before the same tenant's next one
begins. The operator's readers are not slowed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.model.names import TenantId

SEARCH_SHARE = 4  # a tenant waits three times as long as its search took
LONGEST_PACE_SECONDS = 2.0
MOST_PACED = 1024


class SearchPace:
    """When each tenant may search again. Belongs to one event loop."""

    def __init__(self) -> None:
        self._due: dict[TenantId, float] = {}

    @property
    def slowed(self) -> frozenset[TenantId]:
        """The tenants whose last search is remembered."""
        return frozenset(self._due)

    @asynccontextmanager
    async def paced(self, tenant: TenantId | None) -> AsyncIterator[None]:
        """Search in this context; before it, wait if this tenant searched just now."""
        if tenant is None:
            yield
            return
        loop = asyncio.get_running_loop()
        if (due := self._due.get(tenant)) is not None:
            await asyncio.sleep(max(0.0, min(due - loop.time(), LONGEST_PACE_SECONDS)))
        began = loop.time()
        try:
            yield
        finally:
            now = loop.time()
            self._due[tenant] = now + (now - began) * (SEARCH_SHARE - 1)
            if len(self._due) > MOST_PACED:
                self._due = {one: due for one, due in self._due.items() if due > now}
