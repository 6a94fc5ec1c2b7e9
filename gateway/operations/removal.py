"""Off-boarding: show what removing a tenant takes, remove it, and restore it for a while.

A removal is a row of bounded changes, each recorded: nothing holds Redis or a worker, however much a tenant
has. The first one refuses all of its keys and is waited for by itself; the last one frees its name, and is
waited for as well (I6). One that was interrupted is run again and goes on with what is left. What others were
granted on its models ends too.

What is on disk is not touched, since nothing here writes below the cache (I9); it is counted, for whoever
deletes it.
"""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from functools import partial
from itertools import islice
from math import floor
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.assembly.components import build_catalogue
from gateway.directory.removal import restoring, taking
from gateway.directory.removal.journal import (
    Removal,
    RemovalStage,
    find_removal,
    list_removals,
    load_taken,
)
from gateway.directory.removal.ownership import (
    Belongings,
    belongings_of,
    broad_first,
    narrow_first,
)
from gateway.model.errors import BadNameError, Conflict, Unavailable, UnknownName
from gateway.model.facts import FOLDER_SOURCE, Grants, ModelRule
from gateway.model.periods import moment_text
from gateway.operations.cache.files import each_listing
from gateway.operations.known_names import unknown_tenant
from gateway.terminal.progress import Bar, counting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from gateway.barrier import BarrierReport
    from gateway.directory.transfer.lines import Fact
    from gateway.model.facts import Alias, Grant, Tenant
    from gateway.model.issuers import Binding
    from gateway.model.listings import PackageListing
    from gateway.model.names import KeyId, Md5, ModelId, Pattern, TenantId
    from gateway.model.tenant_records import TenantRecordId
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue

T = TypeVar("T")

RESTORABLE_SECONDS = 7 * 86_400.0
MAX_RESTORABLE_SECONDS = 90 * 86_400.0  # what was taken is kept in Redis for so long, and 30 days more
PER_CHANGE = 200  # facts of one change: some milliseconds, during which other changes wait
GRANTS_PER_CHANGE = 2_000  # of others, in the records that one change rewrites
MAX_SHOWN = 20  # facts of the policy folder that are named; the rest is counted
_ID_BYTES = 9


