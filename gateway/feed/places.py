"""Bounds how many readers a worker has at once: in all, of all tenants together, and of each of them.

Tenants together have three quarters of the places at most, so that they cannot keep out who reads for the
operator; and one tenant has an eighth of those, so that it cannot keep out the others.

Who comes is refused where there is no place. Who was let in elsewhere already (a poll that a record woke, a
stream) waits for one instead: as many of them as there may be are woken by one record.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.model.names import TenantId


class Places:
    """The places for one way of reading. What is taken is given back exactly once, whatever happens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_tenants = max(1, most * 3 // 4)
        self._most_of_tenant = max(1, self._most_of_tenants // 8)
        self._taken: Counter[TenantId | None] = Counter()
        self._waiting: deque[tuple[TenantId | None, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        return self._taken.total()

    def take(self, tenant: TenantId | None) -> None:
        """Take a place; None: for the operator. Raises `Refusal(BUSY)` where there is none."""
        if not self._has_place(tenant):
            raise Refusal(Reason.BUSY)
        self._taken[tenant] += 1

    def give_back(self, tenant: TenantId | None) -> None:
        """Give a place back."""
        self._taken[tenant] -= 1
        if self._taken[tenant] <= 0:
            del self._taken[tenant]
        for waiter in tuple(self._waiting):
            whose, place = waiter
            if not place.done() and self._has_place(whose):
                self._taken[whose] += 1
                self._waiting.remove(waiter)
                place.set_result(None)

    def _has_place(self, tenant: TenantId | None) -> bool:
        total = self._taken.total()
        if tenant is None:
            return total < self._most
        of_tenants = total - self._taken[None]
        return (
            total < self._most
            and of_tenants < self._most_of_tenants
            and self._taken[tenant] < self._most_of_tenant
        )

    @contextmanager
    def taken(self, tenant: TenantId | None) -> Iterator[None]:
        """Hold a place for as long as this context lasts."""
        self.take(tenant)
        try:
            yield
        finally:
            self.give_back(tenant)

    @asynccontextmanager
    async def awaited(self, tenant: TenantId | None) -> AsyncIterator[None]:
        """The same, once there is a place. The callers bound how many wait; the first gets it first."""
        if self._has_place(tenant):
            self._taken[tenant] += 1
        else:
            await self._wait(tenant)
        try:
            yield
        finally:
            self.give_back(tenant)

    async def _wait(self, tenant: TenantId | None) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, place))
        try:
            await place
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove((tenant, place))
            if place.done() and not place.cancelled():
                self.give_back(tenant)  # it was given the place just now
            raise
