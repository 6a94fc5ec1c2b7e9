"""Operations on keys over their life. A key is told once; keys are never deleted.

What may be handed out is said by `model/roles.py`; it is checked here, before anything is changed. The same
operations serve the tenants' own routes, where the tenant is the caller's and stands nowhere in a request.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from gateway.admin.call import Reply, barrier_told, changed, created, impossible
from gateway.admin.documents import (
    FoundKey,
    FoundOne,
    FoundRevoked,
    FoundTokens,
    Key,
    KeyMade,
    KeyNew,
    KeyPatch,
    KeyReport,
    KeyRevocation,
    KeyRotated,
    KeyRotation,
    OwnKeyNew,
    OwnPagedKeys,
    OwnReportQuery,
    PagedKeys,
    ReportQuery,
    RevokedKey,
    Rotation,
    Rotations,
    RotationsQuery,
    Waiting,
    moment,
)
from gateway.admin.grants import period_of
from gateway.admin.operation import Operation
from gateway.admin.pages import Page, walk
from gateway.directory.edits import keys as edits
from gateway.directory.reading.key_usage import find_uses
from gateway.directory.records import names
from gateway.identity.new_keys import (
    KeyOrder,
    default_scopes,
    import_key,
    issue_key,
    parse_name,
    parse_networks,
    parse_scopes,
)
from gateway.model.access import Action
from gateway.model.errors import BadNameError, FieldProblem, Reason, Refusal, UnknownName
from gateway.model.facts import KeyKind
from gateway.model.key_changes import KeyChange
from gateway.model.names import parse_key_id, parse_tenant_id
from gateway.model.roles import DAY_SECONDS, Handed, is_within, may_end, why_not_handed
from gateway.operations.keys import revoking
from gateway.operations.keys.found import identify
from gateway.operations.keys.revoking import parse_reason
from gateway.operations.keys.views import key_report, list_rotations
from gateway.operations.listings import is_listed, key_view

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.key_usage import LastUse
    from gateway.directory.reading.listing import Listing
    from gateway.identity.new_keys import NewKey
    from gateway.model import facts
    from gateway.model.facts import Scope
    from gateway.model.names import KeyId, TenantId

SHOWN_ONCE = "This is the key. It is told once, and stored nowhere."
NOT_SHOWN = "The key was told once, in the first answer, and is stored nowhere."
LOOKED = 1_000  # keys that are read at a time
MAX_LOOKED = 10_000  # of one owner for one page, which may then be short, and leads on
OF_ANOTHER_SYSTEM = "The key is the other system's, and was not seen here."


def key_document(call: Call, key: facts.Key, last_use: LastUse | None) -> Key:
    """A key, as it is answered: what commands show of it, its id by the name that every resource has.

    When it was created is told as exactly as it is known: keys are listed by age with it.
    """
    view = key_view(key, call.now, last_use)
    members = {name: getattr(view, name) for name in view.__struct_fields__ if name != "key_id"}
    members |= {name: _time(members[name]) for name in _TIMES}
    members["created_at"] = moment(key.created_at, is_whole=False)
    members["pepper"] = None if call.own is not None else view.pepper
    return Key(id=view.key_id, generation=key.generation, **members)


_TIMES = ("not_before", "expires_at", "revoked_at", "disabled_at", "last_used_at")


def _time(text: str | None) -> datetime | None:
    """A time of a view; none for one beyond the calendar, which no answer can say."""
    return None if text is None or text.startswith("@") else datetime.fromisoformat(text)


def find_tag(key_id: KeyId) -> Find:
    """What finds the state of a key. Its last use is no part of it."""

    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_key(key_id)
        return None if found is None else str(found.generation)

    return find


async def _documents(call: Call, keys: Sequence[facts.Key]) -> list[Key]:
    seen = await find_uses(call.session.store, [key.key_id for key in keys])
    return [key_document(call, key, seen.get(key.key_id)) for key in keys]


async def list_keys(call: Call) -> Reply:
    """A page of keys: those of the operators, then tenant by tenant, each by id.

    Those of removed tenants are among all. Those of one tenant are its own, and not those of an earlier
    tenant of its name.
    """
    query = call.query
    named = None if call.own is not None or query.tenant is None else parse_tenant_id(query.tenant)
    owner_now = None if named is None else await call.listing.find_tenant(named)

    def is_asked(key: facts.Key) -> bool:
        """Whether it is in this state, and of this tenant: one that had its name before is another."""
        is_in_state = query.state is UNSET or is_listed(key, query.state, call.now)
        return is_in_state and (owner_now is None or key.tenant_record == owner_now.record_id)

    async def page_of(owner: TenantId | None, after: str | None, limit: int) -> tuple[list[Key], str | None]:
        found: list[facts.Key] = []
        for _ in range(MAX_LOOKED // LOOKED):
            short, is_more = await call.listing.page_of(
                names.key_set(owner), _parse_short, after=after, limit=LOOKED
            )
            ids = [parse_key_id(names.long_key_id(one.encode())) for one in short]
            stored = [key async for _, key in call.listing.each_stored_key(ids)]
            found += [key for key in stored if _is_shown(call, key) and is_asked(key)]
            after = short[-1] if is_more and short else None
            if len(found) > limit:
                after = found[limit - 1].key_id.removeprefix("key_")
            if after is None or len(found) >= limit:
                break
        return await _documents(call, found[:limit]), after

    if call.own is not None:
        only: TenantId | None = call.own
        is_of_operators = False
    else:
        only = named
        is_of_operators = query.admin and only is None
    page = await walk(
        call.listing,
        page_of,
        after=query.after,
        limit=query.limit,
        only=only,
        is_of_operators=is_of_operators,
        has_operators=True,
        has_removed=True,
    )
    return Reply(document=page, next_after=page.after)


def _parse_short(text: str) -> str:
    return parse_key_id(f"key_{text}").removeprefix("key_")


async def read_key(call: Call) -> Reply:
    """One key."""
    key = await find_own(call, call.listing)
    [document] = await _documents(call, [key])
    return Reply(document=document, generation=key.generation)


async def find_own(call: Call, listing: Listing) -> facts.Key:
    """The key that the path names. One of another tenant is as absent as one that is not there."""
    return await _find_shown(call, listing, parse_key_id(call.id))


async def _find_shown(call: Call, listing: Listing, key_id: KeyId) -> facts.Key:
    key = await listing.find_key(key_id)
    if key is None or not _is_shown(call, key):
        raise Refusal(Reason.ABSENT)
    return key


def _is_shown(call: Call, key: facts.Key) -> bool:
    """Whether the caller may see a key: of one's own are those of this tenant, and not of its name alone."""
    whose = key.tenant, key.tenant_record
    return call.own is None or whose == (call.principal.tenant, call.principal.tenant_record)


