"""The values of a request before it is decided: credential, principal, resource, access, declared route."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import BadNameError
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from gateway.model.facts import KeyKind, Role, Scope
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, Pattern, TenantId
    from gateway.model.tenant_records import TenantRecordId


class Action(StrEnum):
    """What can be done with a resource. `read` implies `discover`."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    IDENTIFY = "identify"  # ask for one's own identity; every valid key may
    EXCHANGE = "exchange"  # have a token made that stands for oneself; who may identify itself may
    INTROSPECT = "introspect"  # ask about a token of somebody else's
    ASK = "ask"  # ask what a key or a tenant may do
    AUDIT_READ = "audit-read"  # read of the audit log what is about oneself

    # What a workflow does beside running models. The resource is the tenant itself.
    EXTERNAL_REQUEST = "external-request"
    STORAGE_READ = "storage-read"
    STORAGE_WRITE = "storage-write"
    ENVIRONMENT_READ = "environment-read"
    CUSTOM_PYTHON = "custom-python"
    CACHE_READ = "cache-read"
    CACHE_WRITE = "cache-write"

    # What administers. The resource is the gateway's administration, or the caller's own tenant.
    TENANTS_LIST = "tenants.list"
    TENANTS_READ = "tenants.read"
    TENANTS_CREATE = "tenants.create"
    TENANTS_CHANGE = "tenants.change"
    TENANTS_SUSPEND = "tenants.suspend"
    TENANTS_RESUME = "tenants.resume"
    TENANTS_REMOVE = "tenants.remove"
    TENANTS_RESTORE = "tenants.restore"
    TENANTS_REMOVED = "tenants.removed"
    KEYS_LIST = "keys.list"
    KEYS_READ = "keys.read"
    KEYS_CREATE = "keys.create"
    KEYS_CHANGE = "keys.change"
    KEYS_DISABLE = "keys.disable"
    KEYS_ENABLE = "keys.enable"
    KEYS_ROTATE = "keys.rotate"
    KEYS_CLOSE = "keys.close"
    KEYS_REVOKE = "keys.revoke"
    KEYS_REVOKE_FOUND = "keys.revoke-found"
    KEYS_REPORT = "keys.report"
    KEYS_ROTATIONS = "keys.rotations"
    KEYS_IDENTIFY = "keys.identify"
    GRANTS_LIST = "grants.list"
    GRANTS_READ = "grants.read"
    GRANTS_CREATE = "grants.create"
    GRANTS_REMOVE = "grants.remove"
    GRANTS_REMOVE_NAMED = "grants.remove-named"
    MODELS_LIST = "models.list"
    MODELS_READ = "models.read"
    MODEL_RULES_LIST = "model-rules.list"
    MODEL_RULES_READ = "model-rules.read"
    MODEL_RULES_CREATE = "model-rules.create"
    MODEL_RULES_CHANGE = "model-rules.change"
    MODEL_RULES_MOVE = "model-rules.move"
    MODEL_RULES_OWN = "model-rules.own"
    MODEL_RULES_DISOWN = "model-rules.disown"
    MODEL_RULES_PUBLISH = "model-rules.publish"
    MODEL_RULES_UNPUBLISH = "model-rules.unpublish"
    ALIASES_LIST = "aliases.list"
    ALIASES_CREATE = "aliases.create"
    ALIASES_REMOVE = "aliases.remove"
    GROUPS_LIST = "groups.list"
    GROUPS_READ = "groups.read"
    GROUPS_ADD = "groups.add"
    GROUPS_REMOVE = "groups.remove"
    POLICY_READ = "policy.read"
    POLICY_CHANGE = "policy.change"
    POLICY_PLAN = "policy.plan"
    POLICY_APPLY = "policy.apply"
    QUARANTINE_LIST = "quarantine.list"
    QUARANTINE_READ = "quarantine.read"
    QUARANTINE_RELEASE = "quarantine.release"
    ISSUERS_LIST = "issuers.list"
    ISSUERS_READ = "issuers.read"
    BINDINGS_LIST = "bindings.list"
    BINDINGS_READ = "bindings.read"
    BINDINGS_REVOKE = "bindings.revoke"
    BINDINGS_FORGET = "bindings.forget"
    ACCESS_EXPLAIN = "access.explain"
    ACCESS_READERS = "access.readers"


ADMINISTRATIVE_READS = frozenset(
    {
        *(Action.TENANTS_LIST, Action.TENANTS_READ, Action.KEYS_LIST, Action.KEYS_READ),
        *(Action.KEYS_REPORT, Action.KEYS_ROTATIONS, Action.KEYS_IDENTIFY, Action.TENANTS_REMOVED),
        *(Action.MODELS_LIST, Action.MODELS_READ, Action.POLICY_PLAN),
        *(Action.GRANTS_LIST, Action.GRANTS_READ, Action.MODEL_RULES_LIST, Action.MODEL_RULES_READ),
        *(Action.ALIASES_LIST, Action.GROUPS_LIST, Action.GROUPS_READ, Action.POLICY_READ),
        *(Action.QUARANTINE_LIST, Action.QUARANTINE_READ, Action.ISSUERS_LIST, Action.ISSUERS_READ),
        *(Action.BINDINGS_LIST, Action.BINDINGS_READ, Action.ACCESS_EXPLAIN, Action.ACCESS_READERS),
    }
)
"""The actions that administer and change nothing."""

