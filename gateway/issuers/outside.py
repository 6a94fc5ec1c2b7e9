"""What authentication of outside issuers' tokens asks for, as one object (the port `OutsideIssuers`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.issuers.bindings import Bindings  # noqa: TC001 -- msgspec reads annotations
from gateway.issuers.key_sets import KeySets  # noqa: TC001 -- the same

if TYPE_CHECKING:
    from gateway.model.issuers import Issuer, MappingRule


class IssuerServices(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The outside issuers, for one worker."""

    key_sets: KeySets
    bindings: Bindings

    async def refresh(self, issuer: Issuer, known_at: float | None) -> None:
        """Have the keys fetched, by one worker for all. Raises `Unavailable(ISSUER_UNDECIDED)`."""
        await self.key_sets.refresh(issuer, known_at)

    def refresh_soon(self, issuer: Issuer, known_at: float) -> None:
        """The same in the background."""
        self.key_sets.refresh_soon(issuer, known_at)

    async def bind(self, issuer: Issuer, rule: MappingRule, subject: str) -> None:
        """Bind a subject to the tenant of the rule by which it came. Raises `Refusal`."""
        await self.bindings.bind(issuer, rule, subject)

    async def close(self) -> None:
        """End what is under way."""
        await self.key_sets.close()
