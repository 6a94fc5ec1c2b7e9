"""The values of a request before it is decided: credential, principal, resource, access, declared route."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from gateway.model.facts import KeyKind, Scope
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId


class Action(StrEnum):
    """What can be done with a resource. `read` implies `discover`."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    IDENTIFY = "identify"  # ask for one's own identity; every valid key may


GRANTABLE = frozenset({Action.DISCOVER.value, Action.READ.value, Action.INFER.value})
"""The actions that a grant may name."""


class Credential(msgspec.Struct, frozen=True, gc=False):
    """One key from a request: syntax checked, validity unknown. Never printed (I8)."""

    secret: str

    def __repr__(self) -> str:
        return shown(self, hidden=("secret",))


class SignedLink(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a signed URL: syntax checked, validity unknown. `mac` is never printed (I8).

    `signed` is exactly what the signature covers: the path of the file in its one canonical form.
    `beside` is a key from a header of the same request: it has to be the very key of the link.
    """

    key_id: KeyId
    expires_at: int
    signed: bytes
    mac: bytes
    beside: Credential | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("signed", "mac", "beside"))


class Principal(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """An authenticated caller: a key that is valid now, and its tenant."""

    kind: KeyKind
    key_id: KeyId
    key_name: str
    tenant: TenantId | None
    scopes: frozenset[Scope]
    expires_at: float | None  # of the key, or of the link that it came with: the earlier one
    key_begins_at: float | None = None  # the key's own not-before and expiry: a transfer in progress
    key_ends_at: float | None = None  # is checked against these, whatever link started it
    degraded_seconds: float = 0.0  # how long its tenant is served last known facts after a lost lease
    image_hosts: tuple[str, ...] = ()  # whose images the front door fetches for its tenant
    is_link: bool = False  # the request had a signed URL of this key, not the key
    is_of_platform: bool = False  # the platform knows the key, and rules on its rights


class ResourceKind(StrEnum):
    """The kind of resource that a path names."""

    SELF = "self"
    CATALOGUE = "catalogue"
    MODEL = "model"
    PACKAGE = "package"
    FILE = "file"
    BLOB = "blob"


class Page(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The requested page of a listing: at most `limit` models, or files of a package, after this one."""

    after: str | None
    limit: int


class Resource(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The resource that a path names, from the name alone: nothing on disk was read to make one (I3)."""

    kind: ResourceKind
    model: ModelId | None = None
    package: PackageId | None = None
    file: FileHandle | None = None
    md5: Md5 | None = None
    page: Page | None = None


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The question that `decide` answers: may this principal do this action with this resource."""

    principal: Principal
    action: Action
    resource: Resource


class WireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the guard sees it: unmodified bytes from the wire, and the client's address.

    `raw_path` is the ASGI raw path, still percent-encoded; only `locate` decodes it, once.
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: str
    route: str  # the declared route's template, such as /v1/models/{model}; never the client's text
    trace_id: str | None
    received_at: float
    is_of_proxy: bool = False  # its peer is a trusted proxy, whose word about others counts

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header that no decision depends on; for the record only."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
