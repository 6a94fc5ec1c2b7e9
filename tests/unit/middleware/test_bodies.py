from __future__ import annotations

import asyncio

import pytest

from gateway.middleware.bodies import Bodies
from gateway.model.errors import Reason, Refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


def receiving(*messages, pause=0.0):
    """A `receive` that returns these messages, each after a pause, and then blocks."""
    left = list(messages)

    async def receive():
        await asyncio.sleep(pause if left else 3600)
        return left.pop(0)

    return receive


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


async def refused(bodies, receive, most=10):
    with bodies.holding() as held, pytest.raises(Refusal) as caught:
        await bodies.read(receive, most, held)
    return caught.value.reason


async def test_a_body_is_read_to_its_end():
    bodies = Bodies()
    with bodies.holding() as held:
        receive = receiving(part(b"01234", more=True), part(b"56789"))
        assert await bodies.read(receive, 10, held) == b"0123456789"


async def test_a_body_that_is_too_long_or_breaks_off_is_refused():
    bodies = Bodies()
    too_long = receiving(part(b"0" * 6, more=True), part(b"0" * 5, more=True))
    assert await refused(bodies, too_long) is Reason.BODY_TOO_LARGE
    broken = receiving(part(b"0", more=True), {"type": "http.disconnect"})
    assert await refused(bodies, broken) is Reason.MALFORMED_REQUEST


async def test_a_body_that_pauses_or_takes_too_long_is_refused():
    bodies = Bodies()
    assert await refused(bodies, receiving(part(b"0", more=True))) is Reason.SLOW_REQUEST
    drip = receiving(*[part(b"0", more=True)] * 100, pause=9.0)
    assert await refused(bodies, drip, 1000) is Reason.SLOW_REQUEST


async def test_all_bodies_together_are_bounded_and_make_room_again():
    bodies = Bodies(max_held_bytes=10)
    with bodies.holding() as held:
        await bodies.read(receiving(part(b"0" * 8)), 10, held)
        assert await refused(bodies, receiving(part(b"0" * 3))) is Reason.BUSY
        with bodies.holding() as other:
            await bodies.read(receiving(part(b"00")), 10, other)
    with bodies.holding() as held:
        assert await bodies.read(receiving(part(b"0" * 10)), 10, held)
