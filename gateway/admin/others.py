"""Operations on blobs in quarantine, outside issuers and their bindings.

An issuer is what its document in the policy folder says: it is read here, and changed there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.admin.call import Reply, changed
from gateway.admin.documents import (
    Binding,
    Issuer,
    Paged,
    PagedBindings,
    Quarantined,
    Release,
    Waiting,
    moment,
)
from gateway.admin.operation import Operation
from gateway.admin.pages import Page, cut
from gateway.directory.edits import bindings, pins
from gateway.directory.reading.key_usage import find_last_uses
from gateway.directory.records import names
from gateway.model.access import Action
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import KeyId, parse_binding_id, parse_md5, parse_tenant_id
from gateway.operations.binding_listings import binding_view

if TYPE_CHECKING:
    from gateway.admin.call import Call, Find
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.listing import Listing
    from gateway.model import issuers
    from gateway.model.names import Md5
    from gateway.model.pins import Pin


def _quarantined(pin: Pin) -> Quarantined:
    held = pin.quarantine
    return Quarantined(
        md5=pin.md5,
        cause=None if held is None else held.cause.value,
        since=None if held is None else moment(held.since),
        pinned_sha256=pin.sha256,
        found_sha256=None if held is None else held.found_sha256,
        size=pin.size,
        generation=pin.generation,
    )


async def list_quarantine(call: Call) -> Reply:
    """A page of the blobs in quarantine, by name."""
    md5s, is_more = await call.listing.page_of(
        names.QUARANTINED, parse_md5, after=call.query.after, limit=call.query.limit
    )
    items = [_quarantined(one) for one in await call.listing.find_pins(md5s)]
    after = md5s[-1] if is_more and md5s else None
    return Reply(document=Page(items=items, after=after), next_after=after)


async def read_quarantined(call: Call) -> Reply:
    """A blob in quarantine."""
    pin = await call.listing.find_pin(parse_md5(call.id))
    if pin is None or pin.quarantine is None:
        raise Refusal(Reason.ABSENT)
    return Reply(document=_quarantined(pin), generation=pin.generation)


async def release_quarantined(call: Call) -> Reply:
    """End a quarantine. What is on disk is checked at the next read, and comes back unless it is right."""
    md5 = parse_md5(call.id)

    async def edit(changes: Changes) -> Effect:
        pin = await changes.find_pin(md5)
        if pin is None:
            raise Refusal(Reason.ABSENT)
        return await pins.release_blob(changes, md5=md5, forget=call.body.forget)

    subject = (md5, *(["pin forgotten"] if call.body.forget else []))
    done = await call.change(edit, find=_find_pin_tag(md5), subject=subject, made=md5)
    return changed(done, call, made=md5)


def _find_pin_tag(md5: Md5) -> Find:
    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_pin(md5)
        return None if found is None else str(found.generation)

    return find


def parse_issuer(text: str) -> str:
    """The name of an issuer's document. Raises `BadNameError`."""
    if not text.isascii() or not text.isprintable() or "/" in text:
        raise BadNameError("not the name of an issuer")
    return text


async def _issuer(call: Call, issuer: issuers.Issuer) -> Issuer:
    return Issuer(
        id=issuer.name,
        url=issuer.url,
        audience=issuer.audience,
        key_set_url=issuer.key_set_url,
        rules=[rule.name for rule in issuer.rules],
        bindings=await call.listing.count_bindings(issuer.url),
        generation=issuer.generation,
    )


async def list_issuers(call: Call) -> Reply:
    """A page of outside issuers, by name."""
    found = [(one.name, one) for one in await call.listing.list_issuers()]
    page, is_more = cut(found, call.query.after, call.query.limit)
    after = page[-1][0] if is_more else None
    items = [await _issuer(call, one) for _, one in page]
    return Reply(document=Page(items=items, after=after), next_after=after)


async def read_issuer(call: Call) -> Reply:
    """One issuer."""
    for one in await call.listing.list_issuers():
        if one.name == call.id:
            return Reply(document=await _issuer(call, one), generation=one.generation)
    raise Refusal(Reason.ABSENT)


def _binding(issuer: issuers.Issuer | None, binding: issuers.Binding, last_used: float | None) -> Binding:
    view = binding_view(issuer, binding, last_used)
    return Binding(
        id=binding.binding_id,
        issuer=None if issuer is None else issuer.name,
        issuer_url=binding.url,
        subject=binding.subject,
        tenant=binding.tenant,
        tenant_record=binding.tenant_record,
        state=view.state,
        rules=view.rules,
        rules_gone=view.rules_gone,
        scopes=view.scopes,
        networks=view.networks,
        first_seen_at=moment(binding.created_at),
        last_used_at=moment(last_used),
        revoked_at=moment(binding.revoked_at),
        generation=binding.generation,
    )


async def _bindings(call: Call, found: list[issuers.Binding]) -> list[Binding]:
    seen = await find_last_uses(call.session.store, [KeyId(one.binding_id) for one in found])
    by_url = {one.url: one for one in await call.listing.list_issuers()}
    return [_binding(by_url.get(one.url), one, seen.get(KeyId(one.binding_id))) for one in found]


