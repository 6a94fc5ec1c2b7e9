"""No key takes more than its share, and what it gives back it may take again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.model.errors import Reason, Unavailable
from gateway.model.names import KeyId
from gateway.platform.shares import Shares

ONE, OTHER = KeyId("key_0123456789ab"), KeyId("key_0123456789ac")


def test_a_key_gets_its_share_and_no_more_and_takes_nothing_of_others():
    async def check():
        shares = Shares(2, patience_seconds=0.0)
        async with AsyncExitStack() as held:
            for key in (ONE, ONE, OTHER):
                await held.enter_async_context(shares.taken(key))
            with pytest.raises(Unavailable) as failure:
                await held.enter_async_context(shares.taken(ONE))
            assert failure.value.reason is Reason.UPSTREAM_UNDECIDED
        async with shares.taken(ONE), shares.taken(ONE):
            pass

    asyncio.run(check())


def test_who_is_given_a_moment_waits_for_what_comes_free_meanwhile(run_in_virtual_time):
    async def check():
        shares = Shares(1, patience_seconds=5.0)
        order = []

        async def use(name):
            async with shares.taken(ONE):
                order.append(name)
                await asyncio.sleep(0.01)

        await asyncio.gather(use("first"), use("second"), use("third"))
        assert order == ["first", "second", "third"]

    run_in_virtual_time(check())


def test_a_key_with_nothing_under_way_is_not_remembered():
    async def check():
        shares = Shares(1, patience_seconds=0.0)
        for number in range(100):
            async with shares.taken(KeyId(f"key_{number:012d}")):
                pass
        assert not shares._slots

    asyncio.run(check())
