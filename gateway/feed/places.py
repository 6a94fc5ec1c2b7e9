"""Bounds how many readers a worker has at once: in all, of all tenants together, and of each of them.

Tenants together have three quarters of the places at most, so that they cannot keep out who reads for the
operator; and one tenant has an eighth of those, so that it cannot keep out the others.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model.names import TenantId


class Places:
    """The places for one way of reading. What is taken is given back exactly once, whatever happens."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_tenants = max(1, most * 3 // 4)
        self._most_of_tenant = max(1, self._most_of_tenants // 8)
        self._taken: Counter[TenantId | None] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def take(self, tenant: TenantId | None) -> None:
        """Take a place; None: for the operator. Raises `Refusal(BUSY)` where there is none."""
        total = self._taken.total()
        is_full = total >= self._most
        if tenant is not None:
            is_full |= total - self._taken[None] >= self._most_of_tenants
            is_full |= self._taken[tenant] >= self._most_of_tenant
        if is_full:
            raise Refusal(Reason.BUSY)
        self._taken[tenant] += 1

    def give_back(self, tenant: TenantId | None) -> None:
        """Give a place back."""
        self._taken[tenant] -= 1
        if self._taken[tenant] <= 0:
            del self._taken[tenant]

    @contextmanager
    def taken(self, tenant: TenantId | None) -> Iterator[None]:
        """Hold a place for as long as this context lasts."""
        self.take(tenant)
        try:
            yield
        finally:
            self.give_back(tenant)
