"""What the admin API reads and answers: Structs, from which its OpenAPI document is made as well.

What is read refuses fields that it does not know. Its constraints are those of the names (`model/names.py`),
written as JSON Schema knows them; the names are parsed once more where they are used. What is answered has
all its fields each time.

In a change (PATCH, RFC 7396) a field that is left out stays, and `null` takes it away.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.identity.new_keys import KeyState
from gateway.model.facts import KeyKind, Role, Scope, Visibility
from gateway.model.key_changes import MAX_REASON_CHARACTERS
from gateway.model.periods import PeriodState
from gateway.operations.keys.found import FoundKind
from gateway.operations.listings import KeyFilter

MAX_LISTED = 1_000  # names in one body
MAX_TARGETS = 200  # models or groups in one: each is compared with all grants of a tenant
PLACE = "^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?:[0-9A-Za-z_~]{0,64}$"  # in a list of several tenants
MAX_FOUND = 200  # tokens of one request: each that is ours is a change of its own
DEFAULT_PAGE = 100
MAX_PAGE = 1_000
_LAST_SECOND = 253_402_300_799.0  # of the year 9999, which a date can still say

TenantName = Annotated[
    str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="A tenant's id.", examples=["acme"])
]
GroupText = Annotated[
    str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="A group of models.")
]
KeyText = Annotated[str, Meta(pattern="^key_[0-9A-Za-z]{12}$", description="A key's id; never the key.")]
ModelText = Annotated[
    str, Meta(min_length=1, max_length=512, description="A model id.", examples=["acme/cars/1"])
]
PatternText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description="A model id, or prefix/* for all below it.",
        examples=["acme/*"],
    ),
]
PackageText = Annotated[str, Meta(pattern="^[A-Za-z0-9]{1,255}$", description="A package id.")]
Md5Text = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="A blob's name.")]
PeopleName = Annotated[str, Meta(max_length=100, description="A name for people.")]
Network = Annotated[str, Meta(min_length=2, max_length=64, description="CIDR.", examples=["10.0.0.0/8"])]
Moment = Annotated[datetime, Meta(tz=True, description="With its zone.")]
GrantAction = Literal["discover", "read", "infer"]
WorkflowAction = Literal[
    "external-request",
    "storage-read",
    "storage-write",
    "environment-read",
    "custom-python",
    "cache-read",
    "cache-write",
]


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered."""


def moment(seconds: float | None, *, is_whole: bool = True) -> datetime | None:
    """A time for an answer, to the second unless that is not `is_whole`."""
    if seconds is None:
        return None
    bounded = min(max(seconds, 0.0), _LAST_SECOND)
    return datetime.fromtimestamp(int(bounded) if is_whole else bounded, UTC)


# Queries


class NoQuery(Given, frozen=True, kw_only=True):
    """No parameter."""


class Waiting(Given, frozen=True, kw_only=True):
    """Of a change: whether to wait until every worker has applied it."""

    wait: bool = True


class Forcing(Waiting, frozen=True, kw_only=True):
    """Of a change of what the policy folder may say: whether it is made all the same, as by `--force`."""

    force: bool = False


