"""An inquiry: one request of a caller to the provider, under an allow of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.engine.questions import WeightsQuery
    from gateway.model.access import Credential, WireRequest
    from gateway.model.names import KeyId
    from gateway.model.verdicts import Allowed


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's request to the provider. The allow is ours; the credential is the caller's own."""

    request: WireRequest
    allowed: Allowed
    question: WeightsQuery
    credential: Credential

    @property
    def key_id(self) -> KeyId:
        """The key that the answer is for."""
        return self.allowed.access.principal.key_id
