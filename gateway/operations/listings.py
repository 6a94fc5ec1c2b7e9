"""What operators see of tenants, grants, keys and models: values whose JSON form is what scripts get.

Each function reads the facts (for models also the disk) and changes nothing. Unknown names raise
`UnknownName`; a model that nothing names is no error, because any name may be asked for.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from gateway.directory.edits.keys import is_rotating
from gateway.directory.reading.key_usage import find_uses
from gateway.identity.new_keys import KeyState, key_state
from gateway.model.errors import UnknownName
from gateway.model.facts import KeyKind, Role, Scope, Visibility
from gateway.model.moments import when
from gateway.model.names import (
    GroupName,
    KeyId,
    ModelId,
    PackageId,
    Pattern,
    TenantId,
    ancestors,
)
from gateway.model.periods import PeriodState, period_text, state_text
from gateway.model.standing import standing_of
from gateway.model.tenant_records import TenantRecordId  # noqa: TC001 -- as above
from gateway.operations.known_names import find_membership, find_nearest, unknown_tenant, verify_tenant
from gateway.resource.naming import model_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.directory.reading.key_usage import LastUse
    from gateway.model.facts import Grant, Grants, Key, ModelRule, Tenant
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue


MODELS_PER_TURN = 20  # each is some system calls: about 2 ms, then others have their turn


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """A grant; without its tenant where that is known."""

    tenant: TenantId | UnsetType = UNSET
    grant_id: str
    models: tuple[Pattern, ...]
    groups: tuple[GroupName, ...]
    packages: tuple[PackageId, ...]
    actions: list[str]
    source: str
    state: PeriodState
    not_before: str | None
    expires_at: str | None


class TenantView(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant."""

    tenant: TenantId
    name: str
    state: str
    degraded_seconds: float
    image_hosts: tuple[str, ...]
    allows: tuple[str, ...]
    created_at: str | None
    generation: int
    source: str
    record_id: TenantRecordId | None


class TenantRecord(TenantView, frozen=True, kw_only=True):
    """A tenant and what it has."""

    without_redis: str
    owns: list[Pattern]
    grants: list[GrantView]
    keys: list[KeyId]


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key's record and its state now. Times are texts."""

    key_id: KeyId
    kind: KeyKind
    tenant: TenantId | None
    tenant_record: TenantRecordId | None
    name: str
    state: KeyState
    role: Role | None
    scopes: list[Scope]
    networks: tuple[str, ...]
    created_at: str | None
    not_before: str | None
    expires_at: str | None
    revoked_at: str | None
    revoked_for: str | None
    disabled_at: str | None
    replaces: KeyId | None
    replaced_by: KeyId | None
    last_used_at: str | None
    last_used_network: str | None
    pepper: str
    source: str


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about a pattern."""

    pattern: Pattern
    owner: TenantId | None
    visibility: Visibility | None
    groups: tuple[GroupName, ...]
    source: str
    owner_record: TenantRecordId | None
    owner_exists: bool  # false: its owner was removed, and nobody owns it
    state: PeriodState  # of its publication, as are the times
    not_before: str | None
    expires_at: str | None


class AliasView(msgspec.Struct, frozen=True, kw_only=True):
    """Another name of a model."""

    alias: ModelId
    model: ModelId
    source: str


class ModelOnDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk, and whose it is."""

    model: ModelId
    owner: TenantId | None
    visibility: Visibility
    packages: list[PackageId]


