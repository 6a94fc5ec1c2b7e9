"""Facts: the records that the directory holds about tenants, keys, grants and models.

Facts are data that operators change at any time; rules (Cedar) say what follows from them. Each
fact is one small record in Redis with the generation of its last change and the source that wrote
it; a class states its fields in the order in which they are stored (`records.py`). Only
`directory/records/codec.py` encodes and decodes them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.names import FileHandle, GroupName, KeyId, Md5, ModelId, PackageId, Pattern, TenantId
from gateway.model.periods import PeriodState, state_at
from gateway.model.records import SOURCE_CLI, Record, Text, Time
from gateway.model.tenant_records import TenantRecordId

if TYPE_CHECKING:
    from gateway.model.rulings import Ruling
    from gateway.model.stamps import Stamp

FOLDER_SOURCE = "policies:"
"""The source of facts from the policy folder begins so; the tenant of the document follows."""

MAX_ATTESTED = 20_000  # digests of one model: a record of 320 kB, and more files than any model has
_TEXT_BYTES = 400  # of a policy's text beside its characters: its name and the object headers


class Scope(StrEnum):
    """What a key may be used for at most; the rules decide for which models."""

    DISCOVER = "discover"
    READ = "read"
    INFER = "infer"
    AUDIT_READ = "audit:read"
    KEYS_MANAGE = "keys:manage"
    TOKENS_INTROSPECT = "tokens:introspect"
    DECISIONS_ASK = "decisions:ask"


MAX_DEGRADED_SECONDS = 3600.0
"""How long a tenant may be served last known facts: a revocation is not certain before that has passed."""

DEFAULT_SCOPES = frozenset({Scope.DISCOVER, Scope.READ, Scope.INFER})


class KeyKind(StrEnum):
    """Tenant keys read content; admin keys administer and read none."""

    TENANT = "tenant"
    ADMIN = "admin"


class KeyLife(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What became of a key since it was made, and whether it is a decoy. Most keys have the default."""

    disabled_at: Time | None = None  # until it is enabled again, it is refused like a revoked one
    revoked_for: str = ""  # why it was revoked, in the operator's words
    replaces: KeyId | None = None  # the key that this one was rotated from
    replaced_by: KeyId | None = None  # the key that it was rotated to
    is_decoy: bool = False  # nobody was given it: it opens nothing, and each use of it is an alarm


UNCHANGED = KeyLife()
"""The life of a key to which nothing has happened."""


class Role(StrEnum):
    """What an administering key is for. The rules say what each role may do, `roles.py` what it hands out."""

    OWNER = "owner"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    TENANT_ADMIN = "tenant-admin"


class Key(Record, frozen=True, kw_only=True, tag=1):
    """One API key, without its secret: the record is found by a keyed hash of the key.

    A record has the id without its common prefix, scopes and role as bits, and a part of the digest at its
    end. `set_role` is None for the keys of owners, who administered before there were roles, and for keys of
    tenants that administer nothing.
    """

    source: Text = SOURCE_CLI
    key_id: KeyId
    tenant: TenantId | None  # None: an admin key
    tenant_record: TenantRecordId | None = None  # stored with the tenant
    name: str
    scopes: frozenset[Scope]
    networks: tuple[str, ...]
    created_at: Time
    not_before: Time | None = None
    expires_at: Time | None = None
    revoked_at: Time | None = None
    pepper_id: Text
    life: KeyLife = UNCHANGED  # a layout of its own
    set_role: Role | None = None  # last: it stands among the bits of the scopes

    @property
    def role(self) -> Role | None:
        """The role by which it administers; None where it administers nothing."""
        return Role.OWNER if self.tenant is None and self.set_role is None else self.set_role

    @property
    def kind(self) -> KeyKind:
        """A tenant key names a tenant, an admin key none."""
        return KeyKind.ADMIN if self.tenant is None else KeyKind.TENANT

    @property
    def is_ended(self) -> bool:
        """Whether it is refused at any time and from anywhere, whatever its tenant's state is."""
        return self.revoked_at is not None or self.life.disabled_at is not None or self.life.is_decoy

    def is_over(self, now: float) -> bool:
        """Whether it has ended for good: it was revoked, or its expiry has passed."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now)


class Tenant(Record, frozen=True, kw_only=True, tag=2, rename={"tenant_id": "tenant"}, gc=False):
    """A tenant: the owner of keys, to whom rights may be given."""

    source: Text = SOURCE_CLI
    tenant_id: TenantId
    name: str
    is_suspended: bool
    created_at: Time
    degraded_seconds: float = 0.0  # 0 is `closed`; else `last-known-good` for so long after a lost lease
    image_hosts: tuple[str, ...] = ()  # whose images the front door fetches for it; a layout of its own
    allows: tuple[str, ...] = ()  # what its workflows may do, of `ALLOWABLE`, sorted; a layout of its own
    record_id: TenantRecordId | None = None  # None: made by a release before these ids; a layout of its own
    removal: Text | None = None  # the removal, or restoration, that is under way; in the same layout


class Grant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Rights of one tenant on models it does not own: patterns and groups, perhaps limited to packages."""

    grant_id: Text
    actions: frozenset[str]
    models: tuple[Pattern, ...] = ()
    groups: tuple[GroupName, ...] = ()
    packages: tuple[PackageId, ...] = ()
    source: Text = SOURCE_CLI
    not_before: Time | None = None  # this and the expiry stand in a layout of their own
    expires_at: Time | None = None

    @property
    def has_times(self) -> bool:
        """Whether it begins or ends."""
        return self.not_before is not None or self.expires_at is not None

    def state_at(self, now: float, latest: float | None = None) -> PeriodState:
        """Whether it is in force at this time."""
        return state_at(self.not_before, self.expires_at, now, latest)


