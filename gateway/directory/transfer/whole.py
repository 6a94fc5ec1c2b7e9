"""Exports the facts of a server and imports them into another, for back-up and migration.

An export contains the policy, tenants, rules, aliases, grants, bindings, issuers and keys, in the order of
`file.py`, each as it was at some moment during the export. An import writes facts that do not exist yet. A
fact that exists with another value is refused, unless merging was requested; then the file's value replaces
it, with one exception: a key or binding that is revoked here stays revoked and a tenant that is suspended
stays suspended, even if an older file says otherwise.

Each batch is a transaction. An import that is interrupted leaves whole batches, and repeating it continues
from there. Non-goals: files (`file.py`), and the audit log.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.directory.records import names
from gateway.directory.records.codec import (
    decode_alias,
    decode_binding,
    decode_grants,
    decode_issuer,
    decode_key,
    decode_rule,
    decode_tenant,
)
from gateway.directory.transfer.file import place_of
from gateway.directory.transfer.lines import Fact, StoredKey, unnumbered
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grants, ModelRule, PolicySet, Tenant
from gateway.model.issuers import Binding, Issuer, issuer_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.model.facts import Key
    from gateway.model.names import TenantId

BATCH = 2_000  # facts per transaction: about 50 ms of the server's time, during which others wait


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Facts to be imported, compared with those that exist. `other` names those that differ."""

    new: int = 0
    same: int = 0
    other: tuple[str, ...] = ()

    def __add__(self, more: Comparison) -> Comparison:
        return Comparison(new=self.new + more.new, same=self.same + more.same, other=self.other + more.other)


async def each_fact(
    listing: Listing, on_total: Callable[[int], None] = lambda _total: None
) -> AsyncIterator[Fact]:
    """Yield every fact of an export, in order; `on_total` is called with their number first."""
    policy = await listing.find_policy()
    tenants = await listing.list_tenants()
    facts: list[Fact] = [*([] if policy is None else [policy]), *tenants]
    facts += sorted(await listing.list_rules(), key=place_of)
    facts += sorted(await listing.list_aliases(), key=place_of)
    facts += sorted(await listing.list_all_grants(), key=place_of)
    facts += sorted(await listing.list_all_bindings(), key=place_of)
    facts += sorted(await listing.list_issuers(), key=place_of)
    there = {tenant.tenant_id for tenant in tenants}
    removed = await listing.list_removed_tenants()  # the keys of these are revoked, and are to stay so
    owners: list[TenantId | None] = [None, *sorted(there.union(removed))]
    key_ids = await listing.list_key_ids(owners)
    on_total(len(facts) + len(key_ids))
    for fact in facts:
        yield unnumbered(fact)
    async for digest, key in listing.each_stored_key(key_ids):
        yield unnumbered(StoredKey(digest=digest, key=key))


async def compare(listing: Listing, facts: Sequence[Fact]) -> Comparison:
    """Compare facts with those that exist. Raises `Conflict` if a key's id belongs to another key here."""
    stored = [fact for fact in facts if isinstance(fact, StoredKey)]
    known = await listing.find_key_digests([one.key.key_id for one in stored])
    for one in stored:
        if known.get(one.key.key_id, one.digest) != one.digest:
            raise Conflict(f"the id {one.key.key_id} belongs to another key here")
    new, same, other = 0, 0, []
    for fact, found in zip(facts, await _find_current(listing, facts), strict=True):
        if found is None:
            new += 1
        elif found == fact:
            same += 1
        else:
            _verify_same_key(fact, found)
            _verify_same_record(fact, found)
            other.append(shown(fact))
    return Comparison(new=new, same=same, other=tuple(other))


async def bring_in(changes: Changes, facts: Sequence[Fact], *, merge: bool) -> Comparison:
    """Write these facts in a transaction. One that differs is a conflict or, when merging, replaced."""
    _verify_digests_differ(facts)
    listing = changes.leniently() if merge else changes
    new, same, other = 0, 0, []
    for fact, found in zip(facts, await _find_current(listing, facts), strict=True):
        wanted = fact if found is None else _merged(fact, found)
        if found is None:
            new += 1
        elif found == wanted:
            same += 1
            continue
        elif merge:
            other.append(shown(fact))
        else:
            raise Conflict(f"{shown(fact)} is there already and says something else; --merge replaces it")
        if isinstance(wanted, StoredKey):
            await changes.put_key(wanted.key, wanted.digest)
        else:
            await changes.put(wanted)
    return Comparison(new=new, same=same, other=tuple(other))