class SkippedView(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the cache that is not served, and why."""

    where: str
    why: str


class ModelsView(msgspec.Struct, frozen=True, kw_only=True):
    """All rules and aliases, and all models on disk."""

    rules: list[RuleView]
    aliases: list[AliasView]
    cache_root: str
    on_disk: list[ModelOnDisk]
    problem: str | None
    skipped: tuple[SkippedView, ...]


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who may read a model, and by what."""

    tenant: str
    how: str


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a package."""

    file: str
    size: int
    md5: str | None


class PackageView(msgspec.Struct, frozen=True, kw_only=True):
    """A package on disk."""

    package: PackageId
    files: list[FileView]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One model, by any of its names. `nearest` is a name that may have been meant, where none is known."""

    asked: ModelId
    model: ModelId
    known: bool
    nearest: str | None
    owner: TenantId | None
    visibility: Visibility
    groups: list[GroupName]
    readers: list[Reader]
    directory: str
    packages: list[PackageView]


async def list_tenants(session: OperatorSession) -> list[TenantView]:
    """All tenants, by id."""
    return [_tenant(one) for one in await session.listing.list_tenants()]


async def find_tenant(session: OperatorSession, tenant_id: TenantId) -> TenantRecord:
    """One tenant, what it owns, what it was granted, its keys."""
    found = await session.listing.find_tenant(tenant_id)
    if found is None:
        raise unknown_tenant(tenant_id)
    rules = await session.listing.list_rules()
    grants = await session.listing.find_grants(tenant_id)
    is_own = grants is not None and grants.tenant_record == found.record_id
    keys = [key for key in await _keys_by_age(session, tenant_id) if key.tenant_record == found.record_id]
    now = session.clock.now()
    return TenantRecord(
        **msgspec.structs.asdict(_tenant(found)),
        without_redis=without_redis(found.degraded_seconds),
        owns=[rule.pattern for rule in rules if _is_owned(rule, found)],
        grants=[
            grant_view(one, now)
            for one in sorted(() if grants is None or not is_own else grants.grants, key=_by_id)
        ],
        keys=[key.key_id for key in keys],
    )


def without_redis(degraded_seconds: float) -> str:
    """What a tenant is served when Redis is out of reach."""
    return f"last-known-good for {degraded_seconds:g} s" if degraded_seconds else "closed"


async def list_grants(session: OperatorSession, only: TenantId | None) -> list[GrantView]:
    """All grants, or those of one tenant."""
    if only is not None:
        await verify_tenant(session, only)
    now = session.clock.now()
    return [
        grant_view(grant, now, each.tenant_id)
        for each in await list_held_grants(session)
        if only in (None, each.tenant_id)
        for grant in sorted(each.grants, key=_by_id)
    ]


def _by_id(grant: Grant) -> str:
    return grant.grant_id


async def list_held_grants(session: OperatorSession) -> list[Grants]:
    """The grants of all tenants that there are: none that an earlier tenant of one's name left behind."""
    records = {one.tenant_id: one.record_id for one in await session.listing.list_tenants()}
    return [
        each
        async for each in session.listing.each_grants()
        if each.tenant_id in records and records[each.tenant_id] == each.tenant_record
    ]


class KeyFilter(StrEnum):
    """Which keys are listed: those in a state, or the old ones of rotations under way."""

    LIVE = "live"
    DISABLED = "disabled"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    DECOY = "decoy"
    ROTATING = "rotating"


async def list_keys(
    session: OperatorSession,
    only: TenantId | None,
    *,
    state: KeyFilter | None = None,
    after: KeyId | None = None,
    limit: int | None = None,
) -> list[KeyView]:
    """The keys of a tenant, or all: the admin keys, then tenant by tenant, each in the order of creation.

    Those of removed tenants are among all. Those of one tenant are its own: a tenant that had its name before
    is another one. `after` is the last key of the page before.
    """
    if only is not None:
        await verify_tenant(session, only)
    owners: list[TenantId | None] = [only]
    if only is None:
        there = [one.tenant_id for one in await session.listing.list_tenants()]
        owners += sorted({*there, *await session.listing.list_removed_tenants()})
    last = None if after is None else await _load_key(session, after)
    if last is not None:
        owners = owners[owners.index(last.tenant) :] if last.tenant in owners else owners
    now = session.clock.now()
    is_own = await find_membership(session, only)
    keys: list[Key] = []
    for owner in owners:
        if limit is not None and len(keys) >= limit:
            break
        for key in await _keys_by_age(session, owner):
            is_before = last is not None and last.tenant == owner and _age(key) <= _age(last)
            if is_own(key) and not is_before and (state is None or is_listed(key, state, now)):
                keys.append(key)
    keys = keys[:limit]
    uses = await find_uses(session.store, [key.key_id for key in keys])
    return [key_view(key, now, uses.get(key.key_id)) for key in keys]


def is_listed(key: Key, state: KeyFilter, now: float) -> bool:
    """Whether a key is one of those that this filter lists."""
    if state is KeyFilter.ROTATING:
        return is_rotating(key, now)
    return key_state(key, now).value == state.value


async def _load_key(session: OperatorSession, key_id: KeyId) -> Key:
    key = await session.listing.find_key(key_id)
    if key is None:
        raise UnknownName("key", key_id, "`cachegate keys list` shows them")
    return key


async def find_key(session: OperatorSession, key_id: KeyId) -> KeyView:
    """One key's record."""
    key = await _load_key(session, key_id)
    uses = await find_uses(session.store, [key_id])
    return key_view(key, session.clock.now(), uses.get(key_id))


def key_view(key: Key, now: float, last_use: LastUse | None) -> KeyView:
    """A key's record, with its state at this time."""
    return KeyView(
        key_id=key.key_id,
        kind=key.kind,
        tenant=key.tenant,
        tenant_record=key.tenant_record,
        name=key.name,
        state=key_state(key, now),
        role=key.role,
        scopes=sorted(key.scopes),
        networks=key.networks,
        created_at=when(key.created_at),
        not_before=when(key.not_before),
        expires_at=when(key.expires_at),
        revoked_at=when(key.revoked_at),
        revoked_for=key.life.revoked_for or None,
        disabled_at=when(key.life.disabled_at),
        replaces=key.life.replaces,
        replaced_by=key.life.replaced_by,
        last_used_at=None if last_use is None else when(last_use.at),
        last_used_network=None if last_use is None else last_use.network,
        pepper=key.pepper_id,
        source=key.source,
    )


async def list_on_disk(
    catalogue: DiskCatalogue, models: Sequence[ModelId], rules: Mapping[Pattern, ModelRule], now: float
) -> list[ModelOnDisk]:
    """These models, with what the rules say of each."""
    found = []
    for number, model in enumerate(models, 1):
        if number % MODELS_PER_TURN == 0:
            await asyncio.sleep(0)
        standing = standing_of([rules[one] for one in ancestors(model) if one in rules], now)
        packages = list(await catalogue.packages(model))
        found.append(
            ModelOnDisk(model=model, owner=standing.owner, visibility=standing.visibility, packages=packages)
        )
    return found


async def list_models(session: OperatorSession) -> ModelsView:
    """All rules and aliases, and all models on disk with owner and visibility."""
    catalogue = await _catalogue(session)
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    survey = catalogue.state().survey
    now = session.clock.now()
    records = {one.tenant_id: one.record_id for one in await session.listing.list_tenants()}
    on_disk = await list_on_disk(catalogue, survey.models, rules, now)
    return ModelsView(
        rules=[
            RuleView(
                pattern=rule.pattern,
                owner=rule.owner,
                visibility=rule.visibility,
                groups=rule.groups,
                source=rule.source,
                owner_record=rule.owner_record,
                owner_exists=rule.owner in records and records[rule.owner] == rule.owner_record,
                state=rule.state_at(now),
                not_before=when(rule.not_before),
                expires_at=when(rule.expires_at),
            )
            for rule in rules.values()
        ],
        aliases=[
            AliasView(alias=one.alias, model=one.canonical, source=one.source)
            for one in await session.listing.list_aliases()
        ],
        cache_root=str(session.settings.cache_root),
        on_disk=on_disk,
        problem=survey.problem,
        skipped=tuple(SkippedView(where=one.where, why=one.why) for one in survey.skipped),
    )


async def find_model(
    session: OperatorSession, asked: ModelId, scanned: DiskCatalogue | None = None
) -> ModelView:
    """One model: the rules about it, who may read it, and what of it is on disk.

    `scanned` is a catalogue that is kept up to date; without one the disk is scanned now.
    """
    alias = await session.listing.find_alias(asked)
    model = alias.canonical if alias else asked
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    now = session.clock.now()
    standing = standing_of([rules[one] for one in ancestors(model) if one in rules], now)
    owner = None if standing.owner is None else await session.listing.find_tenant(standing.owner)
    is_owned = owner is not None and owner.record_id == standing.owner_record
    catalogue = await _catalogue(session) if scanned is None else scanned
    listings = [await catalogue.listing(model, package) for package in await catalogue.packages(model)]
    readers = [Reader(tenant=standing.owner, how="owner")] if standing.owner and is_owned else []
    if standing.visibility is Visibility.PUBLIC:
        readers.append(Reader(tenant="every tenant", how="public"))
    for each in await list_held_grants(session):
        readers += [
            Reader(tenant=each.tenant_id, how=_how(grant, now))
            for grant in each.grants
            if set(grant.models) & set(ancestors(model)) or set(grant.groups) & standing.groups
        ]
    named = await session.listing.known_models()
    is_known = alias is not None or model in named or bool(listings)
    others = named.union(catalogue.models(), (one.alias for one in await session.listing.list_aliases()))
    return ModelView(
        asked=asked,
        model=model,
        known=is_known,
        nearest=None if is_known else await asyncio.to_thread(find_nearest, asked, others),
        owner=standing.owner,
        visibility=standing.visibility,
        groups=sorted(standing.groups),
        readers=readers,
        directory=model_directory(model),
        packages=[
            PackageView(
                package=one.package,
                files=[FileView(file=file.handle, size=file.size, md5=file.md5) for file in one.files],
            )
            for one in listings
            if one is not None
        ],
    )


async def _keys_by_age(session: OperatorSession, owner: TenantId | None) -> list[Key]:
    return sorted(await session.listing.list_keys(owner), key=_age)


def _age(key: Key) -> tuple[float, str]:
    return key.created_at, key.key_id


def tenant_state(tenant: Tenant) -> str:
    """Whether a tenant is active; one that is being removed or restored is neither."""
    return state_of(is_suspended=tenant.is_suspended, is_being_removed=tenant.removal is not None)


def state_of(*, is_suspended: bool, is_being_removed: bool) -> str:
    """The same, of what is known of it."""
    if is_being_removed:
        return "being removed"
    return "suspended" if is_suspended else "active"


def _tenant(tenant: Tenant) -> TenantView:
    return TenantView(
        tenant=tenant.tenant_id,
        name=tenant.name,
        state=tenant_state(tenant),
        degraded_seconds=tenant.degraded_seconds,
        image_hosts=tenant.image_hosts,
        allows=tenant.allows,
        created_at=when(tenant.created_at),
        generation=tenant.generation,
        source=tenant.source,
        record_id=tenant.record_id,
    )


def grant_view(grant: Grant, now: float, tenant: TenantId | UnsetType = UNSET) -> GrantView:
    """A grant, with its state at this time."""
    return GrantView(
        tenant=tenant,
        grant_id=grant.grant_id,
        models=grant.models,
        groups=grant.groups,
        packages=grant.packages,
        actions=sorted(grant.actions),
        source=grant.source,
        state=grant.state_at(now),
        not_before=when(grant.not_before),
        expires_at=when(grant.expires_at),
    )


def _is_owned(rule: ModelRule, tenant: Tenant) -> bool:
    return (rule.owner, rule.owner_record) == (tenant.tenant_id, tenant.record_id)


async def _catalogue(session: OperatorSession) -> DiskCatalogue:
    from gateway.assembly.components import build_catalogue  # noqa: PLC0415 -- keys and grants need none of it

    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    await catalogue.refresh(await session.directory.known_models())
    return catalogue


def _how(grant: Grant, now: float) -> str:
    narrowed = f" of packages {' '.join(grant.packages)}" if grant.packages else ""
    period = f", {period_text(grant)}" if grant.has_times else ""
    state = grant.state_at(now)
    lapsed = "" if state is PeriodState.IN_FORCE else f" ({state_text(state)})"
    return f"grant {grant.grant_id}: {' '.join(sorted(grant.actions))}{narrowed}{period}{lapsed}"
