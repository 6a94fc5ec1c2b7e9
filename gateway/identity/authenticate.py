"""Authenticate an API key: a credential in, a principal out, or a `Refusal` with the reason.

A token whose check digits are wrong is refused before anything is looked up. Every other key is looked up
by its keyed hashes, one for each pepper, and the record that is found is checked in a fixed order: revoked,
not yet valid, expired, networks, tenant. The client gets one answer for all of these; the reason and the
key's id are for the audit record.

A refused key and an unknown one cost the same: what was read about either is remembered by the key's SHA-256,
until one of the records changes. So neither is hashed, read and decoded again, and the time that a refusal
takes does not tell whether a key was ever valid. What depends on time and address is checked each time.

The wall clock may be set back while we run, which would make an expired key valid again. So expiry is
checked against the latest time that this process has seen, and not-before against the time passed in.
"""

from __future__ import annotations

import math
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from gateway.identity.new_keys import KeyState, key_state
from gateway.identity.platform_keys import sha256_of
from gateway.identity.recent_callers import (
    Caller,
    RecentCallers,
    Refused,
    RefusedKeys,
    is_unbounded,
)
from gateway.identity.tokens import parse_token
from gateway.model.access import Principal
from gateway.model.addresses import find_address
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Key, KeyKind
from gateway.model.names import KeyId
from gateway.model.rulings import SOURCE_PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.identity.pepper import Peppers
    from gateway.model.access import Credential
    from gateway.model.facts import Tenant
    from gateway.model.ports import KeyDirectory
    from gateway.model.stamps import Stamp

NETWORKS_BYTES = 8 << 20
NETWORK_BYTES = 1_000  # of one parsed network with its text: measured, rounded up

REASON_OF_STATE = {
    KeyState.REVOKED: Reason.REVOKED_KEY,
    KeyState.DECOY: Reason.DECOY_KEY,
    KeyState.DISABLED: Reason.DISABLED_KEY,
    KeyState.NOT_YET_VALID: Reason.NOT_YET_VALID,
    KeyState.EXPIRED: Reason.EXPIRED_KEY,
}
"""Why a key in a state is refused; a live one is not."""

_NOBODYS = Key(
    key_id=KeyId("key_000000000000"),
    tenant=None,
    name="",
    scopes=frozenset(),
    networks=(),
    created_at=0.0,
    revoked_at=0.0,
    pepper_id="-",
)
"""A revoked key that nobody has. It is judged in place of an unknown one, which then takes as long."""