async def create_key(call: Call) -> Reply:
    """A new key; or, by its SHA-256, a key of another system."""
    order = _order(call)
    sha256_hex = None if call.own is not None else call.body.sha256
    peppers = call.session.peppers
    if sha256_hex is None:
        new = issue_key(order, environment=call.session.settings.token_env, peppers=peppers)
    else:
        new = import_key(order, sha256_hex=sha256_hex, peppers=peppers)
    verify_handed(call, new.key)

    async def edit(changes: Changes) -> Effect:
        tenant = None if order.tenant is None else await changes.find_tenant(order.tenant)
        if order.tenant is not None and tenant is None:
            raise impossible("/tenant", f"there is no tenant {order.tenant}")
        if call.own is not None and (tenant is None or tenant.record_id != call.principal.tenant_record):
            raise Refusal(Reason.ABSENT)  # removed meanwhile: who has the name now gets no key of this caller
        new_one = edits.create_key if sha256_hex is None else edits.import_key
        return await new_one(changes, key=new.key, digest=new.digest)

    return await _made(call, new, edit, key_id=new.key.key_id)


async def rotate_key(call: Call) -> Reply:
    """A new key in the place of another, which ends after the overlap."""
    old = await find_own(call, call.listing)
    expires_at = call.body.expires_at
    order = _checked(
        "/expires_at",
        now=call.now,
        kind=old.kind,
        tenant=old.tenant,
        expires_at=None if expires_at is None else expires_at.timestamp(),
    )
    new = issue_key(order, environment=call.session.settings.token_env, peppers=call.session.peppers)
    new = replace(new, key=edits.heir_of(old, new.key))
    ends: list[float] = []

    async def edit(changes: Changes) -> Effect:
        current = await find_own(call, changes)
        ends[:] = [edits.end_of_overlap(current, call.now, call.body.overlap_seconds)]
        verify_handed(call, edits.heir_of(current, new.key))
        return await edits.rotate_key(
            changes,
            key_id=old.key_id,
            successor=replace(new.key, expires_at=order.expires_at),
            digest=new.digest,
            now=call.now,
            overlap_seconds=call.body.overlap_seconds,
        )

    return await _made(
        call, new, edit, key_id=old.key_id, subject=(new.key.key_id,), find=find_tag(old.key_id), ends=ends
    )


