"""What `cachegate keys` does through a running gateway with several keys: list, report, revoke."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.cli.remote import key_view
from gateway.directory.reading.key_report import Concern
from gateway.model.names import KeyId, TenantId
from gateway.operations.keys.found import FoundKind, FoundToken
from gateway.operations.keys.revoking import RevokedKey
from gateway.operations.keys.views import KeyReportView, ReportedKeyView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.admin_client import AdminClient
    from gateway.operations.listings import KeyFilter, KeyView

PER_REQUEST = 100  # found tokens, which a body of the gateway has room for
MAX_REQUEST_BYTES = 40_000
SECONDS = 300.0  # each of them is a change of its own


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What revoking several keys came to."""

    keys: list[RevokedKey]
    found: list[FoundToken]
    generation: int | None
    is_sure: bool


def list_keys(
    gateway: AdminClient,
    only: TenantId | None,
    *,
    state: KeyFilter | None,
    after: KeyId | None,
    limit: int | None,
) -> list[KeyView]:
    """The keys of a tenant, or all, in the order of the gateway: those of each owner by their ids."""
    query: dict[str, str] = {} if only is None else {"tenant": only}
    query |= {} if state is None else {"state": state.value}
    start = None
    if after is not None:
        owner = gateway.get(f"/keys/{after}")["tenant"]
        start = f"{owner or ''}:{after.removeprefix('key_')}"
    return [key_view(one) for one in islice(gateway.each("/keys", start=start, **query), limit)]


def key_report(
    gateway: AdminClient, only: TenantId | None, *, soon_seconds: float, new_seconds: float
) -> KeyReportView:
    """The reports on the keys of one tenant, or on all."""
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


def revoke_of_tenant(gateway: AdminClient, tenant: TenantId, why: str, *, wait: bool) -> Revoked:
    """Revoke all keys of a tenant, each by a change of its own."""
    gateway.get(f"/tenants/{tenant}")
    keys, answers = [], []
    for one in gateway.each("/keys", tenant=tenant):
        done = gateway.change("POST", f"/keys/{one['id']}/revoke", {"reason": why}, wait=wait)
        answers.append(done)
        keys.append(RevokedKey(key_id=KeyId(one["id"]), tenant=tenant, is_changed=done["changed"]))
    return _revoked(keys, [], answers)


def revoke_found(
    gateway: AdminClient, tokens: Sequence[str], why: str, *, wait: bool, is_dry: bool
) -> Revoked:
    """Revoke those of these tokens that are keys of the gateway, and say what the others are."""
    keys: list[RevokedKey] = []
    found: list[FoundToken] = []
    answers = []
    for page in _pages(tokens):
        body = {"tokens": page, "reason": why, "dry_run": is_dry}
        done = gateway.change("POST", "/keys/revoke-found", body, wait=wait, seconds=SECONDS)
        answers.append(done)
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
    return _revoked(keys, found, answers)


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


def _revoked(keys: list[RevokedKey], found: list[FoundToken], answers: Sequence[dict[str, Any]]) -> Revoked:
    return Revoked(
        keys=keys,
        found=found,
        generation=answers[-1]["generation"] if answers else None,
        is_sure=all(one["sure"] for one in answers),
    )


MAX_TOKEN_CHARACTERS = 4_097  # one more than any key has
