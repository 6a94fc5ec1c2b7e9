"""Find the caller that a question is about, and judge it as if it made the request itself.

Whoever asks with a tenant's key may ask about that tenant alone. A key of another tenant and one that does
not exist are one answer, found in one way: the index is asked, one record is read from the store, whatever
is in memory, and it counts only if it is of the asking tenant (I3). About another tenant nothing is read.

A tenant is judged as a key of it that is bound to nothing. An answer about a key that expires ends with it.

The moment of a question is a claim. A subject has to be valid now, and at that moment as well: so nobody
learns from a question what only begins later, and no claim revives a key that has expired. The clock that
expiry is checked against never hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.identity.authenticate import REASON_OF_STATE, principal_of
from gateway.identity.new_keys import KeyState, key_state
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import DEFAULT_SCOPES, Key, KeyKind
from gateway.model.names import KeyId, TenantId
from gateway.model.questions import SubjectKind
from gateway.model.rulings import EndingLeaf
from gateway.model.stamps import Stamp

if TYPE_CHECKING:
    from gateway.identity.authenticate import Authenticator
    from gateway.identity.keys_by_id import KeysById
    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.facts import Tenant
    from gateway.model.ports import SubjectDirectory
    from gateway.model.questions import Question, Subject

ANY_KEY = KeyId("any")
"""The key id of a tenant that is asked about: no key has it, so no rule about one key speaks of it."""


class Subjects:
    """Finds the subjects of questions."""

    def __init__(
        self, directory: SubjectDirectory, keys: Authenticator, by_id: KeysById, clock: Clock
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._by_id = by_id
        self._clock = clock

    async def find(
        self, subject: Subject, question: Question, asking: Principal, now: float
    ) -> tuple[Principal, Stamp]:
        """The subject as a caller, and the stamp of the records read.

        Raises `Refusal` for one that does not exist, is not valid, or is not the asking caller's to know of.
        A token that is narrowed to some models asks about these alone.
        """
        if subject.kind is SubjectKind.TENANT:
            key, tenant, stamp = await self._find_tenant(TenantId(subject.name), asking)
        else:
            key, tenant, stamp = await self._find_key(KeyId(subject.name), asking)
        self._verify(key, tenant, question, now)
        if key.expires_at is not None:  # it may pass before the answer is sent
            ends = EndingLeaf(stamp.leaves[0], key.expires_at, self._clock)
            stamp = Stamp(stamp.generation, (*stamp.leaves, ends))
        return replace(principal_of(key, tenant), only=asking.only), stamp

    async def _find_key(self, key_id: KeyId, asking: Principal) -> tuple[Key, Tenant | None, Stamp]:
        if asking.kind is KeyKind.ADMIN:
            _, key, tenant, stamp = await self._by_id.find(key_id)
            return key, tenant, stamp
        if asking.tenant is None:
            raise Refusal(Reason.UNKNOWN_KEY)
        found, tenant, stamp = await self._directory.find_key_of(key_id, asking.tenant)
        if found is None:
            raise Refusal(Reason.UNKNOWN_KEY)
        return found, tenant, stamp

    async def _find_tenant(self, name: TenantId, asking: Principal) -> tuple[Key, Tenant | None, Stamp]:
        if asking.kind is not KeyKind.ADMIN and asking.tenant != name:
            raise Refusal(Reason.SUSPENDED_TENANT)
        tenant, stamp = await self._directory.find_tenant(name)
        if tenant is None:
            raise Refusal(Reason.SUSPENDED_TENANT)
        return _plain_key_of(tenant), tenant, stamp

    def _verify(self, key: Key, tenant: Tenant | None, question: Question, now: float) -> None:
        """Raises `Refusal` unless the key is valid now, from this address, and at the moment asked about.

        A key that is bound to networks needs an address to be valid from.
        """
        moment = now if question.moment is None else question.moment
        # Asked first: the checks below note the time and each use, and a question is none.
        for time in (now, moment):
            state = key_state(key, time)
            if state is not KeyState.LIVE:
                raise Refusal(REASON_OF_STATE[state])
        self._keys.verify(key, tenant, question.address or "", now)


def _plain_key_of(tenant: Tenant) -> Key:
    """A key that the tenant could have: with the default scopes, and bound to nothing."""
    return Key(
        key_id=ANY_KEY,
        tenant=tenant.tenant_id,
        tenant_record=tenant.record_id,
        name="",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=tenant.created_at,
        pepper_id="",
    )
