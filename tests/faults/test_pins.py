"""Content that has changed is served to no caller, by no worker, whatever happens to the processes (I10)."""

from __future__ import annotations

import os
import signal
from hashlib import md5, sha256

import pytest

BIG = b"0123456789abcdef" * (1 << 18)  # 4 MiB
SMALL = b"small enough to be sent at once\n"
BASE = "/v1/models/acme/cars/1/-/pkgA1"


@pytest.fixture
def quiet_site(site):
    """Pins only what is asked for, so that the first reader is the one who hashes."""
    site.installation.environment["CACHEGATE_PIN_IN_BACKGROUND"] = "off"
    return site


def counted(gateway, name):
    return gateway.metrics().get(name, 0)


def test_a_blob_that_is_not_its_name_is_absent_for_all_until_it_is_released(quiet_site, serve, eventually):
    site = quiet_site
    place = site.place_of("small.bin")
    place.write_bytes(b"evil".ljust(len(SMALL)))
    gateway = serve(site.installation, workers=2)
    for path in (f"{BASE}/small.bin", f"/v1/blobs/{place.name}"):
        for method in ("GET", "HEAD"):
            assert gateway.wire.request(method, path, site.token).status == 404
    assert site.records("decision", reason="quarantined")
    [quarantined] = site.records("change", action="cache.quarantine")
    assert quarantined["actor"].startswith("worker:test-node")
    assert quarantined["subject"][:2] == [place.name, "not-its-name"]
    assert counted(gateway, 'cachegate_pins_total{event="quarantined"}') == 1
    assert place.name in gateway.log()

    place.write_bytes(SMALL)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 404
    site.installation.run("cache", "release", place.name)
    answer = gateway.wire.get(f"{BASE}/small.bin", site.token)
    assert (answer.status, answer.body) == (200, SMALL)
    assert site.records("change", action="cache.release")
    gateway.stop()
    site.installation.verify_audit()


@pytest.mark.parametrize("how", ["replaced", "rewritten", "truncated"])
def test_a_pinned_blob_that_changes_is_never_served_as_the_old_one(quiet_site, serve, how):
    site = quiet_site
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).body == SMALL
    place = site.place_of("small.bin")
    if how == "replaced":
        other = place.with_name("other")
        other.write_bytes(SMALL[::-1])
        other.replace(place)
    elif how == "rewritten":
        with place.open("r+b") as file:
            file.write(b"S")
    else:
        os.truncate(place, 5)
    answer = gateway.wire.get(f"{BASE}/small.bin", site.token)
    assert answer.status == 404
    assert site.records("decision", reason="quarantined")


def test_the_same_content_copied_anew_is_served_on(quiet_site, serve):
    site = quiet_site
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    place = site.place_of("small.bin")
    copy = place.with_name("copy")
    copy.write_bytes(SMALL)
    copy.replace(place)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).body == SMALL


def test_a_worker_that_was_killed_and_a_gateway_that_was_restarted_hash_nothing_again(
    quiet_site, serve, eventually
):
    site = quiet_site
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    assert counted(gateway, "cachegate_hashed_bytes_total") == len(SMALL)
    [worker] = gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: gateway.worker_pids() not in ([], [worker]) and gateway.is_ready())
    answer = gateway.wire.get(f"{BASE}/small.bin", site.token)
    assert (answer.status, answer.body) == (200, SMALL)
    gateway.stop()
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    assert counted(gateway, "cachegate_hashed_bytes_total") == 0


def test_many_workers_and_requests_hash_a_blob_once(installation, furnish_with, serve):
    installation.environment["CACHEGATE_PIN_IN_BACKGROUND"] = "off"
    site = furnish_with({"big.bin": BIG})
    gateway = serve(site.installation, workers=3)
    raw = f"GET {BASE}/big.bin HTTP/1.1\r\nHost: g\r\nConnection: close\r\nX-API-Key: {site.token}\r\n\r\n"
    connections = [gateway.wire.connect() for _ in range(12)]
    for connection in connections:
        connection.sendall(raw.encode())
    for connection in connections:
        answer = gateway.wire.read(connection)
        assert (answer.status, sha256(answer.body).digest()) == (200, sha256(BIG).digest())
        connection.close()
    assert counted(gateway, "cachegate_hashed_bytes_total") == len(BIG)


def test_blobs_are_pinned_before_anybody_asks_and_bad_ones_found_out(site, serve, eventually):
    gateway = serve(site.installation)
    eventually(lambda: site.records("change", action="cache.pin"))
    bad = site.blobs / md5(b"new", usedforsecurity=False).hexdigest()
    bad.write_bytes(b"not new")
    [found] = eventually(lambda: site.records("change", action="cache.quarantine"))
    assert found["subject"][0] == bad.name
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).body == SMALL


def test_a_quarantine_of_another_node_reaches_this_one_at_once(quiet_site, serve):
    """It found another content of that name on its own disk."""
    site = quiet_site
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    place = site.place_of("small.bin")

    async def contradict(session):
        from gateway.directory.edits.pins import quarantine_blob  # noqa: PLC0415
        from gateway.model.pins import Measured  # noqa: PLC0415

        theirs = Measured(identity=(1, 2, len(SMALL), 4, 5), md5=place.name, sha256="ab" * 32)
        await session.perform(
            "cache.quarantine",
            lambda changes: quarantine_blob(
                changes, md5=place.name, measured=theirs, now=session.clock.now(), source="other"
            ),
        )

    site.installation.in_session(contradict)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 404
    assert site.records("decision", reason="quarantined")
