"""Facts: the records that the directory holds about tenants, keys, grants and models.

Facts are data that operators change at any time; rules (Cedar) say what follows from them. Each
fact is one small record in Redis with the generation of its last change and the source that wrote
it. Only `directory/records/codec.py` encodes and decodes them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.model.names import GroupName, KeyId, ModelId, PackageId, Pattern, TenantId
    from gateway.model.rulings import Ruling
    from gateway.model.stamps import Stamp

SOURCE_CLI = "cli"
"""The source of facts that an operator wrote by command."""

FOLDER_SOURCE = "policies:"
"""The source of facts from the policy folder begins so; the tenant of the document follows."""


_TEXT_BYTES = 400  # of a policy's text beside its characters: its name and the object headers


class Scope(StrEnum):
    """What a key may be used for at most; the rules decide for which models."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    AUDIT_READ = "audit:read"
    KEYS_MANAGE = "keys:manage"


MAX_DEGRADED_SECONDS = 3600.0
"""How long a tenant may be served last known facts: a revocation is not certain before that has passed."""

DEFAULT_SCOPES = frozenset({Scope.DISCOVER, Scope.READ, Scope.INFER})


class KeyKind(StrEnum):
    """Tenant keys read content; admin keys administer and read none."""

    TENANT = "tenant"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One API key, without its secret: the record is found by a keyed hash of the key."""

    key_id: KeyId
    kind: KeyKind
    tenant: TenantId | None
    name: str
    scopes: frozenset[Scope]
    networks: tuple[str, ...]
    created_at: float
    not_before: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    pepper_id: str
    generation: int = 0
    source: str = SOURCE_CLI

    def __post_init__(self) -> None:
        """Check that a tenant key names a tenant and an admin key none."""
        if (self.kind is KeyKind.TENANT) != (self.tenant is not None):
            raise ValueError("a tenant key names a tenant, an admin key names none")


class Tenant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A tenant: the owner of keys, to whom rights may be given."""

    tenant_id: TenantId
    name: str
    is_suspended: bool
    created_at: float
    degraded_seconds: float = 0.0  # 0 is `closed`; else `last-known-good` for so long after a lost lease
    generation: int = 0
    source: str = SOURCE_CLI


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Rights of one tenant on models it does not own: patterns and groups, perhaps limited to packages."""

    grant_id: str
    actions: frozenset[str]
    models: tuple[Pattern, ...] = ()
    groups: tuple[GroupName, ...] = ()
    packages: tuple[PackageId, ...] = ()
    source: str = SOURCE_CLI


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """All grants of one tenant in one record: they are needed together and change together."""

    tenant_id: TenantId
    grants: tuple[Grant, ...]
    generation: int = 0


class Visibility(StrEnum):
    """Who may read a model besides its owner and the tenants named by grants."""

    PRIVATE = "private"
    PUBLIC = "public"


class ModelRule(msgspec.Struct, frozen=True, kw_only=True):
    """The owner, visibility and groups set for one pattern; None where nothing is set."""

    pattern: Pattern
    owner: TenantId | None = None
    visibility: Visibility | None = None
    groups: tuple[GroupName, ...] = ()
    generation: int = 0
    source: str = SOURCE_CLI


class Alias(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Another name of a model. It grants nothing by itself: the canonical id is authorised as well."""

    alias: ModelId
    canonical: ModelId
    generation: int = 0
    source: str = SOURCE_CLI


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """The Cedar texts in force, last written by `policy apply`. `digest` names the set in audit records."""

    schema: str
    policies: tuple[tuple[str, str], ...]  # (file name, Cedar text), sorted by file name
    digest: str
    generation: int = 0
    source: str = SOURCE_CLI

    @property
    def held_bytes(self) -> int:
        """The bytes of its texts."""
        return len(self.schema) + sum(len(text) + _TEXT_BYTES for _, text in self.policies)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The owner, visibility and groups of a model: the result of all rules on the patterns that cover it.

    The most specific rule wins. The owner comes from the most specific rule that names one; the visibility
    from the most specific rule that names one, but never from one broader than the owner's: giving
    `acme/x` to another tenant does not publish it, whatever `acme/*` says.
    """

    owner: TenantId | None
    visibility: Visibility
    groups: frozenset[GroupName]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `decide` needs to know about one caller and one model, read beforehand.

    `model` is the canonical id. `requested` is what the client wrote; when it is an alias, both
    are authorised. `unreadable` names the records that did not parse: any of them denies.

    `ruling` is the platform's answer about a key of its own, while it is in force; where there is none in
    force, `is_confirmed` is false, and the platform has to be asked before the verdict counts.
    """

    grants: tuple[Grant, ...]
    requested: ModelId | None
    model: ModelId | None
    requested_standing: Standing | None
    model_standing: Standing | None
    policy: PolicySet
    stamp: Stamp
    unreadable: tuple[str, ...] = ()
    ruling: Ruling | None = None
    is_confirmed: bool = True
