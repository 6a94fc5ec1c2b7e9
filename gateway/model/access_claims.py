"""What an access token of ours says, once it is verified, or before it is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.model.facts import Scope
    from gateway.model.names import KeyId, Pattern
    from gateway.model.tenant_records import TenantRecordId


MAX_TOKEN_SECONDS = 900
"""The longest life of a token: who verifies it offline does not learn of a revocation before its end."""


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a token stands for, what it may at most, and until when."""

    key_id: KeyId
    tenant_record: TenantRecordId | None = None  # of the tenant, where its record has an id
    subject: str  # the tenant of the key, or the key itself where it has none
    token_id: str
    issued_at: int
    expires_at: int
    scopes: frozenset[Scope]
    only: Pattern | None = None