class Paged(Given, frozen=True, kw_only=True):
    """A page of a list: at most `limit` after this one."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    after: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None


class PagedOfOwners(Paged, frozen=True, kw_only=True):
    """A page of what several tenants have: the place in it is of a form of its own."""

    after: Annotated[str, Meta(pattern=PLACE)] | None = None


class PagedBindings(Paged, frozen=True, kw_only=True):
    """A page of bindings: of a tenant, of an issuer, or of all."""

    tenant: TenantName | None = None
    issuer: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class PagedOfTenant(PagedOfOwners, frozen=True, kw_only=True):
    """A page of what a tenant has; without it, of all tenants."""

    tenant: TenantName | None = None


class OwnPagedKeys(PagedOfOwners, frozen=True, kw_only=True):
    """A page of keys, of those in one state."""

    state: KeyFilter | UnsetType = UNSET


class PagedKeys(PagedOfTenant, frozen=True, kw_only=True):
    """A page of keys. `admin`: of the keys of no tenant."""

    admin: bool = False
    state: KeyFilter | UnsetType = UNSET


class OwnReportQuery(Given, frozen=True, kw_only=True):
    """What a report calls soon, of ends, and new, of networks."""

    soon_days: Annotated[float, Meta(ge=0, le=3660)] = 14.0
    new_days: Annotated[float, Meta(ge=0, le=3660)] = 30.0


class ReportQuery(OwnReportQuery, frozen=True, kw_only=True):
    """The same, of the keys of one tenant, or of all."""

    tenant: TenantName | None = None


class AliasQuery(Forcing, frozen=True, kw_only=True):
    """The alias that is meant."""

    alias: ModelText


class RotationsQuery(Given, frozen=True, kw_only=True):
    """The rotations of one tenant, or of all."""

    tenant: TenantName | None = None


class ModelQuery(Given, frozen=True, kw_only=True):
    """The model that is meant, by its id or an alias."""

    model: ModelText


class ReadersQuery(Given, frozen=True, kw_only=True):
    """Who can read this: a model, or a blob through all models that link it."""

    model: ModelText | None = None
    blob: Md5Text | None = None


# Tenants


class TenantNew(Given, frozen=True, kw_only=True):
    """A new tenant."""

    id: TenantName
    name: PeopleName = ""


class TenantPatch(Given, frozen=True, kw_only=True):
    """What changes of a tenant; null: as a new one has it."""

    degraded_seconds: Annotated[float, Meta(ge=0, le=3600)] | UnsetType | None = UNSET
    image_hosts: Annotated[list[str], Meta(max_length=64)] | UnsetType | None = UNSET
    allows: Annotated[list[WorkflowAction], Meta(max_length=16)] | UnsetType | None = UNSET
    allow: (
        Annotated[list[WorkflowAction], Meta(min_length=1, max_length=16, description="These as well.")]
        | UnsetType
    ) = UNSET
    disallow: (
        Annotated[list[WorkflowAction], Meta(min_length=1, max_length=16, description="These no longer.")]
        | UnsetType
    ) = UNSET


class Tenant(Told, frozen=True, kw_only=True):
    """A tenant. `record` tells it from another tenant that has had its name."""

    id: str
    record: str | None
    name: str
    suspended: bool
    being_removed: bool
    degraded_seconds: float
    image_hosts: tuple[str, ...]
    allows: tuple[str, ...]
    created_at: datetime | None
    source: str
    generation: int


class Barrier(Told, frozen=True, kw_only=True):
    """How a change came into force, as commands tell it. `held_by`: servers of the facts that have it."""

    workers: int
    acknowledged: int
    milliseconds: float
    sure: bool
    sure_in_seconds: float | None
    held_by: int
    servers: int
    why: str


class RemovalQuery(Given, frozen=True, kw_only=True):
    """Whether a removal is to be done, or only shown; and for how long it can be restored."""

    dry_run: bool = False
    restorable_days: Annotated[float, Meta(ge=0, le=90)] = 7.0


class Restoration(Given, frozen=True, kw_only=True):
    """Which removal is taken back, where there were several."""

    removal: Annotated[str, Meta(pattern="^rem_[0-9a-f]{1,64}$")] | None = None


class LostGrants(Told, frozen=True, kw_only=True):
    """What another tenant loses."""

    tenant: str
    grants: list[str]


class OnDisk(Told, frozen=True, kw_only=True):
    """What is left on disk of one model. Shared blobs are linked by models of others, too."""

    model: str
    packages: int
    files: int
    bytes: int
    shared_bytes: int


class RemovalPlan(Told, frozen=True, kw_only=True):
    """What removing a tenant takes, and what it leaves. `in_the_way`: what the policy folder says of it."""

    tenant: str
    record_id: str | None
    name: str
    is_resumed: bool
    keys: int
    bindings: int
    grants: list[str]
    grants_of_others: list[LostGrants]
    patterns: list[str]
    aliases: list[str]
    groups: list[str]
    allows: list[str]
    wider_grants: list[str]
    servers: list[str]
    on_disk: list[OnDisk]
    bytes_on_disk: int
    restorable_seconds: float
    in_the_way: list[str]


class RemovalDone(Told, frozen=True, kw_only=True):
    """A removal that is done: how much was taken. `kept_closed`: patterns that a broader one would open."""

    removal_id: str
    keys: int
    bindings: int
    grants: int
    grants_of_others: int
    patterns: int
    kept_closed: list[str]
    aliases: int
    restorable_until: str


class TenantRemoved(Told, frozen=True, kw_only=True):
    """What a removal takes and, unless it was only asked about, that it is done."""

    id: str
    changed: bool
    generation: int | None
    sure: bool
    sure_at: datetime | None
    messages: list[str]
    barrier: Barrier | None
    plan: RemovalPlan
    done: RemovalDone | None


class TenantRestored(Told, frozen=True, kw_only=True):
    """A tenant that is back. Its keys and bindings stay revoked; `left` was not given back."""

    id: str
    changed: bool
    generation: int
    sure: bool
    sure_at: datetime | None
    messages: list[str]
    barrier: Barrier | None
    record: str | None
    removal_id: str
    facts: int
    left: list[str]
    keys: int
    bindings: int


class RemovedTenant(Told, frozen=True, kw_only=True):
    """A removal. `restorable_until` null: it cannot be restored any more."""

    tenant: str
    removal_id: str
    record_id: str | None
    stage: str
    started_at: str
    ended_at: str | None
    restorable_until: str | None
    keys: int
    bindings: int


# Keys


class OwnKeyNew(Given, frozen=True, kw_only=True):
    """A new key of one's own tenant."""

    name: PeopleName = ""
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=16)] | None = None
    networks: Annotated[list[Network], Meta(max_length=64)] = []
    not_before: Moment | None = None
    expires_at: Moment | None = None
    decoy: Annotated[bool, Meta(description="For nobody: it opens nothing, any use is an alarm.")] = False


