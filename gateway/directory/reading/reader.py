"""Reads the facts that one request depends on, in as few Redis round trips as possible.

Finding a key takes two: the records under its digests, then its tenant together with the grants and the
policy head that its decisions will need. A decision takes two as well: for each model its alias and the rules
of all patterns that cover it, then the same for the targets of aliases. Every answer carries a stamp of all
that was read, absent records included. The parts of an answer may come from different moments; `still_true`,
which every answer has to pass before a byte is sent, detects that.

A record that does not parse is reported and denies: as a `Refusal` for keys and tenants, in
`Facts.unreadable` for everything that is decided about (I1). An alias of an alias is treated the same: no
command can make one, and following it could allow something by mistake.

Non-goals: deciding, caching answers, and knowing what is on disk.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from gateway.directory.reading.caller import CallerFacts, names_about_caller, names_about_rulings
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.read_set import ReadSet, decode_nothing, names_about
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_binding,
    decode_grants,
    decode_issuer,
    decode_key,
    decode_key_set,
    decode_tenant,
    encode_key,
)
from gateway.directory.records.policies import PolicySets, decode_policy_head
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import DEFAULT_SCOPES, Key
from gateway.model.issuers import FoundBinding, FoundIssuer, RuleLeaf, issuer_digest
from gateway.model.names import KeyId, ModelId, TenantId
from gateway.model.periods import PeriodClock
from gateway.model.tenant_records import RECORD_CHARACTERS, RECORD_PREFIX, TenantRecordId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.facts import Facts, PolicySet, Tenant
    from gateway.model.issuers import MappingRule
    from gateway.model.ports import FactSource
    from gateway.model.stamps import Stamp
    from gateway.model.stores import FactStore

TEXTS_MISSING = "the texts it names are missing from Redis"
_POLICY_ATTEMPTS = 3  # an apply between two reads deletes the old texts; this rarely happens twice in a row

_STAND_IN_DIGEST = bytes(names.DIGEST_BYTES)
_STAND_IN = encode_key(
    Key(
        key_id=KeyId("key_000000000000"),
        tenant=TenantId("stand-in"),
        tenant_record=TenantRecordId(RECORD_PREFIX + "0" * RECORD_CHARACTERS),  # as nearly every key has
        name="stands for a key",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=1.0,
        revoked_at=2.0,
        pepper_id="p1",
    ),
    _STAND_IN_DIGEST,
)
"""The record of a key that nobody has, decoded in place of one that is not there."""

_STAND_IN_NAME = names.key_fact(_STAND_IN_DIGEST)


class DirectoryReader:
    """`KeyDirectory` and `Directory` of the ports, over a fact store."""

    def __init__(
        self,
        store: FactStore,
        source: FactSource,
        *,
        on_unreadable: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock  # for what expires; without a clock, nothing that expires counts
        self._periods = PeriodClock(clock)
        self._on_unreadable = on_unreadable
        self._policies = PolicySets(self._read_policy_text)

    async def find_key(self, digests: Sequence[bytes]) -> tuple[Key | None, Tenant | None, Stamp]:
        """Return the key under the first of these digests that has one, its tenant, and the stamp."""
        return await self._find_key(list(map(names.key_fact, digests)))

    async def _find_key(self, key_names: list[bytes]) -> tuple[Key | None, Tenant | None, Stamp]:
        read_set = ReadSet(self._source, self._report)
        await read_set.fetch(key_names)
        key = _find_key(read_set, key_names)
        # A key that ended is refused without its tenant: an unknown key and it then cost the same reads.
        if key is None or key.tenant is None or key.is_ended:
            return key, None, read_set.stamp(key_names)
        tenant_name = names.tenant_fact(key.tenant)
        # A decision follows, so its grants and policy head are read in the same round trip.
        await read_set.fetch([tenant_name, names.grants_fact(key.tenant), names.POLICY])
        return key, _find_tenant(read_set, key), read_set.stamp([*key_names, tenant_name])

    async def find_issuer(self, url: str, *, afresh: bool = False) -> FoundIssuer:
        """Return an outside issuer and its keys, from memory where they are cached, unless `afresh`.

        Raises `Refusal(UNREADABLE_KEY)` when the issuer's record does not parse. Keys that do not parse are
        none: they are fetched again.
        """
        digest = issuer_digest(url)
        name, key_set_name = names.issuer_fact(digest), names.key_set_fact(digest)
        read_set = ReadSet(self._source, self._report)
        await (read_set.fetch_afresh if afresh else read_set.fetch)([name, key_set_name])
        issuer = read_set.decoded(name, partial(decode_issuer, digest=digest))
        if name in read_set.unreadable:
            raise Refusal(Reason.UNREADABLE_KEY)
        return FoundIssuer(
            issuer=issuer,
            key_set=read_set.decoded(key_set_name, partial(decode_key_set, digest=digest)),
            leaf=read_set.leaves[name],
            key_set_leaf=read_set.leaves[key_set_name],
        )

    async def find_binding(self, digest: bytes, tenant: TenantId, *, afresh: bool = False) -> FoundBinding:
        """Return the binding under this digest, and the tenant.

        Raises `Refusal(UNREADABLE_KEY)` when a record does not parse.
        """
        name, tenant_name = names.binding_fact(digest), names.tenant_fact(tenant)
        read_set = ReadSet(self._source, self._report)
        # A decision follows, so its grants and policy head are read in the same round trip.
        await (read_set.fetch_afresh if afresh else read_set.fetch)([name])
        await read_set.fetch([tenant_name, names.grants_fact(tenant), names.POLICY])
        binding = read_set.decoded(name, partial(decode_binding, digest=digest))
        found = read_set.decoded(tenant_name, partial(decode_tenant, tenant_id=tenant))
        if name in read_set.unreadable or tenant_name in read_set.unreadable:
            raise Refusal(
                Reason.UNREADABLE_KEY,
                key_id=None if binding is None else binding.binding_id,
                tenant=tenant,
                tenant_record=None if binding is None else binding.tenant_record,
            )
        return FoundBinding(binding=binding, tenant=found, stamp=read_set.stamp([name, tenant_name]))

    async def find_binding_again(self, stamp: Stamp) -> tuple[FoundIssuer, FoundBinding, MappingRule] | None:
        """What a caller with a token stands on now, by its stamp; None for the stamp of another caller."""
        by_rule = next((leaf for leaf in stamp.leaves if isinstance(leaf, RuleLeaf)), None)
        bound = next((leaf.name for leaf in stamp.leaves if names.is_binding_fact(leaf.name)), None)
        if by_rule is None or bound is None:
            return None
        found = await self.find_binding(names.binding_digest_of(bound), by_rule.rule.tenant)
        issuer = await self.find_issuer(by_rule.url)
        return issuer, found, by_rule.rule

    async def find_key_digest(self, key_id: KeyId) -> bytes | None:
        """Return the digest under which the index lists this key id; it decides nothing."""
        name, field = names.key_digest(key_id)
        digest = await self._store.hash_field(name, field)
        if digest is not None and len(digest) != names.DIGEST_BYTES:
            self._report(f"{name.decode()} (field {field.decode()})")
            return None
        return digest

    async def find_key_of(self, key_id: KeyId, tenant: TenantId) -> tuple[Key | None, Tenant | None, Stamp]:
        """Return this tenant's key of that id, its tenant, and the stamp; no key for one of another tenant.

        Where the index lists no such key, a record that no key can have is read instead, always from the
        store: neither the reads nor their time tell whether another tenant has it (I3).
        """
        digest = await self.find_key_digest(key_id) or _digest_of_none(key_id)
        name, tenant_name = names.key_fact(digest), names.tenant_fact(tenant)
        read_set = ReadSet(self._source, self._report)
        await read_set.fetch_afresh([name, tenant_name])
        key = read_set.decoded(name, partial(decode_key, digest=digest))
        found = read_set.decoded(tenant_name, partial(decode_tenant, tenant_id=tenant))
        if key is None or key.key_id != key_id or key.tenant != tenant or read_set.unreadable:
            return None, None, read_set.stamp([tenant_name])
        if found is None or key.tenant_record != found.record_id:  # of one that had the name before
            return None, None, read_set.stamp([tenant_name])
        return key, found, read_set.stamp([name, tenant_name])

    async def find_tenant(self, tenant: TenantId) -> tuple[Tenant | None, Stamp]:
        """Return a tenant and the stamp."""
        name = names.tenant_fact(tenant)
        read_set = ReadSet(self._source, self._report)
        await read_set.fetch([name])
        return read_set.decoded(name, partial(decode_tenant, tenant_id=tenant)), read_set.stamp([name])

    async def gather(self, principal: Principal, models: Sequence[ModelId | None]) -> list[Facts]:
        """Return the facts about this caller and each of these models (None: no model), in order."""
        for attempt in range(_POLICY_ATTEMPTS):
            read_set = ReadSet(self._source, self._report, self._periods)
            asked = [model for model in models if model is not None]
            if attempt:  # the texts of the cached head are gone, so there is a newer head
                await read_set.fetch_afresh([names.POLICY])
            await read_set.fetch(names_about_caller(principal))
            if principal.tenant is not None:
                decode = partial(decode_grants, tenant_id=principal.tenant)
                await read_set.decode_aside(names.grants_fact(principal.tenant), decode)
            if asked:
                await self._fetch_models(read_set, principal, asked)
            policy = await self._find_policy(read_set)
            if policy is not None:
                return CallerFacts(read_set, principal, policy, self._clock).about_each(models)
        raise Unavailable("policy", TEXTS_MISSING, Reason.NO_POLICY)

    async def find_key_again(self, stamp: Stamp) -> tuple[Key | None, Tenant | None, Stamp]:
        """As `find_key`, for a key that was found before, by its stamp."""
        return await self._find_key([leaf.name for leaf in stamp.leaves if names.is_key_fact(leaf.name)])

    @property
    def epoch(self) -> int:
        """A number that changes whenever a record may have changed."""
        return self._source.epoch

    def is_leased(self) -> bool:
        """Whether the lease itself is held, without a degraded period."""
        return self._source.is_leased()

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether anything may be answered now."""
        return self._source.is_fresh(degraded_seconds)

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raise `Unavailable(NO_LEASE)` if nothing may be answered now."""
        self._source.verify_fresh(degraded_seconds)

    def still_true(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check before the first byte: the lease is held and no fact of the stamp has changed."""
        return self._source.holds(stamp, degraded_seconds)

    async def verify_policy(self) -> None:
        """Raise `Unavailable` unless the store answers and a usable policy set is in force."""
        for attempt in range(_POLICY_ATTEMPTS):
            read_set = ReadSet(self._source, self._report)
            await (read_set.fetch_afresh if attempt else read_set.fetch)([names.POLICY])
            if await self._find_policy(read_set) is not None:
                return
        raise Unavailable("policy", TEXTS_MISSING, Reason.NO_POLICY)

    async def known_models(self) -> frozenset[ModelId]:
        """Return every exact model id that a rule, an alias or a grant names, to look for on disk."""
        listing = Listing(PlainFacts(self._store), on_unreadable=self._report)
        return await listing.known_models()

    async def _fetch_models(self, read_set: ReadSet, principal: Principal, asked: Sequence[ModelId]) -> None:
        """Read the records about these models, and about the targets of aliases among them.

        Always from the store, and always two round trips: the time of an answer reveals neither that others
        use a model nor that a name is an alias (I3). If no name is an alias, the second round trip reads
        names that no model can have.
        """
        await read_set.fetch_afresh([*names_about(asked), *names_about_rulings(principal, asked)])
        aliases = [read_set.alias_of(model) for model in asked]
        targets = [alias.canonical for alias in aliases if alias is not None]
        targets = targets or [ModelId(f"{asked[0]}/")]
        await read_set.fetch_afresh([*names_about(targets), *names_about_rulings(principal, targets)])

    async def _find_policy(self, read_set: ReadSet) -> PolicySet | None:
        if read_set.leaves[names.POLICY].value is None:
            raise Unavailable(
                "policy", "none is in force: apply one with `cachegate policy apply`", Reason.NO_POLICY
            )
        head = read_set.decoded(names.POLICY, decode_policy_head)
        if head is not None:
            try:
                return await self._policies.find(head)
            except UnreadableRecordError:
                self._report(names.policy_text(head.text_digest).decode())
        raise Unavailable(
            "policy",
            "its record in Redis does not parse: apply it again with `cachegate policy apply`",
            Reason.NO_POLICY,
        )

    async def _read_policy_text(self, text_digest: bytes) -> bytes | None:
        _, values = await self._store.read([names.policy_text(text_digest)])
        return values[0]

    def _report(self, name: str) -> None:
        if self._on_unreadable is not None:
            self._on_unreadable(name)