async def list_bindings(call: Call) -> Reply:
    """A page of bindings: issuer by issuer, the oldest first. A place in the list is the id of one."""
    only = None if call.query.tenant is None else parse_tenant_id(call.query.tenant)
    everything = await call.listing.list_all_bindings()
    tenant = None if only is None else await call.listing.find_tenant(only)
    record = None if tenant is None else tenant.record_id
    asked = [one for one in everything if only is None or (one.tenant, one.tenant_record) == (only, record)]
    if call.query.issuer is not None:
        urls = {one.url for one in await call.listing.list_issuers() if one.name == call.query.issuer}
        if not urls:
            raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=f"There is no issuer {call.query.issuer}.")
        asked = [one for one in asked if one.url in urls]
    ids = [str(one.binding_id) for one in asked]
    if call.query.after is not None and call.query.after not in ids:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail="There is no such binding to go on from.")
    start = 0 if call.query.after is None else ids.index(call.query.after) + 1
    page = asked[start : start + call.query.limit]
    after = str(page[-1].binding_id) if page and start + len(page) < len(asked) else None
    items = await _bindings(call, page)
    return Reply(document=Page(items=items, after=after), next_after=after)


async def read_binding(call: Call) -> Reply:
    """One binding."""
    found = await call.listing.find_binding_by_id(parse_binding_id(call.id))
    if found is None:
        raise Refusal(Reason.ABSENT)
    [document] = await _bindings(call, [found])
    return Reply(document=document, generation=found.generation)


async def revoke_binding(call: Call) -> Reply:
    """Refuse all tokens of a subject from now on."""
    return await _act(call, partial(bindings.revoke_binding, now=call.now))


async def forget_binding(call: Call) -> Reply:
    """Delete a binding: a token of its subject that a rule matches makes another."""
    return await _act(call, bindings.forget_binding)


async def _act(call: Call, edit: Any) -> Reply:
    binding_id = parse_binding_id(call.id)

    async def find(facts_now: Listing) -> str | None:
        found = await facts_now.find_binding_by_id(binding_id)
        return None if found is None else str(found.generation)

    bound = partial(edit, binding_id=binding_id)
    done = await call.change(bound, find=find, key_id=binding_id, made=binding_id)
    return changed(done, call, made=binding_id)


OPERATIONS = (
    Operation(
        action=Action.QUARANTINE_LIST,
        method="GET",
        path="/quarantine",
        summary="List blobs that are not served, because their content is not what it should be.",
        handle=list_quarantine,
        query=Paged,
        reply=Page[Quarantined],
    ),
    Operation(
        action=Action.QUARANTINE_READ,
        method="GET",
        path="/quarantine/{id}",
        summary="Read why a blob is not served.",
        handle=read_quarantined,
        parse_id=parse_md5,
        has_etag=True,
        reply=Quarantined,
    ),
    Operation(
        action=Action.QUARANTINE_RELEASE,
        method="POST",
        path="/quarantine/{id}/release",
        summary="Serve a blob again, if its content is right now.",
        handle=release_quarantined,
        parse_id=parse_md5,
        query=Waiting,
        body=Release,
        has_etag=True,
    ),
    Operation(
        action=Action.ISSUERS_LIST,
        method="GET",
        path="/issuers",
        summary="List outside issuers. The policy folder has their documents.",
        handle=list_issuers,
        query=Paged,
        reply=Page[Issuer],
    ),
    Operation(
        action=Action.ISSUERS_READ,
        method="GET",
        path="/issuers/{id}",
        summary="Read an outside issuer.",
        handle=read_issuer,
        parse_id=parse_issuer,
        has_etag=True,
        reply=Issuer,
    ),
    Operation(
        action=Action.BINDINGS_LIST,
        method="GET",
        path="/bindings",
        summary="List the subjects of outside issuers that act for tenants.",
        handle=list_bindings,
        query=PagedBindings,
        reply=Page[Binding],
        more_refusals=(Reason.IMPOSSIBLE_VALUE,),
    ),
    Operation(
        action=Action.BINDINGS_READ,
        method="GET",
        path="/bindings/{id}",
        summary="Read a binding.",
        handle=read_binding,
        parse_id=parse_binding_id,
        has_etag=True,
        reply=Binding,
    ),
    Operation(
        action=Action.BINDINGS_REVOKE,
        method="POST",
        path="/bindings/{id}/revoke",
        summary="Refuse all tokens of a subject from now on.",
        handle=revoke_binding,
        parse_id=parse_binding_id,
        query=Waiting,
        has_etag=True,
    ),
    Operation(
        action=Action.BINDINGS_FORGET,
        method="POST",
        path="/bindings/{id}/forget",
        summary="Delete a binding. A token of its subject that a rule matches makes another.",
        handle=forget_binding,
        parse_id=parse_binding_id,
        query=Waiting,
        has_etag=True,
    ),
)
