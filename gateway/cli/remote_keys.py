"""What `cachegate keys` does through a running gateway with several keys: list, report, revoke."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.remote import key_view, told_barrier, told_change, verify_tenant
from gateway.directory.reading.key_report import Concern
from gateway.model.names import KeyId, TenantId
from gateway.operations.keys.found import FoundKind, FoundToken
from gateway.operations.keys.revoking import Revocations, RevokedKey
from gateway.operations.keys.views import KeyReportView, ReportedKeyView, Rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.admin_client import AdminClient
    from gateway.barrier import BarrierReport
    from gateway.operations.listings import KeyFilter, KeyView

PER_REQUEST = 100  # found tokens, which a body of the gateway has room for
MAX_REQUEST_BYTES = 40_000
SECONDS = 300.0  # each of them is a change of its own


def list_keys(
    gateway: AdminClient,
    only: TenantId | None,
    *,
    state: KeyFilter | None,
    after: KeyId | None,
    limit: int | None,
) -> list[KeyView]:
    """The keys of a tenant, or all, owner by owner, those of each by their age.

    The gateway lists those of an owner by id: all of them are asked for, as all are read beside the facts.
    """
    query: dict[str, str] = {} if only is None else {"tenant": only}
    query |= {} if state is None else {"state": state.value}
    if only is not None:
        verify_tenant(gateway, only)
    start, last = None, None
    if after is not None:
        last = gateway.get(f"/keys/{after}")
        start = None if last["tenant"] is None else f"{last['tenant']}:"
    listed: list[KeyView] = []
    for owner, keys in groupby(gateway.each("/keys", start=start, **query), key=_owner):
        is_of_last = last is not None and _owner(last) == owner
        listed += [
            key_view(key)
            for key in sorted(keys, key=_age)
            if not (last is not None and is_of_last and _age(key) <= _age(last))
        ]
        if limit is not None and len(listed) >= limit:
            break
    return listed[:limit]


def _owner(key: dict[str, Any]) -> str:
    return key["tenant"] or ""


def _age(key: dict[str, Any]) -> tuple[datetime, str]:
    return datetime.fromisoformat(key["created_at"]), key["id"]


def list_rotations(gateway: AdminClient, only: TenantId | None) -> list[Rotation]:
    """The rotations under way, of one tenant or of all."""
    if only is not None:
        verify_tenant(gateway, only)
    query: dict[str, str] = {} if only is None else {"tenant": only}
    return msgspec.convert(gateway.get("/keys/rotations", **query)["items"], type=list[Rotation])


def key_report(
    gateway: AdminClient, only: TenantId | None, *, soon_seconds: float, new_seconds: float
) -> KeyReportView:
    """The reports on the keys of one tenant, or on all."""
    if only is not None:
        verify_tenant(gateway, only)
    query = {"soon_days": str(soon_seconds / 86_400), "new_days": str(new_seconds / 86_400)}
    query |= {} if only is None else {"tenant": only}
    found = gateway.get("/keys/report", **query)
    return KeyReportView(
        as_of=found["as_of"],
        soon_days=found["soon_days"],
        new_days=found["new_days"],
        counts={Concern(concern): count for concern, count in found["counts"].items()},
        keys={
            Concern(concern): [ReportedKeyView(**one) for one in keys]
            for concern, keys in found["keys"].items()
        },
    )


def revoke_of_tenant(gateway: AdminClient, tenant: TenantId, why: str, *, wait: bool) -> Revocations:
    """Revoke all keys of a tenant, each by a change of its own."""
    verify_tenant(gateway, tenant)
    keys: list[RevokedKey] = []
    barriers: list[BarrierReport] = []
    generation = None
    ids = [KeyId(one["id"]) for one in gateway.each("/keys", tenant=tenant)]
    for number, key_id in enumerate(ids, 1):  # a generation that the workers applied covers all before it
        is_waited_for = wait and number == len(ids)
        told = gateway.change("POST", f"/keys/{key_id}/revoke", {"reason": why}, wait=is_waited_for)
        done = told_change(told, is_waited_for=is_waited_for)
        generation = done.generation
        barriers += [] if done.barrier is None else [done.barrier]
        keys.append(RevokedKey(key_id=key_id, tenant=tenant, is_changed=done.result.is_changed))
    return Revocations(keys=tuple(keys), generation=generation, barriers=tuple(barriers))


def revoke_found(
    gateway: AdminClient, tokens: Sequence[str], why: str, *, wait: bool, is_dry: bool
) -> Revocations:
    """Revoke those of these tokens that are keys of the gateway, and say what the others are."""
    keys: list[RevokedKey] = []
    found: list[FoundToken] = []
    barriers: list[BarrierReport] = []
    generation = None
    for page in _pages(tokens):
        body = {"tokens": page, "reason": why, "dry_run": is_dry}
        done = gateway.change("POST", "/keys/revoke-found", body, wait=wait, seconds=SECONDS)
        if done["revoked"]:
            generation = done["generation"]
        told = (told_barrier(one, done["generation"]) for one in done["barriers"])
        barriers += [one for one in told if one is not None]
        before = len(found)
        found += [
            FoundToken(
                place=before + one["place"],
                kind=FoundKind(one["kind"]),
                key_id=one["id"],
                tenant=one["tenant"],
                tenant_record=one["tenant_record"],
            )
            for one in done["found"]
        ]
        keys += [
            RevokedKey(key_id=one["id"], tenant=one["tenant"], is_changed=one["changed"])
            for one in done["revoked"]
        ]
    barriers = barriers if wait else []
    return Revocations(keys=tuple(keys), generation=generation, barriers=tuple(barriers), found=tuple(found))


def _pages(tokens: Sequence[str]) -> list[list[str]]:
    """The tokens, in lists that one request has room for. What can be no key is sent shortened."""
    pages: list[list[str]] = [[]]
    size = 0
    for token in tokens:
        sent = token[:MAX_TOKEN_CHARACTERS]
        size += 6 * len(sent) + 4  # as JSON at its longest
        if pages[-1] and (len(pages[-1]) == PER_REQUEST or size > MAX_REQUEST_BYTES):
            pages.append([])
            size = 6 * len(sent) + 4
        pages[-1].append(sent)
    return pages if pages[0] else []


MAX_TOKEN_CHARACTERS = 4_097  # one more than any key has