class Grants(Record, frozen=True, kw_only=True, tag=3, rename={"tenant_id": "tenant"}):
    """All grants of one tenant in one record: they are needed together and change together."""

    tenant_id: TenantId
    tenant_record: TenantRecordId | None = None  # stored with the tenant
    grants: tuple[Grant, ...]

    @property
    def has_times(self) -> bool:
        """Whether one of them begins or ends."""
        return any(grant.has_times for grant in self.grants)


class Visibility(StrEnum):
    """Who may read a model besides its owner and the tenants named by grants."""

    PRIVATE = "private"
    PUBLIC = "public"


class ModelRule(Record, frozen=True, kw_only=True, tag=4):
    """The owner, visibility and groups set for one pattern; None where nothing is set.

    A publication may begin and end. Outside its period the pattern is private, whatever a broader rule says.
    """

    source: Text = SOURCE_CLI
    pattern: Pattern
    owner: TenantId | None = None
    owner_record: TenantRecordId | None = None  # stored with the owner
    visibility: Visibility | None = None
    groups: tuple[GroupName, ...] = ()
    not_before: Time | None = None  # of the publication; this and the expiry stand in a layout of their own
    expires_at: Time | None = None

    @property
    def has_times(self) -> bool:
        """Whether its publication begins or ends."""
        return self.not_before is not None or self.expires_at is not None

    def state_at(self, now: float, latest: float | None = None) -> PeriodState:
        """Whether its publication is in force at this time."""
        return state_at(self.not_before, self.expires_at, now, latest)

    def shown_at(self, now: float, latest: float | None = None) -> Visibility | None:
        """The visibility at this time."""
        if self.has_times and self.state_at(now, latest) is not PeriodState.IN_FORCE:
            return Visibility.PRIVATE
        return self.visibility


class Alias(Record, frozen=True, kw_only=True, tag=5, gc=False):
    """Another name of a model. It grants nothing by itself: the canonical id is authorised as well."""

    source: Text = SOURCE_CLI
    alias: ModelId
    canonical: ModelId


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """The Cedar texts in force, last written by `policy apply`. `digest` names the set in audit records.

    It is stored as two records (`directory/records/policies.py`).
    """

    digest: str
    source: str = SOURCE_CLI
    schema: str
    policies: tuple[tuple[str, str], ...]  # (file name, Cedar text), sorted by file name
    generation: int = 0

    @property
    def held_bytes(self) -> int:
        """The bytes of its texts."""
        return len(self.schema) + sum(len(text) + _TEXT_BYTES for _, text in self.policies)


class Origin(Record, frozen=True, kw_only=True, tag=11, gc=False):
    """Whose URL was given out for a file without a digest: ours, or the provider's.

    The engine keeps the URL as the identity of the content and refuses the package permanently when it
    changes, so the first answer is binding.
    """

    source: Text = SOURCE_CLI
    model: ModelId
    package: PackageId
    handle: FileHandle
    is_ours: bool


class Attestation(Record, frozen=True, kw_only=True, tag=12):
    """The digests of files that the provider, or an operator, stated that a model has.

    Where links across owners count only if attested, it is what permits the link (I2). A record has the
    digests as raw bytes, sorted and concatenated.
    """

    source: Text = SOURCE_CLI
    model: ModelId
    digests: frozenset[Md5]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The owner, visibility and groups of a model: the result of all rules on the patterns that cover it.

    The most specific rule wins. The owner comes from the most specific rule that names one; the visibility
    from the most specific rule that names one, but never from one broader than the owner's: giving
    `acme/x` to another tenant does not publish it, whatever `acme/*` says.
    """

    owner: TenantId | None
    owner_record: TenantRecordId | None = None
    visibility: Visibility
    groups: frozenset[GroupName]
    lapsed: PeriodState | None = None  # why it is not public, where a publication has not begun or has ended


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
    ended: tuple[Grant, ...] = ()  # grants of the caller that give nothing any more, and are named in records
    ahead: tuple[Grant, ...] = ()  # grants that have not begun
    unreadable: tuple[str, ...] = ()
    ruling: Ruling | None = None
    is_confirmed: bool = True
