"""Writes facts within one transaction: typed puts and deletes that keep records and indexes consistent.

A change writes three things together or none: the record, the indexes that list it, and the transaction's
generation in the record. Reads through `Changes` already show what was put before in the same transaction, so
edits can be combined.

`change` runs a function in a transaction. The function may run several times, until no other process commits
in between; so it must only read and write facts through its `Changes`.

A record that does not parse stops a change that reads it: continuing without it could turn a denial into an
allow. Putting a new record over it is allowed and repairs it.

All writers are coroutines, though few have to wait, so that their callers need not distinguish them.

Non-goals: whether a change is sensible (`edits/`), and recording it in the audit log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from gateway.directory.reading.degraded_modes import encode_former, find_former
from gateway.directory.reading.listing import Listing, refuse_unreadable
from gateway.directory.reading.uncached import PendingFacts, PlainFacts
from gateway.directory.records import names
from gateway.directory.records.codec import encode, encode_key
from gateway.directory.records.policies import decode_policy_head, encode_policy
from gateway.model.errors import Conflict
from gateway.model.facts import MAX_DEGRADED_SECONDS, Alias, Grants, ModelRule, PolicySet, Tenant, Visibility
from gateway.model.issuers import Binding, Issuer, issuer_digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.model.facts import Grant, Key
    from gateway.model.names import KeyId, Md5, ModelId, Pattern, TenantId
    from gateway.model.pins import Pin
    from gateway.model.records import Record
    from gateway.model.stores import Batch, FactSnapshot, FactStore, GroupSize, Moment

_T = TypeVar("_T")


async def change(store: FactStore, work: Callable[[Changes], Awaitable[_T]]) -> tuple[_T, Moment]:
    """Run `work` in one transaction; return its result and the moment after the commit."""
    return await store.transact(lambda snapshot, batch: work(Changes(snapshot, batch)))


MAX_GRANTS = 5_000  # per tenant: a worker reads all of them before its first decision
MAX_GRANTED_NAMES = 20_000  # in all grants of a tenant together
MAX_GROUPS_OF_PATTERN = 1_000  # each is checked whenever a model of the pattern is


class Changes(Listing):
    """The facts within one transaction: all readers of `Listing`, and the writers."""

    def __init__(self, snapshot: FactSnapshot, batch: Batch) -> None:
        super().__init__(PendingFacts(snapshot, batch), on_unreadable=refuse_unreadable)
        self._snapshot = snapshot
        self._batch = batch

    @property
    def generation(self) -> int:
        """The generation of the records that are put here."""
        return self._snapshot.next_generation

    @property
    def source(self) -> PlainFacts:
        """The records as they will be after this transaction."""
        return self._source

    def leniently(self) -> Listing:
        """The same facts without those that do not parse, for callers that are about to replace them."""
        return Listing(self._source)

    async def put(self, fact: PolicySet | Tenant | ModelRule | Alias | Grants | Issuer | Binding) -> None:
        """Write a fact of a kind that tenant documents or exports have."""
        match fact:
            case PolicySet():
                await self.put_policy(fact)
            case Tenant():
                await self.put_tenant(fact)
            case ModelRule():
                await self.put_rule(fact)
            case Alias():
                await self.put_alias(fact)
            case Grants():
                await self.put_grants(fact)
            case Issuer():
                await self.put_issuer(fact)
            case Binding():
                await self.put_binding(fact)

    async def put_tenant(self, tenant: Tenant, *, is_listed: bool = True) -> None:
        """Write a tenant; one that is not listed is found only by its id."""
        await self._remember_degraded_period(tenant)
        await self.put_fact(names.tenant_fact(tenant.tenant_id), tenant)
        if is_listed:
            self._list(names.TENANTS, tenant.tenant_id.encode())

    async def delete_tenant(self, tenant_id: TenantId, *, has_ended_keys: bool = False) -> None:
        """Delete a tenant and its grants. A tenant that has keys cannot be deleted; suspend it instead.

        `has_ended_keys`: all of them are known to be revoked.
        """
        if not has_ended_keys and await self.has_keys(tenant_id):
            raise Conflict(f"tenant {tenant_id} has keys; suspend it instead of deleting it")
        self._put(names.tenant_fact(tenant_id), None)
        self._put(names.grants_fact(tenant_id), None)
        if has_ended_keys:
            self._list(names.REMOVED_TENANTS, tenant_id.encode())
        self._unlist(names.TENANTS, tenant_id.encode())

    async def put_grants(self, grants: Grants) -> None:
        """Write all grants of a tenant; without any, delete the record.

        Raises `Conflict` for more than a worker can read in time, unless they are fewer than before.
        """
        count, named = len(grants.grants), _names_in(grants.grants)
        if count > MAX_GRANTS or named > MAX_GRANTED_NAMES:
            before = await self.leniently().list_grants(grants.tenant_id)
            if count > len(before) or named > _names_in(before):
                raise Conflict(
                    f"tenant {grants.tenant_id} would have {count} grants that name {named} patterns, groups "
                    f"and packages; at most {MAX_GRANTS} and {MAX_GRANTED_NAMES}: grant a prefix such as "
                    "acme/*, or a group"
                )
        name = names.grants_fact(grants.tenant_id)
        if grants.grants:
            await self.put_fact(name, grants)
        else:
            self._put(name, None)

    async def put_rule(self, rule: ModelRule) -> None:
        """Write the rule of a pattern; an empty rule is deleted."""
        if rule.visibility is not Visibility.PUBLIC and rule.has_times:
            raise TypeError("only a publication has times")
        if rule.owner is None and rule.visibility is None and not rule.groups:
            await self.delete_rule(rule.pattern)
            return
        if len(rule.groups) > MAX_GROUPS_OF_PATTERN:
            raise Conflict(
                f"{rule.pattern} would be in {len(rule.groups)} groups; at most {MAX_GROUPS_OF_PATTERN}"
            )
        await self.put_fact(names.rule_fact(rule.pattern), rule)
        self._list(names.PATTERNS, rule.pattern.encode())

    async def delete_rule(self, pattern: Pattern) -> None:
        """Delete a pattern's rule."""
        self._put(names.rule_fact(pattern), None)
        self._unlist(names.PATTERNS, pattern.encode())

    async def put_alias(self, alias: Alias) -> None:
        """Write an alias of a model."""
        await self.put_fact(names.alias_fact(alias.alias), alias)
        self._list(names.ALIASES, alias.alias.encode())

    async def delete_alias(self, alias: ModelId) -> None:
        """Delete an alias."""
        self._put(names.alias_fact(alias), None)
        self._unlist(names.ALIASES, alias.encode())

    async def put_key(self, key: Key, digest: bytes) -> None:
        """Write a key under its keyed hash."""
        self._put(names.key_fact(digest), encode_key(replace(key, generation=self.generation), digest))
        self._list(names.key_set(key.tenant), names.short_key_id(key.key_id))
        self._batch.hash_put.append((*names.key_digest(key.key_id), digest))

    async def delete_key(self, key_id: KeyId) -> None:
        """Delete a key's record. Operators usually revoke instead, which keeps it for the audit log."""
        digest = await self.find_key_digest(key_id)
        key = await self.find_key(key_id)
        if digest is None or key is None:
            raise Conflict(f"there is no key {key_id}")
        self._put(names.key_fact(digest), None)
        self._unlist(names.key_set(key.tenant), names.short_key_id(key_id))
        self._batch.hash_drop.append(names.key_digest(key_id))

    async def put_issuer(self, issuer: Issuer) -> None:
        """Write an outside issuer."""
        digest = issuer_digest(issuer.url)
        await self.put_fact(names.issuer_fact(digest), issuer)
        self._list(names.ISSUERS, digest.hex().encode())

    async def delete_issuer(self, url: str) -> None:
        """Delete an outside issuer and its keys. Its bindings stay: what was revoked has to stay revoked."""
        digest = issuer_digest(url)
        self._put(names.issuer_fact(digest), None)
        self._put(names.key_set_fact(digest), None)
        self._unlist(names.ISSUERS, digest.hex().encode())

    async def put_binding(self, binding: Binding) -> None:
        """Write a binding."""
        await self.put_fact(names.binding_fact(binding.digest), binding)
        issuer = issuer_digest(binding.url)
        self._list(names.issuer_bindings(issuer), binding.digest.hex().encode())
        self._list(names.BOUND_ISSUERS, issuer.hex().encode())
        self._batch.hash_put.append((*names.binding_digest(binding.binding_id), binding.digest))

    async def delete_binding(self, binding: Binding) -> None:
        """Delete a binding. A token of its subject makes another."""
        self._put(names.binding_fact(binding.digest), None)
        self._unlist(names.issuer_bindings(issuer_digest(binding.url)), binding.digest.hex().encode())
        self._batch.hash_drop.append(names.binding_digest(binding.binding_id))

    async def put_policy(self, policy: PolicySet) -> None:
        """Put a policy set into force, and delete the texts of the previous one."""
        head, text_digest, text = encode_policy(replace(policy, generation=self.generation))
        old = await self._find_text_digest()
        if old is not None and old != text_digest:
            self._put(names.policy_text(old), None)
        self._put(names.policy_text(text_digest), text)
        self._put(names.POLICY, head)

    async def put_pin(self, pin: Pin) -> None:
        """Write a blob's pin."""
        await self.put_fact(names.pin_fact(pin.md5), pin)
        (self._unlist if pin.quarantine is None else self._list)(names.QUARANTINED, pin.md5.encode())

    async def delete_pin(self, md5: Md5) -> None:
        """Delete a blob's pin: the next content that fits its name is trusted on first use."""
        self._put(names.pin_fact(md5), None)
        self._unlist(names.QUARANTINED, md5.encode())

    async def put_fact(self, name: bytes, fact: Record) -> None:
        """Write a fact that is in no index, or whose indexes the caller writes."""
        self._put(name, encode(replace(fact, generation=self.generation)))

    async def put_for(self, seconds: float, name: bytes, record: bytes | None) -> None:
        """Write a record that expires, or delete it; used for the platform's rulings."""
        self._put(name, record)
        if record is not None:
            self._batch.seconds[name] = seconds

    async def put_listed(self, name: bytes, record: bytes, index: bytes) -> None:
        """Write a record that is no fact, and list it by the last part of its name."""
        self._put(name, record)
        self._list(index, name.rpartition(b":")[2])

    async def put_group(self, group: GroupSize) -> None:
        """Write how many servers of the replication group hold the facts."""
        self._batch.group = group

    async def put_pepper_fingerprint(self, pepper_id: str, fingerprint: str) -> None:
        """Store the fingerprint of a pepper; a node with a different pepper is detected by it."""
        self._list(names.PEPPERS, f"{pepper_id}:{fingerprint}".encode())

    async def put_signing_note(self, kid: str, since: float) -> None:
        """Note that a key signs access tokens from now on, instead of those noted before."""
        self._list(names.SIGNING_KEYS, f"{kid}:{since:.3f}".encode())

    async def _remember_degraded_period(self, tenant: Tenant) -> None:
        """Store the former degraded period when it is shortened: a disconnected worker still uses it."""
        try:
            known = await self.find_tenant(tenant.tenant_id)
            former = known.degraded_seconds if known is not None else 0.0
        except Conflict:
            former = MAX_DEGRADED_SECONDS  # the record does not parse, so assume the longest
        if former > tenant.degraded_seconds:
            earlier = [one.seconds for one in await find_former(self._source, [tenant.tenant_id])]
            remembered = encode_former(max([former, *earlier]), self.generation)
            self._batch.hash_put.append((names.DEGRADED, tenant.tenant_id.encode(), remembered))

    async def _find_text_digest(self) -> bytes | None:
        [head] = await self.leniently().find_all([(names.POLICY, decode_policy_head)])
        # One that does not parse is repaired by the new set; at worst a text that no head names remains.
        return None if head is None else head.text_digest

    def _put(self, name: bytes, record: bytes | None) -> None:
        self._batch.facts[name] = record

    def _list(self, index: bytes, member: bytes) -> None:
        _discard(self._batch.set_remove, (index, member))
        self._batch.set_add.append((index, member))

    def _unlist(self, index: bytes, member: bytes) -> None:
        _discard(self._batch.set_add, (index, member))
        self._batch.set_remove.append((index, member))


def _discard(entries: list[tuple[bytes, bytes]], entry: tuple[bytes, bytes]) -> None:
    while entry in entries:
        entries.remove(entry)


def _names_in(grants: Iterable[Grant]) -> int:
    """Count the patterns, groups and packages that these grants name."""
    return sum(len(one.models) + len(one.groups) + len(one.packages) for one in grants)
