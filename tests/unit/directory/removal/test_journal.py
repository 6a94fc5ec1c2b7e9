from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.directory.removal.journal import (
    KEPT_BEYOND_SECONDS,
    LINES_PER_ENTRY,
    drop_entries,
    find_removal,
    head_of,
    list_removals,
    load_taken,
    note_taken,
    put_removal,
)
from gateway.model.errors import Conflict
from gateway.model.facts import ModelRule

pytestmark = pytest.mark.anyio


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture
def removal(acme):
    return head_of(replace(acme, generation=7), "rem_1", 10.0, 60.0)


async def test_a_head_is_found_and_listed_with_the_tenant_as_it_was(store, listing, acme, removal):
    await change(store, lambda changes: put_removal(changes, removal))
    assert await find_removal(listing, "rem_1") == removal
    assert await list_removals(listing) == [removal]
    assert removal.former_tenant() == acme
    assert removal.restorable_until == 70.0


async def test_what_was_taken_is_read_in_order_and_ends_by_itself(store, listing, removal):
    rules = [ModelRule(pattern=f"acme/{number}", owner="acme") for number in range(LINES_PER_ENTRY + 1)]

    async def take(changes):
        noted = await note_taken(changes, removal, rules, 20.0)
        await put_removal(changes, noted)
        return noted

    noted, _ = await change(store, take)
    assert noted.entries == 2
    assert await load_taken(listing, noted) == rules
    for number in range(2):
        left = await store._client.pttl(names.removal_entry("rem_1", number))
        assert KEPT_BEYOND_SECONDS < left / 1000 <= KEPT_BEYOND_SECONDS + 50.0
    assert await store._client.pttl(names.removal("rem_1")) == -1
    dropped, _ = await change(store, lambda changes: drop_entries(changes, noted))
    assert await load_taken(listing, noted) == []
    assert dropped.entries == 0


async def test_nothing_of_it_is_pushed_to_workers(removal):
    for name in (names.removal("rem_1"), names.removal_entry("rem_1", 0)):
        assert not name.startswith(names.FACTS)


async def test_a_head_that_does_not_parse_is_reported(store, listing, corrupt):
    await corrupt(names.removal("rem_1"))
    with pytest.raises(Conflict):
        await find_removal(listing, "rem_1")