class KeyNew(OwnKeyNew, frozen=True, kw_only=True):
    """A new key. Without a tenant it administers; `sha256`: that of a key of another system."""

    tenant: TenantName | None = None
    role: Role | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class KeyPatch(Given, frozen=True, kw_only=True):
    """What changes of a key; null: as a new one has it, and without an end."""

    name: PeopleName | UnsetType | None = UNSET
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=16)] | UnsetType | None = UNSET
    networks: Annotated[list[Network], Meta(max_length=64)] | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class KeyRevocation(Given, frozen=True, kw_only=True):
    """Why a key is revoked, for its record and the audit log."""

    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARACTERS)] = ""


class ScannedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A found token as secret scanners send it; what else they say of it is not read."""

    token: Annotated[str, Meta(max_length=8_192)]


class FoundTokens(KeyRevocation, frozen=True, kw_only=True):
    """Tokens that were found where they should not be. They are compared, and told to nobody."""

    tokens: Annotated[
        list[Annotated[str, Meta(max_length=8_192)] | ScannedToken], Meta(min_length=1, max_length=MAX_FOUND)
    ]
    dry_run: bool = False


class KeyRotation(Given, frozen=True, kw_only=True):
    """How long both keys are valid, and when the new one ends, if not when the old one did."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=2_592_000)] = 0.0
    expires_at: Moment | None = None


class Key(Told, frozen=True, kw_only=True):
    """A key, without the key."""

    id: str
    kind: KeyKind
    tenant: str | None
    tenant_record: str | None
    name: str
    state: KeyState
    role: Role | None
    scopes: list[Scope]
    networks: tuple[str, ...]
    created_at: datetime | None
    not_before: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_for: str | None
    disabled_at: datetime | None
    replaces: str | None
    replaced_by: str | None
    last_used_at: datetime | None
    last_used_network: str | None
    pepper: str | None  # the id of the one under which it is stored; on the tenants' own routes null
    source: str
    generation: int


class FoundOne(Given, frozen=True, kw_only=True):
    """A token that was found. It is compared, and told to nobody."""

    token: Annotated[str, Meta(min_length=1, max_length=8_192)]


class Rotation(Told, frozen=True, kw_only=True):
    """A rotation whose overlap is not over: both keys are valid until `ends_at`."""

    old: str
    new: str
    tenant: str | None
    ends_at: str | None
    old_last_used_at: str | None
    new_last_used_at: str | None


class Rotations(Told, frozen=True, kw_only=True):
    """All rotations under way, the first to end first."""

    items: list[Rotation]


