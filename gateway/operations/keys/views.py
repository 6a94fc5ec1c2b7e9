"""What operators see of the life of keys: rotations under way, and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from gateway.directory.edits.keys import is_rotating
from gateway.directory.reading.key_report import Concern, Period, new_networks, report_keys
from gateway.directory.reading.key_usage import find_uses
from gateway.model.moments import at, when
from gateway.model.names import KeyId, TenantId  # noqa: TC001 -- msgspec reads annotations
from gateway.operations.known_names import find_membership, verify_tenant

if TYPE_CHECKING:
    from gateway.directory.reading.key_report import ReportedKey
    from gateway.model.facts import Key
    from gateway.model.tenant_records import TenantRecordId
    from gateway.operations.session import OperatorSession


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation whose overlap is not over: both keys are valid until `ends_at`."""

    old: KeyId
    new: KeyId
    tenant: TenantId | None
    ends_at: str | None
    old_last_used_at: str | None
    new_last_used_at: str | None


class ReportedKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key in a report."""

    key_id: KeyId
    tenant: TenantId | None
    name: str
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    last_used_network: str | None
    new_networks: dict[str, str]


class KeyReportView(msgspec.Struct, frozen=True, kw_only=True):
    """The reports on keys. `counts` are complete; of each report the first thousand keys are listed."""

    as_of: str
    soon_days: float
    new_days: float
    counts: dict[Concern, int]
    keys: dict[Concern, list[ReportedKeyView]]


async def list_rotations(session: OperatorSession, only: TenantId | None = None) -> list[Rotation]:
    """The rotations under way, of one tenant or of all, the first to end first."""
    now = session.clock.now()
    key_ids = await session.listing.list_key_ids(await _owners(session, only))
    is_own = await find_membership(session, only)
    stored = session.listing.each_stored_key(key_ids)
    old = [key async for _, key in stored if is_own(key) and is_rotating(key, now)]
    old.sort(key=lambda key: (key.expires_at or 0.0, key.key_id))
    pairs = [(key, key.life.replaced_by) for key in old]
    uses = await find_uses(
        session.store, [one for key, new in pairs for one in (key.key_id, new) if one is not None]
    )

    def used(key_id: KeyId) -> str | None:
        use = uses.get(key_id)
        return None if use is None else at(use.at)

    return [
        Rotation(
            old=key.key_id,
            new=new,
            tenant=key.tenant,
            ends_at=when(key.expires_at),
            old_last_used_at=used(key.key_id),
            new_last_used_at=used(new),
        )
        for key, new in pairs
        if new is not None
    ]


async def key_report(
    session: OperatorSession,
    only: TenantId | None = None,
    *,
    soon_seconds: float = 14 * 86_400.0,
    new_seconds: float = 30 * 86_400.0,
    of_record: TenantRecordId | UnsetType | None = UNSET,
) -> KeyReportView:
    """The reports on the keys of one tenant, or on all.

    Those of one tenant are its own: a tenant that had its name before is another one. `of_record` says which
    of them is meant, where that is known.
    """
    period = Period(now=session.clock.now(), soon_seconds=soon_seconds, new_seconds=new_seconds)
    owners = await _owners(session, only)
    tenant = None if only is None else await session.listing.find_tenant(only)
    if of_record is UNSET and tenant is not None:
        of_record = tenant.record_id

    def is_asked(key: Key) -> bool:
        return only is None or of_record is UNSET or key.tenant_record == of_record

    found = await report_keys(session.store, session.listing, owners, period, is_asked)
    return KeyReportView(
        as_of=at(period.now),
        soon_days=soon_seconds / 86_400,
        new_days=new_seconds / 86_400,
        counts=found.counts,
        keys={
            concern: [_reported(one, period.now - new_seconds) for one in keys]
            for concern, keys in found.keys.items()
        },
    )


def _reported(one: ReportedKey, since: float) -> ReportedKeyView:
    key, use = one.key, one.last_use
    return ReportedKeyView(
        key_id=key.key_id,
        tenant=key.tenant,
        name=key.name,
        created_at=when(key.created_at),
        expires_at=when(key.expires_at),
        last_used_at=None if use is None else at(use.at),
        last_used_network=None if use is None else use.network,
        new_networks={network: at(one.networks[network]) for network in new_networks(one.networks, since)},
    )


async def _owners(session: OperatorSession, only: TenantId | None) -> list[TenantId | None]:
    if only is not None:
        await verify_tenant(session, only)
        return [only]
    return [None, *[one.tenant_id for one in await session.listing.list_tenants()]]
