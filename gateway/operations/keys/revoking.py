"""Revoke many keys: those of a tenant, or those that were found.

Each key has a change of its own, so that the audit log finds its revocation by the key. The workers are
waited for once for each tenant: a generation that they applied covers all before it. What was revoked when a
dependency fails stays revoked; the command can be repeated.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from gateway.directory.edits import keys as edits
from gateway.model.errors import BadNameError
from gateway.model.key_changes import MAX_REASON_CHARACTERS
from gateway.operations.keys.found import FoundToken, recognise
from gateway.operations.known_names import find_membership, verify_tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.barrier import BarrierReport
    from gateway.model.names import KeyId, TenantId
    from gateway.model.tenant_records import TenantRecordId
    from gateway.operations.session import OperatorSession

FOUND_REASON = "found where it should not be"


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is revoked now, and whether it was not before."""

    key_id: KeyId
    tenant: TenantId | None
    is_changed: bool


class Revocations(msgspec.Struct, frozen=True, kw_only=True):
    """What revoking several keys came to. `found` says what each token of a list is."""

    keys: tuple[RevokedKey, ...]
    generation: int | None = None  # of the last change
    barriers: tuple[BarrierReport, ...] = ()
    found: tuple[FoundToken, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether all of it is true everywhere, as far as it was waited for."""
        return all(one.is_sure for one in self.barriers)


def parse_reason(text: str) -> str:
    """Why a key is revoked, in the operator's words: one line, without any secret. Raises `BadNameError`."""
    if len(text) > MAX_REASON_CHARACTERS or not text.isprintable():
        raise BadNameError(f"a reason is one line of at most {MAX_REASON_CHARACTERS} printable characters")
    if not text:
        return ""
    from gateway.audit.scrub import clean_name  # noqa: PLC0415 -- most commands need nothing of the audit log

    return clean_name(text)


async def revoke_of_tenant(
    session: OperatorSession, tenant: TenantId, *, reason: str = "", wait: bool = True
) -> Revocations:
    """Revoke all keys of a tenant. During an incident, suspending it takes one change; revoke them then."""
    await verify_tenant(session, tenant)
    is_own = await find_membership(session, tenant)
    keys = [one for one in await session.listing.list_keys(tenant) if is_own(one)]
    return await _revoke(
        session, [(one.key_id, tenant, one.tenant_record) for one in keys], reason, wait=wait
    )


async def revoke_found(
    session: OperatorSession,
    tokens: Sequence[str],
    *,
    reason: str = FOUND_REASON,
    wait: bool = True,
    is_dry: bool = False,
    own: tuple[TenantId | None, TenantRecordId | None] | None = None,
) -> Revocations:
    """Revoke those of these tokens that are keys of ours, and say what the others are.

    `own`: only the keys of this tenant's record are, and all others are unknown.
    """
    found = await recognise(session, tokens, own)
    ours = dict.fromkeys(
        (one.key_id, one.tenant, one.tenant_record) for one in found if one.key_id is not None
    )
    made = Revocations(keys=()) if is_dry else await _revoke(session, list(ours), reason, wait=wait)
    return msgspec.structs.replace(made, found=tuple(found))


async def _revoke(
    session: OperatorSession,
    keys: Sequence[tuple[KeyId, TenantId | None, TenantRecordId | None]],
    reason: str,
    *,
    wait: bool,
) -> Revocations:
    revoked: list[RevokedKey] = []
    barriers: list[BarrierReport] = []
    generation = None
    ordered = sorted(keys, key=lambda one: (one[1] or "", one[0]))
    for (key_id, tenant, tenant_record), following in pairwise([*ordered, None]):  # type: ignore[misc] # None is at the end
        done = await session.perform(
            "keys.revoke",
            partial(edits.revoke_key, key_id=key_id, now=session.clock.now(), reason=reason),
            tenant=tenant,
            tenant_record=tenant_record,
            key_id=key_id,
            subject=(f"reason: {reason}",) if reason else (),
            wait=wait and (following is None or following[1] != tenant),
        )
        revoked.append(RevokedKey(key_id=key_id, tenant=tenant, is_changed=done.result.is_changed))
        generation = done.generation
        barriers += [] if done.barrier is None else [done.barrier]
    return Revocations(keys=tuple(revoked), generation=generation, barriers=tuple(barriers))