def shown(fact: Fact) -> str:  # noqa: PLR0911 -- one for each kind
    """Return a fact's name, for people."""
    match fact:
        case PolicySet():
            return f"the policy {fact.digest[:12]}"
        case Tenant():
            return f"the tenant {fact.tenant_id}"
        case ModelRule():
            return f"the rule on {fact.pattern}"
        case Alias():
            return f"the alias {fact.alias}"
        case Grants():
            return f"the grants of {fact.tenant_id}"
        case Binding():
            return f"the binding {fact.binding_id}"
        case Issuer():
            return f"the issuer {fact.url}"
        case StoredKey():
            return f"the key {fact.key.key_id}"


def _merged(fact: Fact, found: Fact) -> Fact:
    """Return the file's fact, but keep a revocation or suspension that was made here."""
    _verify_same_key(fact, found)
    _verify_same_record(fact, found)
    if isinstance(fact, Tenant) and isinstance(found, Tenant):
        is_suspended = fact.is_suspended or found.is_suspended
        return replace(fact, is_suspended=is_suspended, removal=fact.removal or found.removal)
    if isinstance(fact, Binding) and isinstance(found, Binding) and found.revoked_at is not None:
        return replace(fact, revoked_at=found.revoked_at)
    if isinstance(fact, StoredKey) and isinstance(found, StoredKey):
        return replace(fact, key=_merged_key(fact.key, found.key))
    return fact


def _merged_key(key: Key, found: Key) -> Key:
    """Return the file's key; what ended the one that is here, in whatever way, ends it too."""
    life, here = key.life, found.life
    if here.replaced_by is not None and life.replaced_by is None:  # it was rotated since, and its end was set
        ends = [one for one in (key.expires_at, found.expires_at) if one is not None]
        key, life = (
            replace(key, expires_at=min(ends, default=None)),
            replace(life, replaced_by=here.replaced_by),
        )
    disabled_at = life.disabled_at if here.disabled_at is None else here.disabled_at
    merged = replace(life, disabled_at=disabled_at, is_decoy=life.is_decoy or here.is_decoy)
    if found.revoked_at is None:
        return replace(key, life=merged)
    merged = replace(merged, revoked_for=here.revoked_for)
    return replace(key, revoked_at=found.revoked_at, life=merged)


def _verify_same_key(fact: Fact, found: Fact) -> None:
    """Raise `Conflict` if one digest has two key ids: one of them was not made by us."""
    if isinstance(fact, StoredKey) and isinstance(found, StoredKey) and fact.key.key_id != found.key.key_id:
        raise Conflict(f"the key {fact.key.key_id} of the file is known here as {found.key.key_id}")


def _verify_same_record(fact: Fact, found: Fact) -> None:
    """Raise `Conflict` if a tenant's name is here that of another record: what is here is not its own."""
    if isinstance(fact, Tenant) and isinstance(found, Tenant) and fact.record_id != found.record_id:
        raise Conflict(
            f"the tenant {fact.tenant_id} of the file ({fact.record_id or 'without a record id'}) is another "
            f"one than the one here ({found.record_id or 'without a record id'}); remove that one first"
        )


def _verify_digests_differ(facts: Sequence[Fact]) -> None:
    digests = [fact.digest for fact in facts if isinstance(fact, StoredKey)]
    if len(set(digests)) != len(digests):
        raise Conflict("two keys of the file have one digest")


async def _find_current(listing: Listing, facts: Sequence[Fact]) -> list[Fact | None]:
    """Return the existing facts of these names, without generations; None for those that do not exist."""
    policy = await listing.find_policy() if any(isinstance(fact, PolicySet) for fact in facts) else None
    placed = [_record_of(fact) for fact in facts if not isinstance(fact, PolicySet)]
    found = iter(await listing.find_all(placed))
    current = [policy if isinstance(fact, PolicySet) else next(found) for fact in facts]
    return [None if one is None else unnumbered(one) for one in current]


def _record_of(  # noqa: PLR0911 -- one for each kind
    fact: Tenant | ModelRule | Alias | Grants | Binding | Issuer | StoredKey,
) -> tuple[bytes, Callable[[bytes], Fact]]:
    """Return the name of a fact's record, and its decoder."""
    match fact:
        case Tenant(tenant_id=tenant):
            return names.tenant_fact(tenant), partial(decode_tenant, tenant_id=tenant)
        case ModelRule(pattern=pattern):
            return names.rule_fact(pattern), partial(decode_rule, pattern=pattern)
        case Alias(alias=alias):
            return names.alias_fact(alias), partial(decode_alias, alias=alias)
        case Grants(tenant_id=tenant):
            return names.grants_fact(tenant), partial(decode_grants, tenant_id=tenant)
        case Binding(digest=digest):
            return names.binding_fact(digest), partial(decode_binding, digest=digest)
        case Issuer(url=url):
            digest = issuer_digest(url)
            return names.issuer_fact(digest), partial(decode_issuer, digest=digest)
        case StoredKey(digest=digest):
            return names.key_fact(digest), lambda raw: StoredKey(digest=digest, key=decode_key(raw, digest))
        case _:
            raise TypeError("a policy set is two records, read by the listing")