ADMINISTRATIVE_CHANGES = frozenset(
    {
        *(Action.TENANTS_CREATE, Action.TENANTS_CHANGE, Action.TENANTS_SUSPEND, Action.TENANTS_RESUME),
        *(Action.TENANTS_REMOVE, Action.TENANTS_RESTORE, Action.MODEL_RULES_MOVE),
        *(Action.MODEL_RULES_OWN, Action.MODEL_RULES_DISOWN, Action.MODEL_RULES_PUBLISH),
        *(Action.MODEL_RULES_UNPUBLISH, Action.GRANTS_REMOVE_NAMED, Action.POLICY_APPLY),
        *(Action.KEYS_CREATE, Action.KEYS_CHANGE, Action.KEYS_DISABLE, Action.KEYS_ENABLE),
        *(Action.KEYS_ROTATE, Action.KEYS_CLOSE, Action.KEYS_REVOKE, Action.KEYS_REVOKE_FOUND),
        *(Action.GRANTS_CREATE, Action.GRANTS_REMOVE, Action.MODEL_RULES_CREATE, Action.MODEL_RULES_CHANGE),
        *(Action.ALIASES_CREATE, Action.ALIASES_REMOVE, Action.GROUPS_ADD, Action.GROUPS_REMOVE),
        *(Action.POLICY_CHANGE, Action.QUARANTINE_RELEASE, Action.BINDINGS_REVOKE, Action.BINDINGS_FORGET),
    }
)
"""The actions that change facts or rules."""

ADMINISTRATIVE = ADMINISTRATIVE_READS | ADMINISTRATIVE_CHANGES


GRANTABLE = frozenset({Action.DISCOVER.value, Action.READ.value, Action.INFER.value})
"""The actions that a grant may name."""

ALLOWABLE = (
    Action.EXTERNAL_REQUEST,
    Action.STORAGE_READ,
    Action.STORAGE_WRITE,
    Action.ENVIRONMENT_READ,
    Action.CUSTOM_PYTHON,
    Action.CACHE_READ,
    Action.CACHE_WRITE,
)
"""The actions that a tenant may be allowed for its workflows; without that, none of them."""

OWN_SERVER_ONLY = frozenset(ALLOWABLE) - {Action.EXTERNAL_REQUEST}
"""Those that reach what all requests to one server share: its files, its environment, its memory."""


def parse_allowable(text: str) -> str:
    """An action that a tenant's workflows may be allowed. Raises `BadNameError`."""
    if text not in ALLOWABLE:
        raise BadNameError(f"{text!r} is not an action of workflows: expected one of {', '.join(ALLOWABLE)}")
    return text


TOKEN_MARK = "eyJ"  # noqa: S105 -- no token: every one begins like this
"""What an access token begins with: `{"` in base64url, which begins its header. No API key of ours does."""


class Credential(msgspec.Struct, frozen=True, gc=False):
    """One API key or access token from a request: syntax checked, validity unknown. Never printed (I8)."""

    secret: str

    @property
    def is_token(self) -> bool:
        """Whether it is to be read as an access token, and never as a key."""
        return self.secret.startswith(TOKEN_MARK)

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
    tenant_record: TenantRecordId | None = None  # of the tenant: another one of this name is not it
    scopes: frozenset[Scope]
    role: Role | None = None  # by which it administers; a token has that of its key
    expires_at: float | None  # of the key, or of the link or token that it came with: the earlier one
    key_begins_at: float | None = None  # the key's own not-before and expiry: a transfer in progress
    key_ends_at: float | None = None  # is checked against these, whatever link or token started it
    degraded_seconds: float = 0.0  # how long its tenant is served last known facts after a lost lease
    image_hosts: tuple[str, ...] = ()  # whose images the front door fetches for its tenant
    allows: tuple[str, ...] = ()  # what its tenant's workflows may do beside running models
    is_link: bool = False  # the request had a signed URL of this key, not the key
    is_of_platform: bool = False  # the platform knows the key, and rules on its rights
    issuer: str | None = None  # the outside issuer of its token; then `key_id` is that of a binding
    token_id: str | None = None  # the request had an access token of this key, with this id
    only: Pattern | None = None  # the token is narrowed to this model, or to all below this prefix
    networks: tuple[str, ...] = ()  # that its key may be used from; none: from anywhere

    @property
    def whose(self) -> str | None:
        """What is kept for its tenant alone is named by this: a later tenant of its name has another one."""
        if self.tenant is None or self.tenant_record is None:
            return self.tenant
        return f"{self.tenant} {self.tenant_record}"

    @property
    def token_ends_at(self) -> float | None:
        """When the token that the request had ends; None without one."""
        return self.expires_at if self.token_id is not None else None


class ResourceKind(StrEnum):
    """The kind of resource that a path names."""

    SELF = "self"
    CATALOGUE = "catalogue"
    TENANT = "tenant"  # the caller's own
    ADMINISTRATION = "administration"  # of the whole gateway
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
    subject: str | None = None  # what is administered, by its id; for the record only
    page: Page | None = None


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The question that `decide` answers: may this principal do this action with this resource."""

    principal: Principal
    action: Action
    resource: Resource


class WireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the guard sees it: unmodified bytes from the wire, and the client's address.

    `raw_path` is the ASGI raw path, still percent-encoded; only `locate` decodes it, once. `form` is the body
    of a route that reads one; it may hold a key, and is never printed (I8).
    """

    method: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: str
    route: str  # the declared route's template, such as /v1/models/{model}; never the client's text
    trace_id: str | None
    received_at: float
    fields: dict[bytes, bytes] | None = None  # the headers by name, where it is known that none came twice
    form: bytes = b""
    body: bytes = b""  # of a route that reads it; it names what is asked for
    is_of_proxy: bool = False  # its peer is a trusted proxy, whose word about others counts

    def __repr__(self) -> str:
        return shown(self, hidden=("query", "headers", "fields", "form", "body"))

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header that no decision depends on; for the record only."""
        if self.fields is not None:
            return self.fields.get(name)
        for key, value in self.headers:
            if key == name:
                return value
        return None
