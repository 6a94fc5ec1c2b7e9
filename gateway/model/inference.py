"""An inference server behind the front door, as the operator names it, and what is sent to one."""

from __future__ import annotations

import msgspec

from gateway.model.hidden_fields import shown
from gateway.model.names import TenantId  # noqa: TC001 -- msgspec reads annotations


class InferenceServer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One server. With a tenant, that tenant's requests go to its servers alone, and nobody else's do."""

    url: str  # in one spelling, without a slash at its end: `http://10.0.0.5:9001`
    tenant: TenantId | None = None

    @property
    def name(self) -> str:
        """How records and metrics name it: host, port if it is not the scheme's own, and path."""
        return self.url.partition("://")[2]


class Outbound(msgspec.Struct, frozen=True, kw_only=True):
    """The request that is sent to the server. It has the injected key: never printed."""

    method: str
    target: bytes  # path and query, encoded
    headers: tuple[tuple[bytes, bytes], ...]  # without Host, length and hop-by-hop headers
    body: bytes | None  # None: streamed from the client
    image_name: str | None = None  # what the tenant calls its image, where the server has another name for it

    def __repr__(self) -> str:
        return shown(self, hidden=("target", "headers", "body", "image_name"))
