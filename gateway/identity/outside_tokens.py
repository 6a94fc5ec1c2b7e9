"""Authenticate a token of an outside issuer: what its claims mean here, and the binding that it stands on.

    token ─ whose? ─▶ issuer and its keys ─ verify ─▶ claims ─ one rule ─▶ binding ─ judge ─▶ Principal

Nothing is believed before the signature was checked with a key of the issuer that the token names, and a
name that no document has is refused without asking anybody. Then exactly one rule has to match the claims.
What the token may do follows from that rule, for each token anew; the binding of issuer and subject says
whether the subject was revoked, and holds it to one tenant.

A caller depends on the records of binding, tenant, issuer and keys, so a revocation, a changed mapping and a
key that its issuer withdrew reach it at once (I6). A transfer that has begun depends on the binding, the
tenant and the rule: as with an access token of ours, the token's own end does not cut it.

A kid that is not among the keys has them fetched once, for all workers; so have keys that are too old, beside
requests while tokens come, before the first one where none came for long.

Non-goals: the form and the signature of a token (`json_web_tokens.py`), fetching, and writing facts.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.identity.json_web_tokens import Rules, parse_key_set, verify
from gateway.identity.platform_keys import sha256_of
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import BadNameError, Reason, Refusal, Unavailable
from gateway.model.issuers import (
    KEY_SET_SECONDS,
    MAX_SUBJECT_CHARACTERS,
    REFRESH_SECONDS,
    RuleLeaf,
    binding_digest,
    find_rule,
    key_of,
)
from gateway.model.rulings import EndingLeaf
from gateway.model.stamps import Stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.identity.authenticate import Authenticator
    from gateway.identity.json_web_tokens import TrustedKey, UnverifiedToken, VerifiedClaims
    from gateway.model.access import Credential, Principal
    from gateway.model.clocks import Clock
    from gateway.model.facts import Key, Tenant
    from gateway.model.issuers import Binding, FoundBinding, FoundIssuer, Issuer, IssuerKeySet, MappingRule
    from gateway.model.ports import IssuerDirectory, OutsideIssuers
    from gateway.model.stamps import Leaf

REFRESH_APART_SECONDS = 30.0
"""How far two fetches of an issuer's keys are apart at least. A new key of an issuer is known after that."""

OVERDUE_SECONDS = REFRESH_SECONDS + 60.0
"""How old keys are that nobody has asked for in time, because no token came: then they are waited for.

Else the first token after hours could be signed with a key that was withdrawn hours ago."""

OVERDUE_PATIENCE_SECONDS = 1.0
"""How long a token whose key is known waits for that. An issuer that hangs delays it by no more."""

DURING_OUTAGE_SECONDS = 30.0
"""How long a verified token is remembered while the keys are older than they should be."""

OUTAGE_MARGIN_SECONDS = 5.0
"""How much longer that may be: what was decided has to last until its first byte is sent."""

MAX_LEAVES = 2_000  # rules that are in use, and issuers

MAX_PARSED = 64
"""Key sets whose keys are kept parsed: those of all issuers that may have a document, twice.

At worst half a megabyte each. Parsing the keys for each new token would cost a millisecond."""