async def close_overlap(call: Call) -> Reply:
    """End the overlap of a rotation now, by either of its keys: the old one is revoked."""

    async def edit(changes: Changes) -> Effect:
        key = await find_own(call, changes)
        old = key
        if key.life.replaced_by is None and key.life.replaces is not None:
            old = await _find_shown(call, changes, key.life.replaces)
        _verify_may_end(call, old)
        return await edits.close_overlap(changes, key_id=key.key_id, now=call.now)

    return await _changed(call, edit)


async def change_key(call: Call) -> Reply:
    """Change name, scopes, networks or expiry of a key, all of it or nothing."""

    async def edit(changes: Changes) -> Effect:
        before = await find_own(call, changes)
        wanted = _wanted(call, before)
        after = replace(before, **{name: getattr(wanted, name) for name in wanted.named})
        if _is_narrowing(before, after):
            _verify_may_end(call, before)
        else:
            verify_handed(call, after)
        return await edits.change_key(changes, key_id=before.key_id, wanted=wanted, now=call.now)

    patch = call.body
    named = [name for name in patch.__struct_fields__ if getattr(patch, name) is not UNSET]
    return await _changed(call, edit, subject=tuple(named))


def _wanted(call: Call, key: facts.Key) -> KeyChange:
    """What a patch makes of a key; null: what a new one has. Raises `Refusal` that names the field."""
    body = call.body
    scopes: frozenset[Scope] | UnsetType = UNSET
    if body.scopes is None:
        scopes = default_scopes(key.kind, key.role)
    elif body.scopes is not UNSET:
        scopes = _parsed("/scopes", partial(parse_scopes, kind=key.kind, role=key.role), body.scopes)
    ends = body.expires_at
    expires_at = ends.timestamp() if isinstance(ends, datetime) else ends
    if isinstance(expires_at, float) and expires_at <= max(call.now, key.not_before or call.now):
        raise impossible("/expires_at", "it lies ahead of now and of not_before")
    networks = body.networks
    return KeyChange(
        name=UNSET if body.name is UNSET else _parsed("/name", parse_name, body.name or ""),
        scopes=scopes,
        networks=UNSET if networks is UNSET else _parsed("/networks", parse_networks, networks or ()),
        expires_at=expires_at,
    )


def _is_narrowing(before: facts.Key, after: facts.Key) -> bool:
    """Whether a change gives a key nothing that it did not have."""
    is_no_later = before.expires_at is None or (
        after.expires_at is not None and after.expires_at <= before.expires_at
    )
    is_no_wider = is_within(after.networks, before.networks)
    return is_no_later and is_no_wider and after.scopes <= before.scopes


async def disable_key(call: Call) -> Reply:
    """Refuse a key until it is enabled again, as surely as by revoking it."""

    async def edit(changes: Changes) -> Effect:
        key = await find_own(call, changes)
        _verify_may_end(call, key)
        return await edits.disable_key(changes, key_id=key.key_id, now=call.now)

    return await _changed(call, edit)


async def enable_key(call: Call) -> Reply:
    """Accept a disabled key again: that is for whoever may hand out such a key."""

    async def edit(changes: Changes) -> Effect:
        key = await find_own(call, changes)
        verify_handed(call, key)
        return await edits.enable_key(changes, key_id=key.key_id, now=call.now)

    return await _changed(call, edit)


async def revoke_key(call: Call) -> Reply:
    """Refuse a key from now on, in every worker when this is answered."""
    why = _parsed("/reason", parse_reason, call.body.reason)

    async def edit(changes: Changes) -> Effect:
        key = await find_own(call, changes)
        _verify_may_end(call, key)
        return await edits.revoke_key(changes, key_id=key.key_id, now=call.now, reason=why)

    return await _changed(call, edit, subject=(f"reason: {why}",) if why else ())


