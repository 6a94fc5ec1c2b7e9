"""The watch on keys: one worker of a fleet reports, and what is new is an event in the audit log."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.assembly.key_watch import MAX_NAMED, REPORT_SECONDS, KeyWatch
from gateway.audit import AuditLog
from gateway.directory.edits.changes import change
from gateway.directory.reading.key_usage import find_uses, note_last_uses
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.key_networks import KeyNetworks
from gateway.model.facts import DEFAULT_SCOPES, Key, Tenant
from gateway.model.names import KeyId, TenantId
from gateway.telemetry import Telemetry
from tests import samples

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
NOW = 1_790_000_000.0
DAY = 86_400.0


class HandClock:
    def __init__(self):
        self.time = NOW

    def now(self):
        return self.time


def make_key(number, **changes):
    return Key(
        key_id=KeyId(f"key_{number:012}"), tenant=ACME, name="", scopes=DEFAULT_SCOPES, networks=(),
        created_at=1.0, pepper_id="p1", **changes,
    )  # fmt: skip


@pytest.fixture
async def build(store, tmp_path):
    """Makes the watch of a worker; all share the audit log and the clock."""
    clock = HandClock()
    log = AuditLog(folder=tmp_path, node="n", signing_key=Ed25519PrivateKey.generate(), clock=clock)

    async def put(changes):
        await changes.put_tenant(Tenant(tenant_id=ACME, name="", is_suspended=False, created_at=1.0))
        for number in range(MAX_NAMED + 5):
            await changes.put_key(make_key(number, expires_at=NOW + DAY), bytes([number]) * 32)

    await change(store, put)

    def make(worker):
        watch = KeyWatch(
            store=store, listing=Listing(PlainFacts(store)), networks=KeyNetworks(),
            recorder=log, telemetry=Telemetry(), clock=clock, worker=worker,
        )  # fmt: skip
        watch.clock = clock
        watch.events = lambda: [
            one
            for file in tmp_path.glob("*-0*.jsonl")
            for one in map(json.loads, file.read_bytes().splitlines())
            if one["kind"] == "change"
        ]
        return watch

    yield make
    log.close()


async def test_one_worker_reports_and_the_gauges_of_the_others_add_nothing(build):
    one, other = build("a"), build("b")
    for watch in (one, other):
        await watch.report_if_due()
    assert one._telemetry.gauges == {
        "cachegate_keys_never_used": MAX_NAMED + 5,
        "cachegate_keys_never_expiring": 0.0,
        "cachegate_keys_expiring_soon": MAX_NAMED + 5,
        "cachegate_keys_new_networks": 0.0,
    }
    assert set(other._telemetry.gauges.values()) == {0.0}
    [event] = one.events()
    assert (event["action"], event["actor"]) == ("keys.report", "worker:a")
    counts = (MAX_NAMED + 5, 0, MAX_NAMED + 5, 0)
    concerns = ("never-used", "never-expiring", "expiring-soon", "new-networks")
    told = [f"{concern}: {count}" for concern, count in zip(concerns, counts, strict=True)]
    assert event["subject"][:4] == told
    assert len(event["subject"]) == 4 + MAX_NAMED


async def test_a_report_is_an_event_again_only_when_a_count_has_changed_and_an_hour_has_passed(build, store):
    watch = build("a")
    await watch.report_if_due()
    await note_last_uses(store, {make_key(0).key_id: NOW})
    await watch.report_if_due()
    assert len(watch.events()) == 1
    watch.clock.time += REPORT_SECONDS
    await watch.report_if_due()
    assert len(watch.events()) == 2
    watch.clock.time += REPORT_SECONDS
    await watch.report_if_due()
    assert len(watch.events()) == 2


async def test_a_network_that_is_new_to_a_key_is_an_event_and_the_first_is_none(build, store):
    watch = build("a")
    principal = samples.principal(key_id=make_key(0).key_id, tenant=ACME)
    for client in ("192.0.2.1", "192.0.2.2", "198.51.100.1"):
        watch._networks.note(principal, client, NOW)
        await watch.note_networks()
    [event] = watch.events()
    assert (event["action"], event["tenant"], event["key_id"], event["subject"]) == (
        "keys.new-network", "acme", principal.key_id, ["198.51.100.0/24"],
    )  # fmt: skip
    assert watch._telemetry.counters["cachegate_key_new_networks_total"] == 1
    await note_last_uses(store, {principal.key_id: NOW})
    assert (await find_uses(store, [principal.key_id]))[principal.key_id].network == "198.51.100.0/24"
