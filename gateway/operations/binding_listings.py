"""What operators see of bindings: the fact, and what the rules in force give the tokens of its subject.

A rule by which a subject came and that is no longer in force gives nothing, and is shown as gone. Scopes and
networks are those of all its rules together; each token gets those of the one rule that it matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.directory.reading.key_usage import find_last_uses
from gateway.model.errors import UnknownName
from gateway.model.moments import when
from gateway.model.names import BindingId, KeyId, TenantId
from gateway.operations.known_names import find_nearest, verify_tenant

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.model.issuers import Binding, Issuer
    from gateway.operations.session import OperatorSession

LIVE, REVOKED, UNMAPPED = "live", "revoked", "unmapped"


class BindingView(msgspec.Struct, frozen=True, kw_only=True):
    """A binding. `state` is `unmapped` where no rule by which it came is in force for its tenant."""

    binding_id: BindingId
    issuer: str
    issuer_url: str
    subject: str
    tenant: TenantId
    state: str
    rules: list[str]
    rules_gone: list[str]
    scopes: list[str]
    networks: list[str]
    first_seen_at: str | None
    last_used_at: str | None
    revoked_at: str | None


async def list_bindings(
    session: OperatorSession, issuer: str | None, tenant: TenantId | None
) -> list[BindingView]:
    """The bindings of all issuers, or of one that has a document; of all tenants, or of one."""
    if tenant is not None:
        await verify_tenant(session, tenant)
    issuers = await session.listing.list_issuers()
    known = [one.name for one in issuers]
    if issuer is not None and issuer not in known:
        raise unknown_issuer(issuer, known)
    by_url = {one.url: one for one in issuers}
    owner = None if tenant is None else await session.listing.find_tenant(tenant)
    record = None if owner is None else owner.record_id
    found = [
        binding
        for binding in await session.listing.list_all_bindings()
        if (tenant is None or (binding.tenant, binding.tenant_record) == (tenant, record))
        and (issuer is None or (binding.url in by_url and by_url[binding.url].name == issuer))
    ]
    seen = await find_last_uses(session.store, [KeyId(binding.binding_id) for binding in found])
    return [binding_view(by_url.get(one.url), one, seen.get(KeyId(one.binding_id))) for one in found]


def unknown_issuer(issuer: str, known: Collection[str]) -> UnknownName:
    """The error for an issuer that has no document."""
    nearest = find_nearest(issuer, known)
    advice = "`policies/issuers` has a document for each"
    return UnknownName("issuer", issuer, f"the nearest is {nearest}; {advice}" if nearest else advice)


async def find_binding(session: OperatorSession, binding_id: BindingId) -> BindingView:
    """One binding."""
    binding = await session.listing.find_binding_by_id(binding_id)
    if binding is None:
        raise UnknownName("binding", binding_id, "`cachegate bindings list` shows them")
    key_id = KeyId(binding_id)
    seen = await find_last_uses(session.store, [key_id])
    return binding_view(await session.listing.find_issuer(binding.url), binding, seen.get(key_id))


def binding_view(issuer: Issuer | None, binding: Binding, last_used: float | None) -> BindingView:
    """A binding, and what the rules in force of its issuer's document give it."""
    in_force = {} if issuer is None else {one.name: one for one in issuer.rules}
    rules = [in_force[name] for name in binding.rules if name in in_force]
    rules = [rule for rule in rules if rule.tenant == binding.tenant]
    state = LIVE if rules else UNMAPPED
    is_free = any(not rule.networks for rule in rules)
    networks = () if is_free else sorted({one for rule in rules for one in rule.networks})
    return BindingView(
        binding_id=binding.binding_id,
        issuer="-" if issuer is None else issuer.name,
        issuer_url=binding.url,
        subject=binding.subject,
        tenant=binding.tenant,
        state=state if binding.revoked_at is None else REVOKED,
        rules=[rule.name for rule in rules],
        rules_gone=[name for name in binding.rules if name not in {rule.name for rule in rules}],
        scopes=sorted({scope.value for rule in rules for scope in rule.scopes}),
        networks=list(networks),
        first_seen_at=when(binding.created_at),
        last_used_at=when(last_used),
        revoked_at=when(binding.revoked_at),
    )