class _Trusted(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An issuer with keys that count now, and the leaves of both."""

    issuer: Issuer
    key_set: IssuerKeySet
    leaf: Leaf
    key_set_leaf: Leaf


class OutsideTokens:
    """Authenticates the tokens of outside issuers in one worker."""

    __slots__ = ("_clock", "_directory", "_issuers", "_judge", "_leaves", "_parsed", "_recent")

    def __init__(
        self, judge: Authenticator, directory: IssuerDirectory, issuers: OutsideIssuers, clock: Clock
    ) -> None:
        self._judge = judge
        self._directory = directory
        self._issuers = issuers
        self._clock = clock
        self._recent = RecentCallers()
        # Leaves that many callers share, so that a record is charged once: each with the leaf that it wraps.
        self._leaves: BoundedMemory[tuple[str, str], tuple[Leaf, float, Leaf]] = BoundedMemory(
            max_entries=MAX_LEAVES, stands_on=lambda kept: kept[:1]
        )
        # The keys of sets, by the text of the set.
        self._parsed: BoundedMemory[bytes, Mapping[str, TrustedKey]] = BoundedMemory(max_entries=MAX_PARSED)

    @property
    def memories(self) -> tuple[BoundedMemory[Any, Any], ...]:
        """The bounded memories that depend on facts, for the periodic sweep."""
        return (self._recent, self._leaves)

    def recall(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """A caller whose token was verified and still is valid, from memory, without waiting; else None."""
        caller = self._recent.find(sha256_of(credential))
        if caller is None:
            return None
        try:
            self._judge.verify(caller.key, caller.tenant, client, now)
        except Refusal:
            return None
        return caller.principal, caller.stamp

    async def authenticate(
        self, credential: Credential, token: UnverifiedToken, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every token not valid now."""
        try:
            caller = await self._find(token, client, now)
        except Refusal as refusal:
            # Unlike for our own tokens, whose keys count and what a token has to be is read from facts.
            refusal.stands_on_facts = True
            raise
        self._recent.put(sha256_of(credential), caller)
        return caller.principal, caller.stamp

    async def _find(self, token: UnverifiedToken, client: str, now: float) -> Caller:
        trusted, claims = await self._verify(token, now)
        issuer = trusted.issuer
        rule, reason = find_rule(issuer, {**claims.others, "sub": claims.subject})
        if rule is None:
            raise Refusal(reason)
        bound = await self._find_binding(issuer, rule, claims.subject)
        key = _verified(bound, rule)
        principal = replace(
            self._judge.judge(key, bound.tenant, client, now),
            expires_at=float(claims.expires_at),
            issuer=issuer.url,
            only=rule.only,
        )
        # Not the time of arrival: keys may have been waited for since, past the end that this would give.
        read_at = self._judge.latest(self._clock.now())
        of_issuer = self._rule_leaf(trusted, rule), self._keys_leaf(trusted, read_at)
        return Caller(
            replace(key, expires_at=float(claims.expires_at)),
            bound.tenant,
            principal,
            Stamp(bound.stamp.generation, (*bound.stamp.leaves, *of_issuer)),
        )

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """The caller of a transfer that has begun, by its stamp; None for the stamp of another caller.

        Raises `Refusal` when its binding, its tenant or its rule is no longer what it was admitted on.
        """
        again = await self._directory.find_binding_again(stamp)
        if again is None:
            return None
        found, bound, rule = again
        if found.issuer is None or rule not in found.issuer.rules:
            raise Refusal(Reason.UNMAPPED_TOKEN, tenant=rule.tenant)
        key = _verified(bound, rule)
        principal = replace(self._judge.judge(key, bound.tenant, client, now), issuer=found.issuer.url)
        leaves = (*bound.stamp.leaves, RuleLeaf(found.leaf, found.issuer.url, rule))
        return principal, Stamp(bound.stamp.generation, leaves)

    async def _verify(self, token: UnverifiedToken, now: float) -> tuple[_Trusted, VerifiedClaims]:
        """The issuer with the keys that count now, and the claims that it has signed."""
        found = await self._directory.find_issuer(token.claimed_issuer)
        if found.issuer is None:
            raise Refusal(Reason.UNKNOWN_ISSUER)
        trusted = _trusted(found, found.issuer, now)
        known_at = None if found.key_set is None else found.key_set.fetched_at
        age = inf if trusted is None else _age(trusted.key_set, now)
        is_unknown = trusted is None or (
            token.claimed_kid not in self._parse(trusted.key_set) and age >= REFRESH_APART_SECONDS
        )
        if is_unknown or age >= OVERDUE_SECONDS:
            try:
                async with asyncio.timeout(None if is_unknown else OVERDUE_PATIENCE_SECONDS):
                    await self._issuers.refresh(found.issuer, known_at)
            except (Unavailable, TimeoutError):
                if is_unknown or trusted is None:
                    raise
                self._issuers.refresh_soon(trusted.issuer, trusted.key_set.fetched_at)  # reports the failure
            else:
                found = await self._directory.find_issuer(token.claimed_issuer, afresh=True)
                if found.issuer is None:  # its document was removed meanwhile
                    raise Refusal(Reason.UNKNOWN_ISSUER)
                trusted = _trusted(found, found.issuer, self._judge.latest(self._clock.now()))
        elif trusted is not None and age >= REFRESH_SECONDS:
            self._issuers.refresh_soon(trusted.issuer, trusted.key_set.fetched_at)
        if trusted is None:
            raise Unavailable("issuer", "its keys changed again meanwhile", Reason.ISSUER_UNDECIDED)
        keys = self._parse(trusted.key_set)
        return trusted, verify(token, keys, _rules(trusted.issuer), self._judge.latest(now))

    async def _find_binding(self, issuer: Issuer, rule: MappingRule, subject: str) -> FoundBinding:
        """The binding of a subject, made now if it is new or came by another rule before."""
        if len(subject) > MAX_SUBJECT_CHARACTERS or not subject.isprintable():
            raise Refusal(Reason.INVALID_TOKEN)
        digest = binding_digest(issuer.url, subject)
        bound = await self._directory.find_binding(digest, rule.tenant)
        known = bound.binding
        if bound.tenant is not None and (known is None or _may_change(known, issuer, rule, bound.tenant)):
            await self._issuers.bind(issuer, rule, subject)
            bound = await self._directory.find_binding(digest, rule.tenant, afresh=True)
        return bound

    def _rule_leaf(self, trusted: _Trusted, rule: MappingRule) -> Leaf:
        """The leaf of the issuer's record, for callers by this rule."""
        about = trusted.issuer.url, rule.name
        known = self._leaves.find(about)
        if known is None or known[0] is not trusted.leaf:
            known = trusted.leaf, 0.0, RuleLeaf(trusted.leaf, trusted.issuer.url, rule)
            self._leaves.put(about, known)
        return known[2]

    def _keys_leaf(self, trusted: _Trusted, now: float) -> Leaf:
        """The leaf of the keys, which ends when they should be asked for again."""
        fetched_at, about = trusted.key_set.fetched_at, (trusted.issuer.url, "")
        until = fetched_at + REFRESH_SECONDS
        if until <= now:
            # The same for all tokens of a while. A caller just before its end is given the next.
            step = ((now + OUTAGE_MARGIN_SECONDS) // DURING_OUTAGE_SECONDS + 1) * DURING_OUTAGE_SECONDS
            until = min(step, fetched_at + KEY_SET_SECONDS)
        known = self._leaves.find(about)
        if known is None or known[0] is not trusted.key_set_leaf or known[1] != until:
            known = trusted.key_set_leaf, until, EndingLeaf(trusted.key_set_leaf, until, self._clock)
            self._leaves.put(about, known)
        return known[2]

    def _parse(self, key_set: IssuerKeySet) -> Mapping[str, TrustedKey]:
        """The keys of a set. One that does not parse has none: it is fetched again."""
        keys = self._parsed.find(key_set.document)
        if keys is None:
            try:
                keys = parse_key_set(key_set.document)
            except BadNameError:
                keys = {}
            self._parsed.put(key_set.document, keys)
        return keys


def _may_change(known: Binding, issuer: Issuer, rule: MappingRule, tenant: Tenant) -> bool:
    """Whether binding the subject anew, by this rule, could come to anything (`directory/edits/bindings.py`).

    Where it could not, nobody is asked: who has two such tokens would use up the issuer's share of new
    bindings, which other tenants' subjects need.
    """
    if known.revoked_at is not None:
        return False
    if known.tenant == rule.tenant and known.tenant_record == tenant.record_id:
        return rule.name not in known.rules
    return known.generation <= issuer.generation


def _covers(bound: FoundBinding, rule: MappingRule) -> bool:
    """Whether the binding is of the rule's tenant, and the subject came by this rule before."""
    known = bound.binding
    if known is None or known.tenant != rule.tenant or rule.name not in known.rules:
        return False
    return bound.tenant is None or known.tenant_record == bound.tenant.record_id


def _verified(bound: FoundBinding, rule: MappingRule) -> Key:
    """The binding as a key with what the rule gives it. Raises `Refusal` where it does not count."""
    known = bound.binding
    if known is None:
        is_gone = bound.tenant is None
        raise Refusal(Reason.SUSPENDED_TENANT if is_gone else Reason.UNMAPPED_TOKEN, tenant=rule.tenant)
    if known.revoked_at is not None:
        raise _refusal_of(known, Reason.REVOKED_BINDING)
    if not _covers(bound, rule):
        raise _refusal_of(known, Reason.AMBIGUOUS_TOKEN)
    return key_of(known, rule)


def _refusal_of(known: Binding, reason: Reason) -> Refusal:
    """The refusal of a binding that is known, and named in the record."""
    return Refusal(reason, key_id=known.binding_id, tenant=known.tenant, tenant_record=known.tenant_record)


def _trusted(found: FoundIssuer, issuer: Issuer, now: float) -> _Trusted | None:
    """The issuer with its keys, if they were fetched where the document says, and not too long ago."""
    key_set = found.key_set
    if key_set is None or key_set.key_set_url != issuer.key_set_url:
        return None
    if not 0 <= _age(key_set, now) < KEY_SET_SECONDS:
        return None
    return _Trusted(issuer=issuer, key_set=key_set, leaf=found.leaf, key_set_leaf=found.key_set_leaf)


def _age(key_set: IssuerKeySet, now: float) -> float:
    """How old the keys are. Another node's clock may be ahead of ours by a little: that is no age."""
    age = now - key_set.fetched_at
    return 0.0 if -REFRESH_APART_SECONDS <= age < 0 else age


def _rules(issuer: Issuer) -> Rules:
    return Rules(
        issuer=issuer.url,
        audience=issuer.audience,
        algorithms=frozenset(issuer.algorithms),
        types=frozenset(issuer.types),
        leeway_seconds=issuer.leeway_seconds,
        max_lifetime_seconds=issuer.max_lifetime_seconds,
    )
