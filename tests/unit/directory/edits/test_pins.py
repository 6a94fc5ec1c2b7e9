"""Pins are written once, contradicted only by quarantine, and released by an operator."""

from __future__ import annotations

import pytest

from gateway.directory.edits.changes import change
from gateway.directory.edits.pins import pin_blobs, quarantine_blob, release_blob
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.errors import Conflict
from gateway.model.names import Md5
from gateway.model.pins import Measured, QuarantineCause

BLOB = Md5("ab" * 16)
GOOD = Measured(identity=(1, 2, 15, 3, 4), md5=BLOB, sha256="cd" * 32)
COLLISION = Measured(identity=(1, 5, 15, 3, 4), md5=BLOB, sha256="ef" * 32)
OTHER = Measured(identity=(1, 6, 15, 3, 4), md5="00" * 16, sha256="01" * 32)

pytestmark = pytest.mark.anyio


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture
def pin(store):
    async def operate(*contents, now=7.0):
        found, _ = await change(
            store, lambda changes: pin_blobs(changes, contents=contents, now=now, source="worker:n")
        )
        return found

    return operate


@pytest.fixture
def quarantine(store):
    async def operate(measured, now=8.0):
        found, _ = await change(
            store,
            lambda changes: quarantine_blob(changes, md5=BLOB, measured=measured, now=now, source="w"),
        )
        return found

    return operate


async def test_what_is_first_seen_is_pinned(pin, listing):
    assert await pin((BLOB, GOOD)) == (BLOB,)
    found = await listing.find_pin(BLOB)
    assert (found.sha256, found.size, found.pinned_at) == (GOOD.sha256, 15, 7.0)
    assert (found.quarantine, found.source, found.generation) == (None, "worker:n", 1)


@pytest.mark.parametrize("later", [GOOD, COLLISION, OTHER])
async def test_a_pin_is_never_written_over(pin, listing, later):
    await pin((BLOB, GOOD))
    before = await listing.find_pin(BLOB)
    assert await pin((BLOB, later), now=9.0) == ()
    assert await listing.find_pin(BLOB) == before


async def test_content_that_is_not_its_name_is_never_pinned(pin, listing):
    assert await pin((BLOB, OTHER)) == ()
    assert await listing.find_pin(BLOB) is None


async def test_a_record_that_does_not_parse_is_left_to_deny(pin, corrupt, store):
    await corrupt(names.pin_fact(BLOB))
    other = Md5("12" * 16)
    good = Measured(identity=GOOD.identity, md5=other, sha256=GOOD.sha256)
    assert await pin((BLOB, GOOD), (other, good)) == (other,)
    _, [raw] = await store.read([names.pin_fact(BLOB)])
    assert raw == b"\xc1garbage"


async def test_another_content_of_the_same_name_is_quarantined_and_the_pin_kept(pin, quarantine, listing):
    await pin((BLOB, GOOD))
    found = await quarantine(COLLISION)
    assert found.quarantine.cause is QuarantineCause.NOT_ITS_PIN
    held = await listing.find_pin(BLOB)
    assert (held.sha256, held.quarantine.since) == (GOOD.sha256, 8.0)
    assert held.quarantine.found_sha256 == COLLISION.sha256
    assert await listing.list_quarantined() == [held]


async def test_a_content_that_never_was_its_name_leaves_nothing_to_trust(quarantine, listing):
    await quarantine(OTHER)
    held = await listing.find_pin(BLOB)
    assert (held.sha256, held.quarantine.cause) == (None, QuarantineCause.NOT_ITS_NAME)


async def test_nothing_is_quarantined_for_a_content_that_is_right(pin, quarantine, listing):
    await pin((BLOB, GOOD))
    assert await quarantine(GOOD) is None
    assert await listing.list_quarantined() == []


async def test_the_first_cause_of_a_quarantine_is_kept(quarantine, listing):
    await quarantine(OTHER)
    assert await quarantine(COLLISION, now=9.0) is None
    assert (await listing.find_pin(BLOB)).quarantine.since == 8.0


async def test_good_content_does_not_end_a_quarantine(pin, quarantine, listing):
    await quarantine(OTHER)
    assert await pin((BLOB, GOOD)) == ()
    assert (await listing.find_pin(BLOB)).quarantine is not None


async def test_a_release_keeps_the_pin_that_was_there(pin, quarantine, run, listing):
    await pin((BLOB, GOOD))
    await quarantine(COLLISION)
    effect = await run(release_blob, md5=BLOB)
    assert effect.is_changed
    assert (await listing.find_pin(BLOB)).sha256 == GOOD.sha256
    assert await listing.list_quarantined() == []
    assert not (await run(release_blob, md5=BLOB)).is_changed
    assert (await quarantine(COLLISION)).quarantine.cause is QuarantineCause.NOT_ITS_PIN


async def test_after_a_release_without_a_pin_good_content_is_pinned(pin, quarantine, run, listing):
    await quarantine(OTHER)
    await run(release_blob, md5=BLOB)
    assert await pin((BLOB, GOOD)) == (BLOB,)
    assert (await listing.find_pin(BLOB)).sha256 == GOOD.sha256


async def test_a_pin_that_is_forgotten_makes_room_for_another(pin, run, listing):
    await pin((BLOB, GOOD))
    await run(release_blob, md5=BLOB, forget=True)
    assert await listing.find_pin(BLOB) is None
    assert await pin((BLOB, COLLISION)) == (BLOB,)


async def test_a_blob_that_nobody_pinned_cannot_be_released(run):
    with pytest.raises(Conflict):
        await run(release_blob, md5=BLOB)


async def test_content_whose_record_does_not_parse_is_not_quarantined_over_it(run, corrupt, store):
    await corrupt(names.pin_fact(BLOB))
    assert await run(quarantine_blob, md5=BLOB, measured=OTHER, now=2.0, source="worker:n") is None
    _, [raw] = await store.read([names.pin_fact(BLOB)])
    assert raw == b"\xc1garbage"