async def revoke_found(call: Call) -> Reply:
    """Revoke the keys among found tokens, and say what the others are.

    Whoever sends a key holds it, and may end it as any holder may. On the tenants' own routes the keys of
    others are as unknown as what was never a key.
    """
    tokens = [(one if isinstance(one, str) else one.token).strip() for one in call.body.tokens]
    made = await revoking.revoke_found(
        call.beginning,
        tokens,
        reason=_parsed("/reason", parse_reason, call.body.reason) or revoking.FOUND_REASON,
        wait=call.query.wait,
        is_dry=call.body.dry_run,
        own=None if call.own is None else (call.principal.tenant, call.principal.tenant_record),
    )
    is_changed = any(one.is_changed for one in made.keys)
    is_sure = made.is_sure and (bool(made.barriers) or not made.keys)
    unsure = [one.sure_in_seconds for one in made.barriers if not one.is_sure]
    waits = [seconds for seconds in unsure if seconds is not None]
    document = FoundRevoked(
        changed=is_changed,
        generation=made.generation or await call.session.store.generation(),
        sure=is_sure,
        sure_at=moment(call.session.clock.now() + max(waits) + 1.0) if waits else None,
        workers=max((one.workers for one in made.barriers), default=None),
        milliseconds=sum(one.milliseconds for one in made.barriers) if made.barriers else None,
        messages=tuple(dict.fromkeys(one.why for one in made.barriers if one.why)),
        replayed=False,
        found=[
            FoundKey(
                place=one.place,
                kind=one.kind,
                id=one.key_id,
                tenant=one.tenant,
                tenant_record=one.tenant_record,
            )
            for one in made.found
        ],
        revoked=[RevokedKey(id=one.key_id, tenant=one.tenant, changed=one.is_changed) for one in made.keys],
        barriers=[barrier_told(one) for one in made.barriers],
    )
    return Reply(document=document, status=HTTPStatus.OK if is_sure else HTTPStatus.ACCEPTED)


async def report_keys(call: Call) -> Reply:
    """Keys that were never used, never end, end soon, or were used from a new network.

    All keys are read for it: one report at a time for each tenant, and one for the operators.
    """
    query, whose = call.query, call.principal.whose
    only = call.own
    if only is None and query.tenant is not None:
        only = parse_tenant_id(query.tenant)
    if whose in _REPORTING:
        raise Refusal(Reason.BUSY)
    _REPORTING.add(whose)
    try:
        found = await key_report(
            call.session,
            only,
            soon_seconds=query.soon_days * DAY_SECONDS,
            new_seconds=query.new_days * DAY_SECONDS,
            of_record=UNSET if call.own is None else call.principal.tenant_record,
        )
    except UnknownName as error:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=f"There is no tenant {only}.") from error
    finally:
        _REPORTING.discard(whose)
    return Reply(document=msgspec.convert(msgspec.to_builtins(found), type=KeyReport))


_REPORTING: set[str | None] = set()
"""Whose reports this worker makes now."""


async def list_all_rotations(call: Call) -> Reply:
    """Rotations under way. All keys are read for it: one such list, or report, at a time in each worker."""
    only = None if call.query.tenant is None else parse_tenant_id(call.query.tenant)
    whose = call.principal.whose
    if whose in _REPORTING:
        raise Refusal(Reason.BUSY)
    _REPORTING.add(whose)
    try:
        found = await list_rotations(call.session, only)
    except UnknownName as error:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=f"There is no tenant {only}.") from error
    finally:
        _REPORTING.discard(whose)
    return Reply(document=Rotations(items=msgspec.convert(msgspec.to_builtins(found), type=list[Rotation])))


async def identify_key(call: Call) -> Reply:
    """Whose key a found token is. Nothing is changed, and the token is told to nobody."""
    key_id = await identify(call.session, call.body.token)
    key = await _find_shown(call, call.listing, key_id)
    [document] = await _documents(call, [key])
    return Reply(document=document)


async def _changed(
    call: Call, edit: Callable[[Changes], Awaitable[Effect]], *, subject: tuple[str, ...] = ()
) -> Reply:
    """Make a change of the key that the path names."""
    key = await find_own(call, call.listing)
    done = await call.change(
        edit,
        find=find_tag(key.key_id),
        tenant=key.tenant,
        tenant_record=key.tenant_record,
        key_id=key.key_id,
        subject=subject,
        made=key.key_id,
    )
    return changed(done, call, made=key.key_id)