class LostGrants(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody else loses."""

    tenant: TenantId
    grants: list[str]


class OnDisk(msgspec.Struct, frozen=True, kw_only=True):
    """What is left on disk of one model. Shared blobs are linked by models of others, too."""

    model: ModelId
    packages: int
    files: int
    bytes: int
    shared_bytes: int


class RemovalPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What removing a tenant takes, and what it leaves."""

    tenant: TenantId
    record_id: TenantRecordId | None
    name: str
    is_resumed: bool  # a removal of it was begun, and goes on
    keys: int  # that are not revoked
    bindings: int
    grants: list[str]
    grants_of_others: list[LostGrants]
    patterns: list[Pattern]
    aliases: list[ModelId]
    groups: list[str]
    allows: tuple[str, ...]
    wider_grants: list[str]  # of others, on patterns that cover its models and more: they stay
    servers: list[str]  # inference servers that the settings bind to it: they stay
    on_disk: list[OnDisk]
    bytes_on_disk: int
    restorable_seconds: float
    in_the_way: list[str]  # facts of the policy folder, and what to do about them


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A removal that is done."""

    plan: RemovalPlan
    removal_id: str
    keys: int
    bindings: int
    grants: int
    grants_of_others: int
    patterns: int
    kept_closed: list[Pattern]  # below patterns of others that would open them
    aliases: int
    restorable_until: str
    generation: int
    barrier: BarrierReport | None


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A restoration that is done."""

    tenant: TenantId
    record_id: TenantRecordId | None
    removal_id: str
    facts: int
    left: list[str]  # what was not given back, and why
    keys: int  # that stay revoked
    bindings: int
    generation: int
    barrier: BarrierReport | None


class RemovalView(msgspec.Struct, frozen=True, kw_only=True):
    """A removal as it is listed."""

    tenant: TenantId
    removal_id: str
    record_id: TenantRecordId | None
    stage: RemovalStage
    started_at: str
    ended_at: str | None
    restorable_until: str | None  # None: no more
    keys: int
    bindings: int


class _Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a tenant, what an unfinished removal took already included."""

    tenant: Tenant
    removal: Removal | None
    belongings: Belongings
    keys: list[KeyId]
    bindings: list[Binding]
    grants: tuple[Grant, ...]
    others: list[Grants]
    owner_sources: list[str]


async def plan_removal(
    session: OperatorSession,
    tenant_id: TenantId,
    restorable_seconds: float,
    scanned: DiskCatalogue | None = None,
) -> RemovalPlan:
    """What removing a tenant would take now. Nothing is changed.

    `scanned` is a catalogue that is kept up to date; without one the disk is scanned now.
    """
    verify_restorable(restorable_seconds)
    return await _plan(session, await _survey(session, tenant_id), restorable_seconds, scanned)


async def remove_tenant(
    session: OperatorSession,
    tenant_id: TenantId,
    restorable_seconds: float,
    scanned: DiskCatalogue | None = None,
) -> Removed:
    """Remove a tenant, or go on with its removal. Raises `Conflict` for facts of the policy folder.

    With a catalogue it is done for somebody who is not at this terminal: no progress is shown.
    """
    verify_restorable(restorable_seconds)
    survey = await _survey(session, tenant_id)
    plan = await _plan(session, survey, restorable_seconds, scanned)
    if plan.in_the_way:
        raise Conflict("\n".join(plan.in_the_way))
    begun = await session.perform(
        "tenants.remove",
        partial(
            taking.begin_removal,
            tenant_id=tenant_id,
            removal_id=f"rem_{secrets.token_hex(_ID_BYTES)}",
            now=session.clock.now(),
            restorable_seconds=restorable_seconds,
        ),
        tenant=tenant_id,
    )
    steps = _Steps(session, begun.result, is_watched=scanned is None)
    # Once more, now that the tenant can get nothing new: what came since the first look is seen as well.
    survey = await _survey(session, tenant_id)
    await steps.pages("keys", taking.revoke_keys, "key_ids", survey.keys)
    await steps.pages("bindings", taking.revoke_bindings, "bindings", survey.bindings)
    grants = await steps.run("grants", partial(taking.take_own_grants, now=session.clock.now()))
    patterns = [rule.pattern for rule in narrow_first(survey.belongings.own_rules)]
    closed = await steps.pages("models", taking.close_rules, "patterns", patterns)
    aliases = await steps.pages("aliases", taking.take_aliases, "aliases", survey.belongings.aliases)
    of_others = 0
    for holders in _bounded(survey.others):
        step = partial(
            taking.take_grants_of_others,
            holders=holders,
            belongings=survey.belongings,
            now=session.clock.now(),
        )
        of_others += await steps.run("grants-of-others", step)
    owned = [rule.pattern for rule in broad_first(survey.belongings.own_rules)]
    for page in _pages(owned):
        await steps.run("models", partial(taking.delete_rules, patterns=page))
    done = await session.perform(
        "removal.end",
        partial(taking.end_removal, removal_id=steps.removal_id, now=session.clock.now()),
        tenant=tenant_id,
        tenant_record=survey.tenant.record_id,
    )
    left = await session.listing.list_rules()
    return Removed(
        plan=plan,
        removal_id=steps.removal_id,
        keys=done.result.keys,
        bindings=done.result.bindings,
        grants=grants,
        grants_of_others=of_others,
        patterns=closed,
        kept_closed=[rule.pattern for rule in left if done.result.owns(rule.owner, rule.owner_record)],
        aliases=aliases,
        restorable_until=moment_text(done.result.restorable_until),
        generation=done.generation,
        barrier=done.barrier,
    )


async def restore_tenant(
    session: OperatorSession, tenant_id: TenantId, removal_id: str | None = None
) -> Restored:
    """Give back what the last removal of a tenant took, or the one that is named."""
    removal = await _find_removal(session, tenant_id, removal_id)
    begun = await session.perform(
        "tenants.restore",
        partial(restoring.begin_restoration, removal_id=removal.removal_id, now=session.clock.now()),
        tenant=tenant_id,
        tenant_record=removal.record_id,
        subject=(removal.removal_id,),
        wait=False,
    )
    steps = _Steps(session, begun.result)
    facts = _in_order(await load_taken(session.listing, begun.result))
    left: list[str] = []
    for page in _pages(facts):
        left += await steps.run("give-back", partial(restoring.give_back, facts=page))
    done = await session.perform(
        "removal.restored",
        partial(restoring.end_restoration, removal_id=removal.removal_id),
        tenant=tenant_id,
        tenant_record=removal.record_id,
    )
    return Restored(
        tenant=tenant_id,
        record_id=removal.record_id,
        removal_id=removal.removal_id,
        facts=len(facts) - len(left),
        left=left,
        keys=removal.keys,
        bindings=removal.bindings,
        generation=done.generation,
        barrier=done.barrier,
    )


async def list_removed(session: OperatorSession) -> list[RemovalView]:
    """All removals of tenants, the oldest first."""
    now = session.clock.now()
    return [
        RemovalView(
            tenant=one.tenant,
            removal_id=one.removal_id,
            record_id=one.record_id,
            stage=one.stage,
            started_at=moment_text(float(floor(one.started_at))),
            ended_at=None if one.ended_at is None else moment_text(float(floor(one.ended_at))),
            restorable_until=moment_text(one.restorable_until) if _is_restorable(one, now) else None,
            keys=one.keys,
            bindings=one.bindings,
        )
        for one in await list_removals(session.listing)
    ]


def verify_restorable(seconds: float) -> None:
    """Raise for a time that what was taken cannot be kept."""
    if not 0 <= seconds <= MAX_RESTORABLE_SECONDS:  # NaN fails this comparison
        raise BadNameError("a removed tenant can be restored for 0 s to 90 days")


class _Steps:
    """The changes of one removal, each recorded, none of them waited for."""

    def __init__(self, session: OperatorSession, removal: Removal, *, is_watched: bool = True) -> None:
        self._session = session
        self._is_watched = is_watched
        self._removal = removal

    @property
    def removal_id(self) -> str:
        """The id of the removal."""
        return self._removal.removal_id

    async def run(self, name: str, step: Callable[..., Awaitable[T]]) -> T:
        """Make one change."""
        done = await self._session.perform(
            f"removal.{name}",
            partial(step, removal_id=self.removal_id),
            tenant=self._removal.tenant,
            tenant_record=self._removal.record_id,
            subject=(self.removal_id,),
            wait=False,
        )
        return done.result

    async def pages(
        self, name: str, step: Callable[..., Awaitable[int]], argument: str, things: Sequence[object]
    ) -> int:
        """Make a change for each page of these things; return how many were taken."""
        taken = 0
        with counting(name, len(things)) if self._is_watched else nullcontext(Bar()) as bar:
            for page in _pages(things):
                now = self._session.clock.now()
                taken += await self.run(name, partial(step, **{argument: page}, now=now))
                bar.advance(len(page))
        return taken


async def _survey(session: OperatorSession, tenant_id: TenantId) -> _Survey:
    listing = session.listing
    tenant = await listing.find_tenant(tenant_id)
    if tenant is None:
        raise unknown_tenant(tenant_id)
    removal = None if tenant.removal is None else await find_removal(listing, tenant.removal)
    owner = (tenant.tenant_id, tenant.record_id)
    rules = {rule.pattern: rule for rule in await listing.list_rules()}
    aliases: list[Alias] = list(await listing.list_aliases())
    if removal is not None:  # what it took counts as there, so that what belongs to it is found again
        for fact in await load_taken(listing, removal):
            if isinstance(fact, ModelRule):
                there = rules.get(fact.pattern)
                if there is None or removal.owns(there.owner, there.owner_record):
                    rules[fact.pattern] = fact
    belongings = belongings_of(owner, rules.values(), aliases)
    held = await listing.find_grants(tenant_id)
    grants = held.grants if held is not None and held.tenant_record == tenant.record_id else ()
    others = [
        one
        for one in await listing.list_all_grants()
        if one.tenant_id != tenant_id and any(belongings.split(grant)[0] for grant in one.grants)
    ]
    keys = [
        key.key_id
        async for key in listing.each_key(tenant_id)
        if key.tenant_record == tenant.record_id and key.revoked_at is None
    ]
    bindings = [
        one
        for one in await listing.list_all_bindings()
        if (one.tenant, one.tenant_record) == owner and one.revoked_at is None
    ]
    sources = [
        f"rule {rule.name} of issuers/{issuer.name}.toml"
        for issuer in await listing.list_issuers()
        for rule in issuer.rules
        if rule.tenant == tenant_id
    ]
    return _Survey(
        tenant=tenant,
        removal=removal,
        belongings=belongings,
        keys=keys,
        bindings=bindings,
        grants=grants,
        others=others,
        owner_sources=sources,
    )


async def _plan(
    session: OperatorSession, survey: _Survey, restorable_seconds: float, scanned: DiskCatalogue | None
) -> RemovalPlan:
    tenant, belongings = survey.tenant, survey.belongings
    on_disk = await _on_disk(session, belongings, scanned)
    former = tenant if survey.removal is None else survey.removal.former_tenant()
    wider = [
        f"{grant.grant_id} of {one.tenant_id}"
        for one in await session.listing.list_all_grants()
        if one.tenant_id != tenant.tenant_id
        for grant in one.grants
        if (rest := belongings.split(grant)[1]) is not None and belongings.is_wider(rest)
    ]
    return RemovalPlan(
        tenant=tenant.tenant_id,
        record_id=tenant.record_id,
        name=tenant.name,
        is_resumed=survey.removal is not None,
        keys=len(survey.keys),
        bindings=len(survey.bindings),
        grants=[grant.grant_id for grant in survey.grants],
        grants_of_others=[
            LostGrants(
                tenant=one.tenant_id,
                grants=[grant.grant_id for grant in one.grants if belongings.split(grant)[0]],
            )
            for one in survey.others
        ],
        patterns=sorted(rule.pattern for rule in belongings.own_rules),
        aliases=sorted(alias.alias for alias in belongings.aliases),
        groups=sorted(belongings.groups),
        allows=former.allows,
        wider_grants=wider,
        servers=[
            server.name for server in session.settings.inference_url if server.tenant == tenant.tenant_id
        ],
        on_disk=on_disk,
        bytes_on_disk=sum(one.bytes for one in on_disk),
        restorable_seconds=restorable_seconds,
        in_the_way=list(_in_the_way(survey)),
    )


def _in_the_way(survey: _Survey) -> Iterator[str]:
    """Facts of the policy folder, document by document: an apply would bring them back."""
    tenant = survey.tenant
    try:
        taking.verify_removable(tenant)
    except Conflict as conflict:
        yield str(conflict)
        return
    found: dict[str, list[str]] = {}
    for what, source in _sourced(survey):
        if source.startswith(FOLDER_SOURCE):
            found.setdefault(f"tenants/{source.removeprefix(FOLDER_SOURCE)}.toml", []).append(what)
    for source in survey.owner_sources:
        rule, _, document = source.partition(" of ")
        found.setdefault(document, []).append(rule)
    for document, named in sorted(found.items()):
        more = f" and {len(named) - MAX_SHOWN} more" if len(named) > MAX_SHOWN else ""
        yield (
            f"{document} of the policy folder says it: {', '.join(named[:MAX_SHOWN])}{more}; take it out "
            "there, run `cachegate policy apply`, and repeat this command"
        )


def _sourced(survey: _Survey) -> Iterator[tuple[str, str]]:
    """Everything that a removal would take, with its source."""
    belongings = survey.belongings
    yield from ((f"the rule for {rule.pattern}", rule.source) for rule in belongings.own_rules)
    yield from ((f"the alias {alias.alias}", alias.source) for alias in belongings.aliases)
    yield from ((f"the grant {grant.grant_id}", grant.source) for grant in survey.grants)
    for one in survey.others:
        for grant in one.grants:
            if belongings.split(grant)[0] is not None:
                yield f"the grant {grant.grant_id} of {one.tenant_id}", grant.source


async def _on_disk(
    session: OperatorSession, belongings: Belongings, scanned: DiskCatalogue | None
) -> list[OnDisk]:
    """What is on disk of the tenant's models, the largest first; nothing where there is no cache."""
    catalogue = scanned or build_catalogue(session.settings, session.clock, is_command=True)
    try:
        if scanned is None:
            await catalogue.refresh(await session.listing.known_models())
        listings = [one async for one in each_listing(catalogue)]
    except Unavailable:
        return []
    own = {one.model for one in listings if belongings.is_own_model(one.model)}
    of_others: set[Md5] = {
        file.md5 for one in listings if one.model not in own for file in one.files if file.md5 is not None
    }
    by_model: dict[ModelId, list[PackageListing]] = {}
    for one in listings:
        if one.model in own:
            by_model.setdefault(one.model, []).append(one)
    found = []
    for model, packages in by_model.items():
        sizes: dict[object, int] = {}  # a blob that several packages link is there once
        shared: dict[Md5, int] = {}
        for one in packages:
            for file in one.files:
                sizes[file.md5 or (one.package, file.handle)] = file.size
                if file.md5 is not None and file.md5 in of_others:
                    shared[file.md5] = file.size
        found.append(
            OnDisk(
                model=model,
                packages=len(packages),
                files=len(sizes),
                bytes=sum(sizes.values()),
                shared_bytes=sum(shared.values()),
            )
        )
    return sorted(found, key=lambda one: (-one.bytes, one.model))


async def _find_removal(session: OperatorSession, tenant_id: TenantId, removal_id: str | None) -> Removal:
    """The removal that is named, or the last one of the tenant that can be restored."""
    removals = [
        one
        for one in await list_removals(session.listing)
        if one.tenant == tenant_id and removal_id in {None, one.removal_id}
    ]
    open_ones = [one for one in removals if one.stage is not RemovalStage.RESTORED]
    if not removals:
        raise UnknownName("removed tenant", tenant_id, "`cachegate tenants removed` shows them")
    return (open_ones or removals)[-1]


def _is_restorable(removal: Removal, now: float) -> bool:
    if removal.stage is RemovalStage.RESTORED:
        return False
    return removal.stage is RemovalStage.RESTORING or now < removal.restorable_until


def _bounded(others: Iterable[Grants]) -> Iterator[list[TenantId]]:
    """Group tenants so that one change rewrites a bounded number of grants."""
    page: list[TenantId] = []
    count = 0
    for one in others:
        if page and count + len(one.grants) > GRANTS_PER_CHANGE:
            yield page
            page, count = [], 0
        page.append(one.tenant_id)
        count += len(one.grants)
    if page:
        yield page


def _pages(things: Sequence[T]) -> Iterator[tuple[T, ...]]:
    waiting = iter(things)
    while page := tuple(islice(waiting, PER_CHANGE)):
        yield page


def _in_order(taken: Iterable[Fact]) -> list[Fact]:
    """What was taken, each rule as it was first, narrow ones first; grants after the rules."""
    rules: dict[Pattern, ModelRule] = {}
    others: list[Fact] = []
    for fact in taken:
        if isinstance(fact, ModelRule):
            rules.setdefault(fact.pattern, fact)
        else:
            others.append(fact)
    return [*narrow_first(rules.values()), *others]
