from __future__ import annotations

import asyncio

import pytest

from gateway.middleware.hook import read_body
from gateway.model.errors import Reason, Refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


def receiving(*messages):
    """A `receive` that returns these messages and then blocks."""
    left = list(messages)

    async def receive():
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    return receive


def part(body, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


async def refused(*messages):
    with pytest.raises(Refusal) as caught:
        await read_body(receiving(*messages), 10)
    return caught.value.reason


async def test_a_body_is_read_to_its_end():
    assert await read_body(receiving(part(b"01234", more=True), part(b"56789")), 10) == b"0123456789"
    assert await read_body(receiving({"type": "http.request"}), 10) == b""


async def test_a_body_that_is_longer_than_declared_is_refused_as_soon_as_it_is():
    assert await refused(part(b"0" * 6, more=True), part(b"0" * 5, more=True)) is Reason.BODY_TOO_LARGE


async def test_a_body_that_breaks_off_is_refused():
    assert await refused(part(b"0", more=True), {"type": "http.disconnect"}) is Reason.MALFORMED_REQUEST


async def test_a_body_that_does_not_come_is_not_waited_for():
    assert await refused(part(b"0", more=True)) is Reason.SLOW_REQUEST
