"""Who wants to do what with which: the question that `decide` answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.facts import KeyKind, Scope
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId


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
class Principal:
    """An authenticated caller: a key that is valid now, and whose it is."""

    kind: KeyKind
    key_id: KeyId
    key_name: str
    tenant: TenantId | None
    scopes: frozenset[Scope]
    expires_at: float | None
    degraded_seconds: float = 0.0  # for how long its tenant is served on what was last known


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
    """Which part of a listing is asked for."""

    after: ModelId | None
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
    raises `Refusal`. A route without such a declaration does not start (I4).
    """

    template: str
    methods: tuple[str, ...]
    action: Action
    matches: Callable[[bytes], bool]
    locate: Callable[[WireRequest], Resource]
