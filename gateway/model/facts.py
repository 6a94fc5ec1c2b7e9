"""Facts: what the directory knows about tenants, keys, grants and models.

Facts are data that operators change at any moment; rules (Cedar) say what follows from them. Each
fact is one small record in Redis with the generation of its last change and the source that wrote
it. `directory/records.py` is the one place that turns them into bytes and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.names import GroupName, KeyId, ModelId, PackageId, Pattern, TenantId
    from gateway.model.rulings import Ruling

SOURCE_CLI = "cli"
"""The source of facts that an operator wrote by command. Folders write `policies:<tenant>`."""


_TEXT_BYTES = 400  # of a policy's text beside its characters: its name, their headers, its place


class Scope(StrEnum):
    """What a key may be used for, at most; the rules then say for which models."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    AUDIT_READ = "audit:read"
    KEYS_MANAGE = "keys:manage"


MAX_DEGRADED_SECONDS = 3600.0
"""How long a tenant may be served on what was last known: a revocation is not sure before that is over."""

DEFAULT_SCOPES = frozenset({Scope.DISCOVER, Scope.READ, Scope.INFER})


class KeyKind(StrEnum):
    """Tenant keys read content; admin keys administer and read none."""

    TENANT = "tenant"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One API key, without the key: the record is found by a keyed hash of it."""

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
        """A tenant key belongs to a tenant and an admin key to none."""
        if (self.kind is KeyKind.TENANT) != (self.tenant is not None):
            raise ValueError("a tenant key names a tenant, an admin key names none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Somebody whose keys may be given rights."""

    tenant_id: TenantId
    name: str
    is_suspended: bool
    created_at: float
    degraded_seconds: float = 0.0  # 0 is `closed`; else `last-known-good` for so long after a lost lease
    generation: int = 0
    source: str = SOURCE_CLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Rights of one tenant on models it does not own: patterns and groups, narrowed to packages or not."""

    grant_id: str
    actions: frozenset[str]
    models: tuple[Pattern, ...] = ()
    groups: tuple[GroupName, ...] = ()
    packages: tuple[PackageId, ...] = ()
    source: str = SOURCE_CLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """All grants of one tenant, one record: they are needed together and change together."""

    tenant_id: TenantId
    grants: tuple[Grant, ...]
    generation: int = 0


class Visibility(StrEnum):
    """Who may read a model besides its owner and those a grant names."""

    PRIVATE = "private"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRule:
    """What is said about one pattern: its owner, visibility and groups; None where nothing is said."""

    pattern: Pattern
    owner: TenantId | None = None
    visibility: Visibility | None = None
    groups: tuple[GroupName, ...] = ()
    generation: int = 0
    source: str = SOURCE_CLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Another name of a model. It opens nothing by itself: the canonical id is authorised as well."""

    alias: ModelId
    canonical: ModelId
    generation: int = 0
    source: str = SOURCE_CLI


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The Cedar texts in force: what `policy apply` wrote last. `digest` names the set in audit records."""

    schema: str
    policies: tuple[tuple[str, str], ...]  # (file name, Cedar text), sorted by file name
    digest: str
    generation: int = 0
    source: str = SOURCE_CLI

    @property
    def held_bytes(self) -> int:
        """What its texts take."""
        return len(self.schema) + sum(len(text) + _TEXT_BYTES for _, text in self.policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a model stands: the outcome of all rules on the patterns that cover it.

    Most specific wins. The owner comes from the most specific rule that names one; the visibility
    from the most specific rule that names one, but never from one broader than the owner's: who
    gives `acme/x` to another tenant has not thereby published it, whatever `acme/*` says.
    """

    owner: TenantId | None
    visibility: Visibility
    groups: frozenset[GroupName]


LEAF_BYTES = 180  # a leaf, and the headers of its two byte strings: measured, rounded up


class Account:
    """The sum of what the leaves of one memory hold."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


class Leaf:
    """One record as it was read, or its absence: a thing that an answer stands on.

    `is_current` turns false, for good, the moment the record is known to have changed, or can no
    longer be known not to have. Whoever turns it is the near cache; everybody else looks.

    The fact in it is decoded once, for all who read this leaf, and is charged to whoever holds it: a fact
    may be many times as large as its record.
    """

    __slots__ = ("account", "decoded", "held_bytes", "is_current", "name", "value")

    def __init__(self, name: bytes, value: bytes | None, *, is_current: bool = True) -> None:
        self.name = name
        self.value = value
        self.is_current = is_current
        self.decoded: object = None
        self.held_bytes = LEAF_BYTES + len(name) + (len(value) if value is not None else 0)
        self.account: Account | None = None  # of the memory that holds it, while it does

    def keep(self, decoded: object, held_bytes: int) -> None:
        """Keep the fact that its record decodes to, which holds so many bytes."""
        self.decoded = decoded
        self.held_bytes += held_bytes
        if self.account is not None:
            self.account.held_bytes += held_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """What an answer stands on: all that was read for it, absent records too.

    `generation` is the global one up to which every change had been applied when it was read.
    """

    generation: int
    leaves: tuple[Leaf, ...]

    @property
    def is_current(self) -> bool:
        """Whether nothing of it has changed since it was read."""
        for leaf in self.leaves:  # a plain loop: this is the last check before every first byte  # noqa: SIM110
            if not leaf.is_current:
                return False
        return True

    def joined(self, other: Stamp) -> Stamp:
        """Both together; the older generation."""
        return Stamp(min(self.generation, other.generation), self.leaves + other.leaves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything `decide` needs to know about one caller and one model, brought beforehand.

    `model` is the canonical id. `requested` is what the client wrote; when it is an alias, both
    are authorised. `unreadable` names the records that did not parse: any of them denies.

    `ruling` is what the platform says of a key of its own, while that is in force; where it is not,
    `is_settled` is false, and the platform has to be asked before the answer counts.
    """

    grants: tuple[Grant, ...]
    requested: ModelId | None
    model: ModelId | None
    requested_standing: Standing | None
    model_standing: Standing | None
    policy: PolicySet
    stamp: Stamp
    unreadable: tuple[str, ...] = field(default=())
    ruling: Ruling | None = None
    is_settled: bool = True