def _digest_of_none(key_id: KeyId) -> bytes:
    """A digest that no key is stored under: those of keys are keyed hashes, and this is none."""
    return hashlib.sha256(b"no key " + key_id.encode()).digest()[: names.DIGEST_BYTES]


def _find_key(read_set: ReadSet, key_names: Sequence[bytes]) -> Key | None:
    name = next((name for name in key_names if read_set.leaves[name].value is not None), None)
    if name is None:
        # As long as it takes to decode a key that was revoked: neither is decoded again (`authenticate.py`).
        decode_nothing(partial(decode_key, digest=names.digest_of(_STAND_IN_NAME)), _STAND_IN)
        return None
    key = read_set.decoded(name, partial(decode_key, digest=names.digest_of(name)))
    if key is None:
        raise Refusal(Reason.UNREADABLE_KEY)
    return key


def _find_tenant(read_set: ReadSet, key: Key) -> Tenant | None:
    if key.tenant is None:
        return None
    tenant = read_set.decoded(names.tenant_fact(key.tenant), partial(decode_tenant, tenant_id=key.tenant))
    if read_set.unreadable:
        raise Refusal(
            Reason.UNREADABLE_KEY, key_id=key.key_id, tenant=key.tenant, tenant_record=key.tenant_record
        )
    return tenant