class ReportedKey(Told, frozen=True, kw_only=True):
    """A key in a report. `new_networks`: since when it is used from each."""

    key_id: str
    tenant: str | None
    name: str
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    last_used_network: str | None
    new_networks: dict[str, str]


class KeyReport(Told, frozen=True, kw_only=True):
    """Keys to look at. The counts are complete; of each concern the first thousand keys are listed."""

    as_of: str
    soon_days: float
    new_days: float
    counts: dict[str, int]
    keys: dict[str, list[ReportedKey]]


# Grants


class GrantNew(Given, frozen=True, kw_only=True):
    """A right of a tenant on a pattern or a group that is not its own; or one on each of several."""

    tenant: TenantName
    model: PatternText | None = None
    group: GroupText | None = None
    models: Annotated[list[PatternText], Meta(max_length=MAX_TARGETS)] = []
    groups: Annotated[list[GroupText], Meta(max_length=MAX_TARGETS)] = []
    packages: Annotated[list[PackageText], Meta(max_length=MAX_LISTED)] = []
    actions: Annotated[tuple[GrantAction, ...], Meta(min_length=1, max_length=3)] = ("read",)
    not_before: Moment | None = None
    expires_at: Moment | None = None


class GrantsNamed(Given, frozen=True, kw_only=True):
    """Rights of a tenant by what they are on; without packages or actions: with any."""

    tenant: TenantName
    models: Annotated[list[PatternText], Meta(max_length=MAX_TARGETS)] = []
    groups: Annotated[list[GroupText], Meta(max_length=MAX_TARGETS)] = []
    packages: Annotated[list[PackageText], Meta(max_length=MAX_LISTED)] = []
    actions: Annotated[tuple[GrantAction, ...], Meta(max_length=3)] = ()


class Grant(Told, frozen=True, kw_only=True):
    """A grant. Its generation is that of all grants of its tenant, which are one record."""

    id: str
    tenant: str
    grant_id: str
    models: tuple[str, ...]
    groups: tuple[str, ...]
    packages: tuple[str, ...]
    actions: list[str]
    state: PeriodState
    not_before: datetime | None
    expires_at: datetime | None
    source: str
    generation: int


# Models


class ModelRuleNew(Given, frozen=True, kw_only=True):
    """What is said of a pattern: its owner, who may read it, or both. The times are of its publication."""

    pattern: PatternText
    owner: TenantName | None = None
    visibility: Visibility | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None


class ModelRulePatch(Given, frozen=True, kw_only=True):
    """What changes of it; null takes it away. The times are of its publication."""

    owner: TenantName | UnsetType | None = UNSET
    visibility: Visibility | UnsetType | None = UNSET
    not_before: Moment | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class Patterns(Given, frozen=True, kw_only=True):
    """Patterns that all get, or lose, the same."""

    patterns: Annotated[list[PatternText], Meta(min_length=1, max_length=MAX_LISTED)]


class OwnedPatterns(Patterns, frozen=True, kw_only=True):
    """Patterns, and whose they are to be, or no longer."""

    tenant: TenantName


class PublishedPatterns(Patterns, frozen=True, kw_only=True):
    """Patterns that every tenant may read, perhaps for a time; before and after it they are private."""

    not_before: Moment | None = None
    expires_at: Moment | None = None


class OwnershipMove(Given, frozen=True, kw_only=True):
    """Ownership from one tenant to another: of these patterns, or without any of all."""

    from_tenant: TenantName
    to_tenant: TenantName
    patterns: Annotated[list[PatternText], Meta(max_length=MAX_LISTED)] = []


class ModelRule(Told, frozen=True, kw_only=True):
    """What is said of a pattern. `owner_record` tells its owner from another tenant that has had its name.

    `owner_exists` false: its owner was removed. State and times are those of its publication.
    """

    id: str
    pattern: str
    owner: str | None
    owner_record: str | None
    owner_exists: bool
    visibility: Visibility | None
    groups: tuple[str, ...]
    state: PeriodState
    not_before: datetime | None
    expires_at: datetime | None
    source: str
    generation: int


class ModelOnDisk(Told, frozen=True, kw_only=True):
    """A model on disk, and whose it is."""

    model: str
    owner: str | None
    visibility: Visibility
    packages: list[str]


