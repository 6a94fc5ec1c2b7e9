"""A node that lacks a pepper under which keys were stored stores no fingerprint."""

from __future__ import annotations

import pytest

from gateway.directory.edits.peppers import find_pepper_not_held, remember_peppers
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Conflict

pytestmark = pytest.mark.anyio


async def test_peppers_are_noted_once(run):
    assert (await run(remember_peppers, held={"p1": "f1"})).is_changed
    assert not (await run(remember_peppers, held={"p1": "f1"})).is_changed
    assert (await run(remember_peppers, held={"p1": "f1", "p2": "f2"})).is_changed


@pytest.mark.parametrize("held", [{"p1": "f2"}, {"p2": "f2"}, {"p2": "f1"}, {}])
async def test_a_node_without_a_known_pepper_notes_nothing(run, store, held):
    await run(remember_peppers, held={"p1": "f1"})
    with pytest.raises(Conflict, match="p1"):
        await run(remember_peppers, held=held)
    assert await Listing(PlainFacts(store)).pepper_fingerprints() == {"p1": "f1"}


@pytest.mark.parametrize(
    ("held", "known", "missing"),
    [
        ({"p1": "f1"}, {}, None),
        ({"p1": "f1", "p2": "f2"}, {"p1": "f1"}, None),
        ({"p2": "f2"}, {"p1": "f1", "p2": "f2"}, "p1"),
        ({"p1": "f1"}, {"p1": "f1", "p2": "f2"}, "p2"),
        ({"p1": "x"}, {"p1": "f1"}, "p1"),
        ({"p1": "f1"}, {"p1": ""}, "p1"),
    ],
)
def test_the_pepper_that_is_not_held_is_named(held, known, missing):
    assert find_pepper_not_held(held, known) == missing
