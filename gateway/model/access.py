"""Who wants to do what with which: the question that `decide` answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.model.facts import KeyKind, Scope, Stamp
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId
    from gateway.model.verdicts import Allowed, Found


class Action(StrEnum):
    """What can be done with a resource. `read` implies `discover`."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    IDENTIFY = "identify"  # ask who one is; every valid key may


@dataclass(frozen=True, slots=True)
class Credential:
    """One key as it came off the wire: syntax checked, truth unknown. Never printed (I8)."""

    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLink:
    """What a signed URL says of itself: syntax checked, truth unknown. `mac` is never printed (I8).

    `signed` is exactly what the signature is over: the path of the file in the one form that we hand out.
    `beside` is a key that came in a header of the same request: it has to be the very key of the link.
    """

    key_id: KeyId
    expires_at: int
    signed: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    beside: Credential | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller: a key that is valid now, and whose it is."""

    kind: KeyKind
    key_id: KeyId
    key_name: str
    tenant: TenantId | None
    scopes: frozenset[Scope]
    expires_at: float | None  # of the key, or of the link that it came with: the earlier one
    key_begins_at: float | None = None  # the key's own not-before and expiry: what a transfer under way
    key_ends_at: float | None = None  # goes on standing on, whatever link began it
    degraded_seconds: float = 0.0  # for how long its tenant is served on what was last known
    is_link: bool = False  # it came with a signed URL of this key, not with the key
    is_of_platform: bool = False  # the platform knows the key, and says what it may have


class ResourceKind(StrEnum):
    """What a path names."""

    SELF = "self"
    CATALOGUE = "catalogue"
    MODEL = "model"
    PACKAGE = "package"
    FILE = "file"
    BLOB = "blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a listing is asked for: so many models, or files of a package, after this one."""

    after: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a path names, by name alone: nothing on disk was looked at to make one (I3)."""

    kind: ResourceKind
    model: ModelId | None = None
    package: PackageId | None = None
    file: FileHandle | None = None
    md5: Md5 | None = None
    page: Page | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The question: may this principal do this action with this resource."""

    principal: Principal
    action: Action
    resource: Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as the guard sees it: bytes off the wire, untouched, and where they came from.

    `raw_path` is the ASGI raw path, percent-encoding and all; nobody decodes it but `locate`, once.
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: str
    route: str  # the declared route's template, such as /v1/models/{model}; never the client's text
    trace_id: str | None
    received_at: float

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header that the guard does not decide by; for the record only."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuardedRoute:
    """What a route declares to the guard: its shape, its methods, the action, and where its resource is.

    `matches` looks at the shape of the raw path alone and never raises; `locate` parses it and
    raises `Refusal`. `find` looks for the thing itself once it is allowed, and for nothing before. A
    route that stands for others has `unwrap`, which gives the request that is meant and its route, and
    raises `Refusal`: the guard goes by these two then, and by nothing else of this route. A route without
    such a declaration does not start (I4).
    """

    template: str
    methods: tuple[str, ...]
    action: Action
    matches: Callable[[bytes], bool]
    locate: Callable[[WireRequest], Resource]
    extract: Callable[[WireRequest], Credential | SignedLink] | None = None  # None: a key in a header
    find: Callable[[WireRequest, Allowed], Awaitable[tuple[Found, Stamp]]] | None = None  # None: in the cache
    unwrap: Callable[[WireRequest], tuple[WireRequest, GuardedRoute]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HookRoute:
    """What a route declares whose callers have no key: its proof is in its body, and `take` looks at it.

    `take` raises `Refusal`, or does what it is told and returns what to answer. It is given no Receipt, so
    nothing of the cache can leave by it.
    """

    template: str
    methods: tuple[str, ...]
    max_body_bytes: int
    matches: Callable[[bytes], bool]
    take: Callable[[WireRequest, bytes], Awaitable[bytes]]