class NotServed(Told, frozen=True, kw_only=True):
    """Something in the cache that is not served, and why."""

    where: str
    why: str


class ModelsPage(Told, frozen=True, kw_only=True):
    """A page of the models on disk, as the last scan found them. `skipped`: the first thousand."""

    items: list[ModelOnDisk]
    after: str | None
    cache_root: str
    problem: str | None
    skipped: list[NotServed]


class ReaderBy(Told, frozen=True, kw_only=True):
    """Who may read a model, and by what."""

    tenant: str
    how: str


class ModelFile(Told, frozen=True, kw_only=True):
    """A file of a package."""

    file: str
    size: int
    md5: str | None


class ModelPackage(Told, frozen=True, kw_only=True):
    """A package on disk."""

    package: str
    files: list[ModelFile]


class Model(Told, frozen=True, kw_only=True):
    """One model, by any of its names. `nearest` is a name that may have been meant, where none is known."""

    asked: str
    model: str
    known: bool
    nearest: str | None
    owner: str | None
    visibility: Visibility
    groups: list[str]
    readers: list[ReaderBy]
    directory: str
    packages: list[ModelPackage]


class AliasNew(Given, frozen=True, kw_only=True):
    """Another name of a model."""

    alias: ModelText
    model: ModelText


class Alias(Told, frozen=True, kw_only=True):
    """Another name of a model."""

    alias: str
    model: str
    source: str
    generation: int


class GroupPatterns(Given, frozen=True, kw_only=True):
    """Patterns to be put into a group, or taken out of it."""

    patterns: Annotated[list[PatternText], Meta(min_length=1, max_length=MAX_LISTED)]


class Group(Told, frozen=True, kw_only=True):
    """A group: the patterns that name it."""

    id: str
    patterns: list[str]


# Rules


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of rules."""

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.cedar$")]
    text: str


class PolicyNew(Given, frozen=True, kw_only=True):
    """The rules, all of them: the schema and the files."""

    schema: str
    policies: Annotated[list[PolicyFile], Meta(min_length=1, max_length=256)]


class Policy(Told, frozen=True, kw_only=True):
    """The rules in force. The digest is their ETag."""

    digest: str
    schema: str
    policies: list[PolicyFile]
    source: str
    generation: int


class FolderFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document of a policy folder."""

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.toml$")]
    text: str


class FolderNew(PolicyNew, frozen=True, kw_only=True):
    """A policy folder: the rules, the documents of tenants and issuers, and the cases in `tests`.

    The tenants are always named: taken for none where they were forgotten, all that documents ever said of
    tenants would be removed.
    """

    tenants: Annotated[list[FolderFile], Meta(max_length=MAX_LISTED)]
    issuers: Annotated[list[FolderFile], Meta(max_length=64)] = []
    tests: Annotated[list[FolderFile], Meta(max_length=256)] = []


class FolderToApply(FolderNew, frozen=True, kw_only=True):
    """The same, to be applied if it changes what was shown: `confirmed` is the digest of that plan."""

    confirmed: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class RulePlace(Told, frozen=True, kw_only=True):
    """One rule of a set: its id, its effect, where it starts."""

    id: str
    effect: str
    file: str
    line: int


class RuleNow(RulePlace, frozen=True, kw_only=True):
    """A rule whose text has changed, and where it was."""

    was: RulePlace


class RulesDiffer(Told, frozen=True, kw_only=True):
    """How two sets of rules differ. `compared` false: the one in force cannot be read."""

    new: list[RulePlace]
    gone: list[RulePlace]
    changed: list[RuleNow]
    schema_changed: bool
    compared: bool


class FolderPlan(Told, frozen=True, kw_only=True):
    """What applying a folder would change. `digest` is what confirms it."""

    changes: list[str]
    conflicts: list[str]
    rules: RulesDiffer | None
    digest: str


# The rest


class Quarantined(Told, frozen=True, kw_only=True):
    """A blob that is not served, and why."""

    md5: str
    cause: str | None
    since: datetime | None
    pinned_sha256: str | None
    found_sha256: str | None
    size: int
    generation: int