def _verify_may_end(call: Call, key: facts.Key) -> None:
    """Raise `Refusal` for a key that is not the caller's to end.

    Whoever holds a key may end it, whatever its role: to give it up hands out nothing.
    """
    if key.key_id != call.principal.key_id and not may_end(call.giver, key.tenant, key.role):
        raise Refusal(Reason.EXCESS_RIGHTS)


def verify_handed(call: Call, key: facts.Key) -> None:
    """Raise `Refusal` unless the caller may hand out a key with these rights."""
    ends_in = None if key.expires_at is None else key.expires_at - call.now
    handed = Handed(
        tenant=key.tenant, role=key.role, scopes=key.scopes, seconds=ends_in, networks=key.networks
    )
    why = why_not_handed(call.giver, handed)
    if why is not None:
        field, detail = why
        raise Refusal(Reason.EXCESS_RIGHTS, fields=(FieldProblem(f"/{field}" if field else "", detail),))


def _order(call: Call) -> KeyOrder:
    """What the body orders. Raises `Refusal` that names the field."""
    body, own = call.body, call.own
    role = None if own is not None else body.role
    tenant = own
    if own is None and body.tenant is not None:
        tenant = parse_tenant_id(body.tenant)
    kind = KeyKind.TENANT if tenant is not None else KeyKind.ADMIN
    try:
        scopes = None if body.scopes is None else parse_scopes(body.scopes, kind, role)
    except BadNameError as error:
        raise impossible("/scopes", error) from error
    try:
        networks = parse_networks(body.networks)
    except BadNameError as error:
        raise impossible("/networks", error) from error
    # Whoever is bound to networks and names none hands on its own.
    networks = networks or call.giver.networks
    not_before, expires_at = period_of(body, call.now)
    if not body.name.isprintable():
        raise impossible("/name", "it has printable characters only")
    return _checked(
        "/role",
        now=call.now,
        kind=kind,
        tenant=tenant,
        name=body.name,
        role=role,
        scopes=scopes,
        networks=networks,
        not_before=not_before,
        expires_at=expires_at,
        is_decoy=body.decoy,
    )


def _parsed(pointer: str, parse: Callable[[Any], Any], said: Any) -> Any:
    try:
        return parse(said)
    except BadNameError as error:
        raise impossible(pointer, error) from error


def _checked(pointer: str, **members: Any) -> KeyOrder:
    try:
        return KeyOrder(**members)
    except BadNameError as error:
        raise impossible(pointer, error) from error


async def _made(
    call: Call,
    new: NewKey,
    edit: Callable[[Changes], Awaitable[Effect]],
    *,
    key_id: KeyId,
    subject: tuple[str, ...] = (),
    find: Find | None = None,
    ends: Sequence[float] | None = None,
) -> Reply:
    """Make a key, and tell it in the answer. Its mark in the engine's cache is noted at its first use."""
    made, location = new.key.key_id, f"/keys/{new.key.key_id}"
    stored: list[facts.Key] = []

    async def edit_and_read(changes: Changes) -> Effect:
        effect = await edit(changes)
        key = await changes.find_key(made)  # as it is written: with the record of its tenant
        stored[:] = [] if key is None else [key]
        return effect

    done = await call.change(
        edit_and_read,
        find=find,
        tenant=new.key.tenant,
        tenant_record=new.key.tenant_record,
        key_id=key_id,
        subject=subject,
        made=made,
        location=location,
        status=201,
    )
    note = OF_ANOTHER_SYSTEM if new.token is None else SHOWN_ONCE
    told: dict[str, Any] = {
        "token": new.token,
        "note": note,
        "key": key_document(call, stored[0] if stored else new.key, None),
    }
    if ends is None:
        return created(changed(done, call, made=made, kind=KeyMade, **told), location)
    told |= {"replaces": key_id, "old_ends_at": moment(ends[0] if ends else None)}
    return created(changed(done, call, made=made, kind=KeyRotated, **told), location)


