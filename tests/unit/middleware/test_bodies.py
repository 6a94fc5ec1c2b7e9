from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from gateway.middleware.bodies import HELD_BODIES, SHARES, Bodies, held_bytes
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
    with bodies.holding("192.0.2.1") as held, pytest.raises(Refusal) as caught:
        await bodies.read(receive, most, held)
    return caught.value.reason


async def test_a_body_is_read_to_its_end():
    bodies = Bodies(80)
    with bodies.holding("192.0.2.1") as held:
        receive = receiving(part(b"01234", more=True), part(b"56789"))
        assert await bodies.read(receive, 10, held) == b"0123456789"


async def test_a_body_that_is_too_long_or_breaks_off_is_refused():
    bodies = Bodies(80)
    too_long = receiving(part(b"0" * 6, more=True), part(b"0" * 5, more=True))
    assert await refused(bodies, too_long) is Reason.BODY_TOO_LARGE
    broken = receiving(part(b"0", more=True), {"type": "http.disconnect"})
    assert await refused(bodies, broken) is Reason.MALFORMED_REQUEST


async def test_a_body_that_pauses_or_takes_too_long_is_refused():
    bodies = Bodies(80)
    assert await refused(bodies, receiving(part(b"0", more=True))) is Reason.SLOW_REQUEST
    drip = receiving(*[part(b"0", more=True)] * 100, pause=9.0)
    assert await refused(bodies, drip, 1000) is Reason.SLOW_REQUEST


async def test_all_bodies_together_are_bounded_and_make_room_again():
    bodies = Bodies(max_held_bytes=16)
    with ExitStack() as stack:
        for number in range(4):
            held = stack.enter_context(bodies.holding(f"192.0.2.{number}"))
            await bodies.read(receiving(part(b"0" * 4)), 10, held)
        with bodies.holding("192.0.2.9") as held, pytest.raises(Refusal, match="busy"):
            await bodies.read(receiving(part(b"0")), 10, held)
    with bodies.holding("192.0.2.9") as held:
        assert await bodies.read(receiving(part(b"0" * 4)), 10, held)


async def test_one_address_leaves_room_for_others():
    bodies = Bodies(max_held_bytes=16)
    with bodies.holding("192.0.2.1") as held:
        await bodies.read(receiving(part(b"0" * 4)), 10, held)
        assert await refused(bodies, receiving(part(b"0"))) is Reason.BUSY
        with bodies.holding("192.0.2.2") as other:
            assert await bodies.read(receiving(part(b"0" * 4)), 10, other)
    assert await refused(bodies, receiving(part(b"0" * 5))) is Reason.BUSY


async def test_where_all_bodies_are_short_one_address_has_many_of_them_at_a_time():
    short = 64 << 10
    bodies = Bodies(held_bytes(short))
    with ExitStack() as stack:
        for _ in range(100):
            held = stack.enter_context(bodies.holding("192.0.2.1"))
            assert len(await bodies.read(receiving(part(b"x" * short)), short, held)) == short
    large = 32 << 20
    assert held_bytes(large) // SHARES == HELD_BODIES * large // SHARES
