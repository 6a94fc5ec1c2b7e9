"""Reports on keys: each key for what is to be looked at, and keys that have ended for nothing else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.reading import key_report
from gateway.directory.reading.key_networks import note_networks
from gateway.directory.reading.key_report import Concern, Period, ReportedKey, concerns_of, report_keys
from gateway.directory.reading.key_usage import LastUse, note_last_networks, note_last_uses
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.key_networks import NetworkUse
from gateway.model.facts import KeyLife

pytestmark = pytest.mark.anyio

DAY = 86_400.0
NOW = 100 * DAY
PERIOD = Period(now=NOW)
NEVER, ENDLESS, SOON, NEW = (
    Concern.NEVER_USED, Concern.NEVER_EXPIRING, Concern.EXPIRING_SOON, Concern.NEW_NETWORKS,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "used", "networks", "concerns"),
    [
        ({"expires_at": NOW + 90 * DAY}, True, {}, []),
        ({"expires_at": NOW + 90 * DAY}, False, {}, [NEVER]),
        ({"expires_at": NOW + 90 * DAY, "created_at": NOW - DAY}, False, {}, []),
        ({}, True, {}, [ENDLESS]),
        ({"expires_at": NOW + 14 * DAY}, True, {}, [SOON]),
        ({"expires_at": NOW}, True, {}, []),
        ({"revoked_at": 1.0}, False, {}, []),
        ({"life": KeyLife(disabled_at=1.0)}, False, {}, []),
        ({"life": KeyLife(is_decoy=True)}, False, {}, []),
        ({"revoked_at": 1.0}, True, {"a": NOW - 80 * DAY, "b": NOW - DAY}, [NEW]),
        ({"revoked_at": 1.0}, True, {"a": NOW - 80 * DAY, "b": NOW - 31 * DAY}, []),
        ({"revoked_at": 1.0}, True, {"a": NOW - DAY}, []),
        ({"revoked_at": 1.0}, True, {"a": NOW - DAY, "b": NOW - DAY}, [NEW]),  # within one second
    ],
)
async def test_a_key_is_reported_for_what_is_to_be_looked_at(make_key, changes, used, networks, concerns):
    key = make_key(**{"created_at": 1.0, **changes})
    one = ReportedKey(key=key, last_use=LastUse(1.0) if used else None, networks=networks)
    assert concerns_of(one, PERIOD) == concerns


async def test_a_report_counts_all_keys_and_lists_the_first(store, acme, make_key, monkeypatch):
    monkeypatch.setattr(key_report, "MAX_LISTED", 2)

    async def put(changes):
        await changes.put_tenant(acme)
        for number in range(5):
            await changes.put_key(make_key(number), bytes([number]) * 32)
        await changes.put_key(make_key(9, tenant=None), bytes([9]) * 32)

    await change(store, put)
    keys = [make_key(number) for number in range(5)]
    await note_last_uses(store, {keys[0].key_id: 5.0})
    await note_last_networks(store, {keys[0].key_id: "192.0.2.0/24"})
    for at, network in ((1.0, "192.0.2.0/24"), (NOW - DAY, "198.51.100.0/24")):
        uses = [NetworkUse(key_id=keys[0].key_id, tenant=None, network=network, at=at)]
        await note_networks(store, uses)
    found = await report_keys(store, Listing(PlainFacts(store)), [acme.tenant_id], PERIOD)
    assert found.counts == {NEVER: 4, ENDLESS: 5, SOON: 0, NEW: 1}
    assert [one.key.key_id for one in found.keys[NEVER]] == [key.key_id for key in keys[1:3]]
    [reported] = found.keys[NEW]
    assert reported.last_use == LastUse(5.0, "192.0.2.0/24")
    assert replace(reported.key, generation=0) == keys[0]