_OF_OPERATORS = (
    Operation(
        action=Action.KEYS_ROTATIONS,
        method="GET",
        path="/keys/rotations",
        summary="List rotations whose overlap is not over: both keys are valid until it ends.",
        handle=list_all_rotations,
        query=RotationsQuery,
        reply=Rotations,
        more_refusals=(Reason.IMPOSSIBLE_VALUE, Reason.BUSY),
    ),
    Operation(
        action=Action.KEYS_IDENTIFY,
        method="POST",
        path="/keys/identify",
        summary="Find out whose key a found token is.",
        handle=identify_key,
        body=FoundOne,
        reply=Key,
        holds_found_tokens=True,
        more_refusals=(Reason.CONFLICT,),
    ),
)


def _operations(*, is_own: bool) -> tuple[Operation, ...]:
    """The table: for the admin API, or for the tenants' own routes."""
    return (
        Operation(
            action=Action.KEYS_LIST,
            method="GET",
            path="/keys",
            summary="List keys: of the operators, then tenant by tenant. Revoked ones stay.",
            handle=list_keys,
            query=OwnPagedKeys if is_own else PagedKeys,
            reply=Page[Key],
        ),
        Operation(
            action=Action.KEYS_CREATE,
            method="POST",
            path="/keys",
            summary="Create a key, and tell it, this once.",
            handle=create_key,
            query=Waiting,
            body=OwnKeyNew if is_own else KeyNew,
            reply=KeyMade,
            creates=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_REPORT,
            method="GET",
            path="/keys/report",
            summary="Report keys that were never used, never end, end soon, or came from a new network.",
            handle=report_keys,
            query=OwnReportQuery if is_own else ReportQuery,
            reply=KeyReport,
            more_refusals=(Reason.IMPOSSIBLE_VALUE, Reason.BUSY),
        ),
        *(() if is_own else _OF_OPERATORS),
        Operation(
            action=Action.KEYS_REVOKE_FOUND,
            method="POST",
            path="/keys/revoke-found",
            summary="Revoke the keys among found tokens, and say what the others are.",
            handle=revoke_found,
            query=Waiting,
            body=FoundTokens,
            reply=FoundRevoked,
            holds_found_tokens=True,
            is_safe_to_repeat=True,
        ),
        Operation(
            action=Action.KEYS_READ,
            method="GET",
            path="/keys/{id}",
            summary="Read a key's record. The key itself is stored nowhere.",
            handle=read_key,
            parse_id=parse_key_id,
            has_etag=True,
            reply=Key,
        ),
        Operation(
            action=Action.KEYS_CHANGE,
            method="PATCH",
            path="/keys/{id}",
            summary="Change name, scopes, networks or expiry of a key; null takes an expiry away.",
            handle=change_key,
            parse_id=parse_key_id,
            query=Waiting,
            has_etag=True,
            body=KeyPatch,
            needs_match=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_DISABLE,
            method="POST",
            path="/keys/{id}/disable",
            summary="Refuse a key until it is enabled again, as surely as by revoking it.",
            handle=disable_key,
            parse_id=parse_key_id,
            query=Waiting,
            has_etag=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_ENABLE,
            method="POST",
            path="/keys/{id}/enable",
            summary="Accept a disabled key again.",
            handle=enable_key,
            parse_id=parse_key_id,
            query=Waiting,
            has_etag=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_ROTATE,
            method="POST",
            path="/keys/{id}/rotate",
            summary="Replace a key by a new one with the same rights, and tell it, this once.",
            handle=rotate_key,
            parse_id=parse_key_id,
            query=Waiting,
            body=KeyRotation,
            reply=KeyRotated,
            creates=True,
            has_etag=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_CLOSE,
            method="POST",
            path="/keys/{id}/close",
            summary="End the overlap of a rotation now, by either key: the old one is revoked.",
            handle=close_overlap,
            parse_id=parse_key_id,
            query=Waiting,
            has_etag=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
        Operation(
            action=Action.KEYS_REVOKE,
            method="POST",
            path="/keys/{id}/revoke",
            summary="Refuse a key from now on, in every worker when this is answered.",
            handle=revoke_key,
            parse_id=parse_key_id,
            query=Waiting,
            body=KeyRevocation,
            is_body_optional=True,
            has_etag=True,
            more_refusals=(Reason.EXCESS_RIGHTS,),
        ),
    )


OPERATIONS = _operations(is_own=False)
OWN_OPERATIONS = _operations(is_own=True)
