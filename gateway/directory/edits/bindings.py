"""Makes, revokes and forgets bindings: that a subject of an outside issuer acts for a tenant.

A subject is of one tenant. If a rule maps it to another one, and the issuer's document has not changed since
the binding was written, the token is refused: two rules that can match tokens of one subject must agree.
A tenant that was made under the name of a removed one is another one in this, too. A tenant that does not
exist gets no bindings.
Where the document has changed, the binding moves to the tenant that the rule in force names.

The record of a revoked binding is kept. The mapping never makes another one for its subject, and an operator
who wants that forgets the binding first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect
from gateway.model.errors import Reason, Refusal, UnknownName

if TYPE_CHECKING:
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.model.issuers import Binding, Issuer, MappingRule
    from gateway.model.names import BindingId


async def make_binding(changes: Changes, *, issuer: Issuer, rule: MappingRule, new: Binding) -> None:
    """Write the binding of a subject that came by this rule. Raises `Refusal` where it may have none.

    Writes nothing if the rule is no longer in force or the binding was revoked: the token is decided anew.
    """
    current = await changes.find_issuer(issuer.url)
    tenant = await changes.find_tenant(rule.tenant)
    if current is None or rule not in current.rules or tenant is None or tenant.removal is not None:
        return
    new = replace(new, tenant_record=tenant.record_id)
    known = await changes.find_binding(new.digest)
    if known is None:
        await verify_room(changes, current)
        await changes.put_binding(new)
    elif known.revoked_at is not None:
        return
    elif known.tenant == rule.tenant and known.tenant_record == tenant.record_id:
        if rule.name not in known.rules:
            in_force = {one.name for one in current.rules}
            kept = tuple(name for name in known.rules if name in in_force)
            await changes.put_binding(replace(known, rules=(*kept, rule.name)))
    elif known.generation > current.generation:
        raise Refusal(
            Reason.AMBIGUOUS_TOKEN,
            key_id=known.binding_id,
            tenant=known.tenant,
            tenant_record=known.tenant_record,
        )
    else:
        moved = replace(known, tenant=rule.tenant, tenant_record=tenant.record_id, rules=(rule.name,))
        await changes.put_binding(moved)


async def verify_room(facts: Listing, issuer: Issuer) -> None:
    """Raise `Refusal(TOO_MANY_BINDINGS)` when an issuer has as many bindings as it may have."""
    if await facts.count_bindings(issuer.url) >= issuer.max_bindings:
        raise Refusal(Reason.TOO_MANY_BINDINGS)


async def revoke_binding(changes: Changes, *, binding_id: BindingId, now: float) -> Effect:
    """Revoke a binding. A second revocation changes nothing and keeps the time of the first."""
    binding = await _load_binding(changes, binding_id)
    if binding.revoked_at is not None:
        return Effect(is_changed=False, sentences=(f"binding {binding_id} was revoked already",))
    await changes.put_binding(replace(binding, revoked_at=now))
    return Effect(is_changed=True, sentences=(f"binding {binding_id} is revoked",))


async def forget_binding(changes: Changes, *, binding_id: BindingId) -> Effect:
    """Delete a binding, revoked or not: it no longer counts among those of its issuer."""
    binding = await _load_binding(changes, binding_id)
    await changes.delete_binding(binding)
    sentence = f"binding {binding_id} is forgotten; a token of its subject that a rule matches makes another"
    return Effect(is_changed=True, sentences=(sentence,))


async def _load_binding(changes: Changes, binding_id: BindingId) -> Binding:
    binding = await changes.find_binding_by_id(binding_id)
    if binding is None:
        raise UnknownName("binding", binding_id, "`cachegate bindings list` shows them")
    return binding
