"""Reports on keys that an operator should look at: never used, without an end, ending soon, used from anew.

Keys that have ended, and decoys, are in no report but that of networks: a key that was used from a new
network and then revoked is still worth a look. All keys are read, page by page, so a report of a million of
them takes a minute or two; nothing waits for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.directory.reading.key_networks import find_networks
from gateway.directory.reading.key_usage import find_uses
from gateway.directory.reading.listing import PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from gateway.directory.reading.key_networks import Networks
    from gateway.directory.reading.key_usage import LastUse
    from gateway.directory.reading.listing import Listing
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId
    from gateway.model.stores import FactStore

MAX_LISTED = 1_000  # keys of one report by name; further ones are counted


class Concern(StrEnum):
    """Why a key is in a report."""

    NEVER_USED = "never-used"
    NEVER_EXPIRING = "never-expiring"
    EXPIRING_SOON = "expiring-soon"
    NEW_NETWORKS = "new-networks"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as soon, as new, and as old enough to have been used."""

    now: float
    soon_seconds: float = 14 * 86_400.0  # until a key ends
    new_seconds: float = 30 * 86_400.0  # since a network was first seen
    idle_seconds: float = 7 * 86_400.0  # since a key was made that is not used yet


class ReportedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key in a report, with what the report is about."""

    key: Key
    last_use: LastUse | None
    networks: Networks


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Keys by concern: how many there are, and the first of them."""

    counts: dict[Concern, int]
    keys: dict[Concern, list[ReportedKey]]


async def report_keys(
    store: FactStore,
    listing: Listing,
    owners: Iterable[TenantId | None],
    period: Period,
    is_asked: Callable[[Key], bool] | None = None,
) -> KeyReport:
    """Return the report on the keys of these tenants (None: the admin keys), or on some of them."""
    counts = dict.fromkeys(Concern, 0)
    keys: dict[Concern, list[ReportedKey]] = {concern: [] for concern in Concern}
    async for one in _each_key(store, listing, await listing.list_key_ids(owners)):
        if is_asked is not None and not is_asked(one.key):
            continue
        for concern in concerns_of(one, period):
            counts[concern] += 1
            if len(keys[concern]) < MAX_LISTED:
                keys[concern].append(one)
    return KeyReport(counts=counts, keys=keys)


def concerns_of(one: ReportedKey, period: Period) -> list[Concern]:
    """Why this key should be looked at."""
    key, now = one.key, period.now
    found = []
    if not (key.is_ended or key.is_over(now)):
        if one.last_use is None and key.created_at <= now - period.idle_seconds:
            found.append(Concern.NEVER_USED)
        if key.expires_at is None:
            found.append(Concern.NEVER_EXPIRING)
        elif key.expires_at <= now + period.soon_seconds:
            found.append(Concern.EXPIRING_SOON)
    if new_networks(one.networks, now - period.new_seconds):
        found.append(Concern.NEW_NETWORKS)
    return found


def new_networks(networks: Networks, since: float) -> list[str]:
    """The networks that were first seen after this time, and after the key's first one."""
    # They are in order, so the first one is known even where another was seen within the same second.
    return [network for network, seen_at in list(networks.items())[1:] if seen_at >= since]


async def _each_key(store: FactStore, listing: Listing, key_ids: list[KeyId]) -> AsyncIterator[ReportedKey]:
    for start in range(0, len(key_ids), PAGE):
        page = key_ids[start : start + PAGE]
        found = [key async for _, key in listing.each_stored_key(page)]
        uses, networks = await find_uses(store, page), await find_networks(store, page)
        for key in found:
            yield ReportedKey(key=key, last_use=uses.get(key.key_id), networks=networks.get(key.key_id, {}))
