"""Typed readers of facts by name or of a whole kind, for commands, the admin API and the catalogue.

The request path does not use this module: it knows the names that it needs, while these readers use the
indexes. The same readers work on a live store and on the snapshot within a transaction (`uncached.py`).

An index decides nothing: a name in it without a record is skipped. In a list, a record that does not parse is
reported and skipped, since one bad record must not hide the others from the operator; when it is read by
name, it raises `Conflict`.
"""

from __future__ import annotations

import re
from functools import partial
from heapq import nsmallest
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NoReturn, TypeVar

from gateway.directory.records import names
from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_alias,
    decode_binding,
    decode_grants,
    decode_issuer,
    decode_key,
    decode_key_set,
    decode_pin,
    decode_rule,
    decode_tenant,
)
from gateway.directory.records.policies import decode_policy, decode_policy_head
from gateway.model.errors import BadNameError, Conflict
from gateway.model.issuers import issuer_digest
from gateway.model.names import (
    ModelId,
    parse_key_id,
    parse_md5,
    parse_model_id,
    parse_pattern,
    parse_tenant_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from gateway.directory.reading.uncached import PlainFacts
    from gateway.model.facts import Alias, Grant, Grants, Key, ModelRule, PolicySet, Tenant
    from gateway.model.issuers import Binding, Issuer, IssuerKeySet
    from gateway.model.names import BindingId, KeyId, Md5, Pattern, TenantId
    from gateway.model.pins import Pin

_T = TypeVar("_T")
_NameT = TypeVar("_NameT", bound=str)

_SIGNING_NOTE = re.compile(rb"([A-Za-z0-9_-]{43}):([0-9]{1,12}(?:\.[0-9]{1,9})?)")

PAGE = 500  # records per read: large enough for speed, small enough not to delay other clients


def refuse_unreadable(name: str) -> NoReturn:
    """Raise the `Conflict` of a change that needs a record which does not parse."""
    raise Conflict(
        f"the record {name} does not parse, so nothing that depends on it can be changed; "
        "restore it from an export, or delete it with DEL and enter the fact again"
    )


class Listing:
    """Typed readers of facts. `on_unreadable` is called with the names of records that do not parse."""

    def __init__(self, source: PlainFacts, *, on_unreadable: Callable[[str], None] | None = None) -> None:
        self._source = source
        self._on_unreadable = on_unreadable

    async def find_tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Return a tenant by its id."""
        return await self.find_fact(names.tenant_fact(tenant_id), partial(decode_tenant, tenant_id=tenant_id))

    async def find_rule(self, pattern: Pattern) -> ModelRule | None:
        """Return the rule of exactly this pattern."""
        return await self.find_fact(names.rule_fact(pattern), partial(decode_rule, pattern=pattern))

    async def find_alias(self, alias: ModelId) -> Alias | None:
        """Return the alias of this name."""
        return await self.find_fact(names.alias_fact(alias), partial(decode_alias, alias=alias))

    async def find_key(self, key_id: KeyId) -> Key | None:
        """Return a key by its public id."""
        digest = await self.find_key_digest(key_id)
        return None if digest is None else await self.find_key_by_digest(digest)

    async def find_key_by_digest(self, digest: bytes) -> Key | None:
        """Return a key by its keyed hash."""
        return await self.find_fact(names.key_fact(digest), partial(decode_key, digest=digest))

    async def find_keys_by_digest(self, digests: Sequence[bytes]) -> list[Key | None]:
        """Return the keys under these keyed hashes, in order; None for those that are unknown."""
        return await self.find_all(
            [(names.key_fact(one), partial(decode_key, digest=one)) for one in digests]
        )

    async def find_key_digest(self, key_id: KeyId) -> bytes | None:
        """Return the digest under which the key with this id is stored."""
        name, field = names.key_digest(key_id)
        (digest,) = await self._source.hash_fields(name, [field])
        if digest is not None and len(digest) != names.DIGEST_BYTES:
            refuse_unreadable(f"{name.decode()} (field {field.decode()})")
        return digest

    async def find_policy(self) -> PolicySet | None:
        """Return the policy set in force."""
        head = await self.find_fact(names.POLICY, decode_policy_head)
        if head is None:
            return None
        text_name = names.policy_text(head.text_digest)
        policy = await self.find_fact(text_name, partial(decode_policy, head=head))
        return policy if policy is not None else refuse_unreadable(text_name.decode())

    async def pepper_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of every pepper that keys were stored under, by the pepper's id."""
        noted = [raw.decode(errors="replace") for raw in await self._source.members(names.PEPPERS)]
        return {pepper_id: fingerprint for pepper_id, _, fingerprint in (one.partition(":") for one in noted)}

    async def signing_notes(self) -> dict[str, float]:
        """Return since when each key that was chosen to sign access tokens does, by its kid.

        A note that does not parse is reported and skipped: the key it is about signs nothing.
        """
        notes: dict[str, float] = {}
        for raw in await self._source.members(names.SIGNING_KEYS):
            match = _SIGNING_NOTE.fullmatch(raw)
            if match is not None:
                notes[match[1].decode()] = float(match[2])
            elif self._on_unreadable is not None:
                self._on_unreadable(names.SIGNING_KEYS.decode())
        return notes

    async def find_pin(self, md5: Md5) -> Pin | None:
        """Return a blob's pin."""
        return await self.find_fact(names.pin_fact(md5), partial(decode_pin, md5=md5))

    async def find_pins(self, md5s: Sequence[Md5]) -> list[Pin]:
        """Return the pins of those of these blobs that have one."""
        return await self._facts([(names.pin_fact(md5), partial(decode_pin, md5=md5)) for md5 in md5s])

    async def list_quarantined(self) -> list[Pin]:
        """Return the pins of all blobs in quarantine."""
        return await self.find_pins(await self._members(names.QUARANTINED, parse_md5))

    async def list_grants(self, tenant_id: TenantId) -> tuple[Grant, ...]:
        """Return all grants of one tenant."""
        found = await self.find_fact(
            names.grants_fact(tenant_id), partial(decode_grants, tenant_id=tenant_id)
        )
        return () if found is None else found.grants

    async def find_grants(self, tenant_id: TenantId) -> Grants | None:
        """Return the record of the grants under a tenant's name; it may be that of an earlier tenant."""
        return await self.find_fact(names.grants_fact(tenant_id), partial(decode_grants, tenant_id=tenant_id))

    async def list_tenants(self) -> list[Tenant]:
        """Return all tenants, by id."""
        return await self.find_tenants(await self._members(names.TENANTS, parse_tenant_id))

    async def find_tenants(self, ids: Sequence[TenantId]) -> list[Tenant]:
        """Return those of these tenants that are there, in order."""
        return await self._facts([(names.tenant_fact(i), partial(decode_tenant, tenant_id=i)) for i in ids])

    async def list_rules(self) -> list[ModelRule]:
        """Return all model rules, by pattern."""
        return await self.find_rules(await self._members(names.PATTERNS, parse_pattern))

    async def find_rules(self, patterns: Sequence[Pattern]) -> list[ModelRule]:
        """Return the rules of those of these patterns that have one, in order."""
        return await self._facts([(names.rule_fact(p), partial(decode_rule, pattern=p)) for p in patterns])

    async def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name."""
        return await self.find_aliases(await self._members(names.ALIASES, parse_model_id))

    async def find_aliases(self, aliases: Sequence[ModelId]) -> list[Alias]:
        """Return those of these aliases that are there, in order."""
        return await self._facts([(names.alias_fact(a), partial(decode_alias, alias=a)) for a in aliases])

    async def list_all_grants(self) -> list[Grants]:
        """Return the grants of all tenants."""
        return await self.find_grants_of(await self._members(names.TENANTS, parse_tenant_id))

    async def find_grants_of(self, ids: Sequence[TenantId]) -> list[Grants]:
        """Return all grants of those of these tenants that have any, in order."""
        return await self._facts([(names.grants_fact(i), partial(decode_grants, tenant_id=i)) for i in ids])

    async def each_grants(self) -> AsyncIterator[Grants]:
        """Yield the grants of all tenants, read page by page."""
        members = sorted(await self._source.members(names.TENANTS))
        for start in range(0, len(members), PAGE):
            texts = [raw.decode(errors="replace") for raw in members[start : start + PAGE]]
            for one in await self.find_grants_of(self._parsed(texts, parse_tenant_id)):
                yield one

    async def list_keys(self, tenant_id: TenantId | None) -> list[Key]:
        """Return all keys of a tenant, or the admin keys, by id."""
        return [key async for key in self.each_key(tenant_id)]

    async def each_key(self, tenant_id: TenantId | None) -> AsyncIterator[Key]:
        """Yield the keys of a tenant, or the admin keys, by id, read page by page."""
        async for _, key in self.each_stored_key(await self.list_key_ids([tenant_id])):
            yield key

    async def list_key_ids(self, owners: Iterable[TenantId | None]) -> list[KeyId]:
        """Return the ids of all keys of these tenants (None: the admin keys), sorted."""
        short_ids = [
            short_id for one in owners for short_id in await self._source.members(names.key_set(one))
        ]
        return self._parsed(sorted(map(names.long_key_id, short_ids)), parse_key_id)

    async def each_stored_key(self, key_ids: Sequence[KeyId]) -> AsyncIterator[tuple[bytes, Key]]:
        """Yield these keys, each with the digest under which it is stored, read page by page."""
        for start in range(0, len(key_ids), PAGE):
            page = key_ids[start : start + PAGE]
            digests = await self.find_key_digests(page)
            for missing in (key_id for key_id in page if key_id not in digests):
                self.unreadable(names.key_digest(missing)[0].decode())
            placed = [(names.key_fact(one), partial(decode_key, digest=one)) for one in digests.values()]
            for digest, key in zip(digests.values(), await self.find_all(placed), strict=True):
                if key is not None:
                    yield digest, key

    async def list_issuers(self) -> list[Issuer]:
        """Return all outside issuers, by name."""
        digests = await self._digests(names.ISSUERS)
        found = await self._facts([(names.issuer_fact(d), partial(decode_issuer, digest=d)) for d in digests])
        return sorted(found, key=lambda issuer: issuer.name)

    async def find_issuer(self, url: str) -> Issuer | None:
        """Return an outside issuer by its URL."""
        digest = issuer_digest(url)
        return await self.find_fact(names.issuer_fact(digest), partial(decode_issuer, digest=digest))

    async def find_key_set(self, url: str) -> IssuerKeySet | None:
        """Return the keys that an outside issuer published last."""
        digest = issuer_digest(url)
        return await self.find_fact(names.key_set_fact(digest), partial(decode_key_set, digest=digest))

    async def list_bindings(self, url: str) -> list[Binding]:
        """Return all bindings of an outside issuer, the oldest first."""
        return await self._bindings(issuer_digest(url))

    async def list_all_bindings(self) -> list[Binding]:
        """Return all bindings, issuer by issuer, also those of issuers whose document is gone."""
        issuers = await self._digests(names.BOUND_ISSUERS)
        return [binding for digest in issuers for binding in await self._bindings(digest)]

    async def _bindings(self, issuer: bytes) -> list[Binding]:
        digests = await self._digests(names.issuer_bindings(issuer))
        placed = [(names.binding_fact(d), partial(decode_binding, digest=d)) for d in digests]
        return sorted(await self._facts(placed), key=lambda one: (one.created_at, one.binding_id))

    async def count_bindings(self, url: str) -> int:
        """Return how many bindings an outside issuer has."""
        return len(await self._source.members(names.issuer_bindings(issuer_digest(url))))

    async def find_binding(self, digest: bytes) -> Binding | None:
        """Return the binding of an issuer and a subject."""
        return await self.find_fact(names.binding_fact(digest), partial(decode_binding, digest=digest))

    async def find_binding_by_id(self, binding_id: BindingId) -> Binding | None:
        """Return a binding by its public id."""
        name, field = names.binding_digest(binding_id)
        (digest,) = await self._source.hash_fields(name, [field])
        if digest is None:
            return None
        if len(digest) != names.DIGEST_BYTES:
            refuse_unreadable(f"{name.decode()} (field {field.decode()})")
        found = await self.find_binding(digest)
        return found if found is not None and found.binding_id == binding_id else None

    async def page_of(
        self,
        index: bytes,
        parse: Callable[[str], _NameT],
        *,
        after: str | None,
        limit: int,
    ) -> tuple[list[_NameT], bool]:
        """Return at most `limit` names of an index that follow `after`, in order, and whether more follow.

        Only the names of the page are parsed: an index may have a hundred thousand.
        """
        members = await self._source.members(index)
        start = None if after is None else after.encode()
        page = nsmallest(limit + 1, members if start is None else [one for one in members if one > start])
        texts = [one.decode(errors="replace") for one in page[:limit]]
        return self._parsed(texts, parse), len(page) > limit

    async def has_keys(self, tenant_id: TenantId) -> bool:
        """Whether any key of this tenant is known, whatever its state."""
        return bool(await self._source.members(names.key_set(tenant_id)))

    async def known_models(self) -> frozenset[ModelId]:
        """Return every exact model id that a rule, an alias or a grant names."""
        patterns = [rule.pattern for rule in await self.list_rules()]
        for record in await self.list_all_grants():
            patterns += [pattern for grant in record.grants for pattern in grant.models]
        exact = {ModelId(pattern) for pattern in patterns if not pattern.endswith("/*")}
        return frozenset(exact.union(alias.canonical for alias in await self.list_aliases()))

    async def find_listed(
        self, index: bytes, name_of: Callable[[str], bytes], decode: Callable[[bytes], _T]
    ) -> list[_T]:
        """Return what an index lists, in the order of its members."""
        members = sorted(raw.decode(errors="replace") for raw in await self._source.members(index))
        return await self._facts([(name_of(member), decode) for member in members])

    async def list_removed_tenants(self) -> list[TenantId]:
        """Return the names of all tenants that were removed, whoever has them now."""
        return await self._members(names.REMOVED_TENANTS, parse_tenant_id)

    def unreadable(self, name: str) -> None:
        """Report a record that does not parse."""
        if self._on_unreadable is not None:
            self._on_unreadable(name)

    async def find_fact(self, name: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """Return the fact in a record; None if absent. Raises `Conflict`, after a report, if not readable."""
        _, [leaf] = await self._source.read([name])
        if leaf.value is None:
            return None
        try:
            return decode(leaf.value)
        except UnreadableRecordError:
            self.unreadable(name.decode())
            refuse_unreadable(name.decode())

    async def find_all(self, wanted: Sequence[tuple[bytes, Callable[[bytes], _T]]]) -> list[_T | None]:
        """Return the facts in these records, in order; None if absent or, after a report, not readable."""
        facts: list[_T | None] = []
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            _, leaves = await self._source.read([name for name, _ in page])
            for (name, decode), leaf in zip(page, leaves, strict=True):
                try:
                    facts.append(None if leaf.value is None else decode(leaf.value))
                except UnreadableRecordError:
                    self.unreadable(name.decode())
                    facts.append(None)
        return facts

    async def find_key_digests(self, key_ids: Iterable[KeyId]) -> dict[KeyId, bytes]:
        """Return the digests under which these keys are stored, by id; unknown keys are left out."""
        digests: dict[KeyId, bytes] = {}
        placed = sorted((*names.key_digest(key_id), key_id) for key_id in key_ids)
        # Sorted ids are grouped by bucket, so that a long list costs one read per bucket, not one per key.
        for bucket, group in groupby(placed, key=itemgetter(0)):
            entries = list(group)
            found = await self._source.hash_fields(bucket, [field for _, field, _ in entries])
            for (_, _, key_id), digest in zip(entries, found, strict=True):
                if digest is not None and len(digest) == names.DIGEST_BYTES:
                    digests[key_id] = digest
        return digests

    async def _facts(self, wanted: Sequence[tuple[bytes, Callable[[bytes], _T]]]) -> list[_T]:
        return [fact for fact in await self.find_all(wanted) if fact is not None]

    async def _members(self, name: bytes, parse: Callable[[str], _NameT]) -> list[_NameT]:
        raw_members = await self._source.members(name)
        return self._parsed(sorted(raw.decode(errors="replace") for raw in raw_members), parse)

    async def _digests(self, name: bytes) -> list[bytes]:
        """Return the digests that a set holds in hex; what is none is reported and left out."""
        digests = []
        for raw in sorted(await self._source.members(name)):
            try:
                digest = bytes.fromhex(raw.decode("ascii"))
            except (UnicodeDecodeError, ValueError):
                digest = b""
            if len(digest) == names.DIGEST_BYTES:
                digests.append(digest)
            else:
                self.unreadable(f"index member {raw!r}")
        return digests

    def _parsed(self, texts: Sequence[str], parse: Callable[[str], _NameT]) -> list[_NameT]:
        parsed: list[_NameT] = []
        for text in texts:
            try:
                parsed.append(parse(text))
            except BadNameError:
                self.unreadable(f"index member {text!r}")
        return parsed