class Authenticator:
    """Implements the port `Authenticate` for API keys in the directory.

    `on_decoy` is called with each use of a decoy key and the address that it came from.
    """

    __slots__ = ("_directory", "_latest", "_networks", "_on_decoy", "_peppers", "_recent", "_refused")

    def __init__(
        self,
        directory: KeyDirectory,
        peppers: Peppers,
        on_decoy: Callable[[Key, str], None] | None = None,
    ) -> None:
        self._directory = directory
        self._peppers = peppers
        self._on_decoy = on_decoy
        self._refused = RefusedKeys()
        self._recent = RecentCallers()
        # The parsed networks of keys, by their texts.
        self._networks: BoundedMemory[tuple[str, ...], tuple[IPv4Network | IPv6Network, ...]] = BoundedMemory(
            max_bytes=NETWORKS_BYTES, max_entries=4096, weigh=lambda texts, _: NETWORK_BYTES * len(texts)
        )
        self._latest = float("-inf")

    @property
    def memories(self) -> tuple[BoundedMemory[Any, Any], ...]:
        """The bounded memories, for the periodic sweep."""
        return (self._recent, self._refused)

    def recall(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """A caller who was valid recently and still is, from memory, without waiting; else None."""
        caller = self._recent.find(sha256_of(credential))
        if caller is None:
            return None
        if caller.is_unbounded and -math.inf < now < math.inf:
            self._latest = max(self._latest, now)
            return caller.principal, caller.stamp
        try:
            self.verify(caller.key, caller.tenant, client, now)
        except Refusal:
            return None
        return caller.principal, caller.stamp

    async def authenticate(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp]:
        """The caller, and the stamp of the records read. Raises `Refusal` for every key not valid now."""
        name = sha256_of(credential)
        refused = self._refused.find(name)
        if refused is None:
            key, tenant, stamp = await self._directory.find_key(self.digests(credential))
        else:
            key, tenant, stamp = refused.key, refused.tenant, refused.stamp
        try:
            principal = self.judge(_NOBODYS if key is None else key, tenant, client, now)
        except Refusal as found:
            if refused is None:
                self._refused.put(name, Refused(key, tenant, stamp))
            # Either is raised anew, which takes the same time.
            reason = Reason.UNKNOWN_KEY if key is None else found.reason
            key_id = None if key is None else found.key_id
            raise Refusal(
                reason, key_id=key_id, tenant=found.tenant, tenant_record=found.tenant_record
            ) from None
        if key is None:
            raise Refusal(Reason.UNKNOWN_KEY)  # whatever is judged: nobody has the stand-in
        self._recent.put(name, Caller(key, tenant, principal, stamp, is_unbounded(key)))
        return principal, stamp

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> tuple[Principal, Stamp]:
        """Authenticate a known key again, by its stamp. Raises `Refusal` when it is no longer valid."""
        key, tenant, found = await self._directory.find_key_again(stamp)
        if key is None:
            raise Refusal(Reason.UNKNOWN_KEY)
        return self.judge(key, tenant, client, now), found

    def digests(self, credential: Credential) -> tuple[bytes, ...]:
        """The digests that the key may be stored under. Raises `Refusal(MISTYPED_KEY)`."""
        parse_token(credential.secret)
        return self._peppers.digests(sha256_of(credential))

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller authenticated at `since`, whose records have not changed, is valid now.

        Only time can have ended it. If the clock was set back to before `since`, it may be before the key's
        not-before as well: then `judge` has to decide.
        """
        if not since <= now < math.inf:
            return False
        self._latest = max(self._latest, now)
        return principal.expires_at is None or self._latest < principal.expires_at

    def is_in_time(self, principal: Principal, now: float) -> bool:
        """Whether the caller's key, if its record has not changed, is within its times now.

        Checks times as `reauthenticate` does. The expiry of a link is not checked.
        """
        latest = self.latest(now)
        if not math.isfinite(now) or (
            principal.key_begins_at is not None and not principal.key_begins_at <= now
        ):
            return False
        return principal.key_ends_at is None or latest < principal.key_ends_at

    def judge(self, key: Key, tenant: Tenant | None, client: str, now: float) -> Principal:
        """The principal of a key that was found, if it is valid for this client now. No I/O."""
        self.verify(key, tenant, client, now)
        return principal_of(key, tenant)

    def latest(self, now: float) -> float:
        """The latest time seen so far, including this one: expiry is checked against it."""
        if now > self._latest and math.isfinite(now):
            self._latest = now
        return self._latest

    def verify(self, key: Key, tenant: Tenant | None, client: str, now: float) -> None:
        """Raises `Refusal` for a key that was found and is not valid for this client now. No I/O."""
        latest, state = self.latest(now), key_state(key, now)
        if state is KeyState.LIVE and now != latest:
            state = key_state(key, latest)
        if state is KeyState.DECOY and self._on_decoy is not None:
            self._on_decoy(key, client)
        if state is not KeyState.LIVE:
            raise _refusal(REASON_OF_STATE[state], key)
        if key.networks and not self._is_inside(client, key):
            raise _refusal(Reason.OUTSIDE_NETWORKS, key)
        if key.kind is KeyKind.TENANT:
            if tenant is None or tenant.tenant_id != key.tenant:
                raise _refusal(Reason.SUSPENDED_TENANT, key)
            if tenant.record_id != key.tenant_record or tenant.removal is not None:
                raise _refusal(Reason.REMOVED_TENANT, key)
            if tenant.is_suspended:
                raise _refusal(Reason.SUSPENDED_TENANT, key)

    def _is_inside(self, client: str, key: Key) -> bool:
        """Whether the client is in one of the key's networks. A client without an address is in none."""
        networks = self._networks.find(key.networks)
        if networks is None:
            networks = _parse_networks(key.networks)
            if networks is None:
                raise _refusal(Reason.UNREADABLE_KEY, key)
            self._networks.put(key.networks, networks)
        address = find_address(client)
        return address is not None and any(address in network for network in networks)


def _refusal(reason: Reason, key: Key) -> Refusal:
    """A refusal of a known key: the audit record names it and its tenant, the response does not."""
    return Refusal(reason, key_id=key.key_id, tenant=key.tenant, tenant_record=key.tenant_record)


def principal_of(key: Key, tenant: Tenant | None) -> Principal:
    """The principal of a key, whether it is valid or not."""
    return Principal(
        kind=key.kind,
        key_id=key.key_id,
        key_name=key.name,
        tenant=key.tenant,
        tenant_record=key.tenant_record,
        scopes=key.scopes,
        role=key.role,
        expires_at=key.expires_at,
        key_begins_at=key.not_before,
        key_ends_at=key.expires_at,
        degraded_seconds=tenant.degraded_seconds if tenant is not None else 0.0,
        image_hosts=tenant.image_hosts if tenant is not None else (),
        allows=tenant.allows if tenant is not None else (),
        is_of_platform=key.source == SOURCE_PLATFORM,
        networks=key.networks,
    )


def _parse_networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...] | None:
    """The networks of a record; None when one of them does not parse, which denies."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError:
        return None