class Release(Given, frozen=True, kw_only=True):
    """How a blob is released; `forget`: its pin as well, so that what is there now is trusted."""

    forget: bool = False


class Issuer(Told, frozen=True, kw_only=True):
    """An outside issuer. Its document in the policy folder says all this, and is where it is changed."""

    id: str
    url: str
    audience: str
    key_set_url: str
    rules: list[str]
    bindings: int
    generation: int


class Binding(Told, frozen=True, kw_only=True):
    """A subject of an outside issuer that acts for a tenant.

    `rules` are those in force by which it came, `rules_gone` those that are no more; scopes and networks are
    of all rules together.
    """

    id: str
    issuer: str | None
    issuer_url: str
    subject: str
    tenant: str
    tenant_record: str | None
    state: str
    rules: list[str]
    rules_gone: list[str]
    scopes: list[str]
    networks: list[str]
    first_seen_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    generation: int


class Question(Given, frozen=True, kw_only=True):
    """Whether this key may do this with that."""

    key_id: Annotated[
        str,
        Meta(pattern="^(key|bnd)_[0-9A-Za-z]{12}$", description="A key's id or a binding's; never the key."),
    ]
    model: ModelText | None = None
    package: PackageText | None = None
    file: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    action: Literal["discover", "read", "infer"] | WorkflowAction = "read"
    address: Annotated[str, Meta(max_length=64)] | None = None


class Explained(Told, frozen=True, kw_only=True):
    """The answer, and all that it stands on, as `cachegate explain` tells it: to scripts, and in `rows`."""

    served: bool
    explanation: dict[str, Any]
    rows: list[list[str]]


class ReaderOf(Told, frozen=True, kw_only=True):
    """Who can read it, along which right."""

    model: str
    tenant: str | None  # null: every tenant
    right: str


class Readers(Told, frozen=True, kw_only=True):
    """Everybody who can read it. `complete`: nobody is left out."""

    readers: list[ReaderOf]
    complete: bool


class Applied(Told, frozen=True, kw_only=True):
    """A change: its generation, and how it came into force.

    `sure` is false as long as a worker may act on what was true before; `sure_at` is when none can any more,
    if that is known.
    """

    changed: bool
    generation: int
    sure: bool
    sure_at: datetime | None
    workers: int | None
    milliseconds: float | None
    messages: tuple[str, ...]
    replayed: bool


class Missing(Told, frozen=True, kw_only=True):
    """What was to be taken and was not there; `nearest`: what may have been meant. The rest was done."""

    name: str
    nearest: str | None


class Changed(Applied, frozen=True, kw_only=True):
    """A change of the thing with this id."""

    id: str | None
    barrier: Barrier | None = None
    missing: list[Missing] = []


class FolderApplied(Changed, frozen=True, kw_only=True):
    """What applying a folder changed."""

    plan: FolderPlan


class KeyMade(Changed, frozen=True, kw_only=True):
    """A new key. `token` is the key itself: told once, in the answer that made it, and stored nowhere."""

    token: str | None
    note: str
    key: Key | None = None  # its record; null in a replay


class KeyRotated(KeyMade, frozen=True, kw_only=True):
    """A new key in the place of another, which ends then."""

    replaces: str
    old_ends_at: datetime | None


class RevokedKey(Told, frozen=True, kw_only=True):
    """A key that is revoked now. `changed`: it was not before."""

    id: str
    tenant: str | None
    changed: bool


class FoundKey(Told, frozen=True, kw_only=True):
    """What a found token is, by its place in the list, from 1. The token is not told again."""

    place: int
    kind: FoundKind
    id: str | None
    tenant: str | None
    tenant_record: str | None


class FoundRevoked(Applied, frozen=True, kw_only=True):
    """What the found tokens are, and the keys that were revoked."""

    found: list[FoundKey]
    revoked: list[RevokedKey]
    barriers: list[Barrier]


class FieldError(Told, frozen=True, kw_only=True):
    """What is wrong with one field."""

    pointer: str
    detail: str


class Problem(Told, frozen=True, kw_only=True):
    """A refusal (RFC 9457). `record` is its record in the audit log."""

    type: str
    title: str
    status: int
    detail: str
    record: str
    errors: list[FieldError] | UnsetType = UNSET
