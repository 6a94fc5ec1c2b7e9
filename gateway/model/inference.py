"""An inference server behind the front door, as the operator names it."""

from __future__ import annotations

import msgspec

from gateway.model.names import TenantId  # noqa: TC001 -- msgspec reads annotations


class InferenceServer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One server. With a tenant, that tenant's requests go to its servers alone, and nobody else's do."""

    url: str  # in one spelling, without a slash at its end: `http://10.0.0.5:9001`
    tenant: TenantId | None = None

    @property
    def name(self) -> str:
        """How records and metrics name it: host, port if it is not the scheme's own, and path."""
        return self.url.partition("://")[2]
