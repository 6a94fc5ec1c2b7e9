"""Answers whose records wait for a disk: nothing is checked or written before the log has its result."""

from __future__ import annotations

import asyncio

import pytest

from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Ending
from tests.unit.middleware.test_at_once import Core, World, request


class Waiting(World):
    """Its recorder gives futures; `end` is what the disk does."""

    def record_all(self, weighed):
        self.result = asyncio.get_running_loop().create_future()
        self.waiting = weighed
        self.happened.append(f"hand over {len(weighed)}")
        return self.result

    async def end(self, error=None):
        if error is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result([self._record(one) for one in self.waiting])
            self.happened.append("recorded")
        for _ in range(3):
            await asyncio.sleep(0)


def run(scenario):
    world = Waiting()
    core = Core(world)
    asyncio.run(scenario(world, core))
    assert core.defects == 0


def test_the_check_and_the_bytes_come_after_the_record():
    async def scenario(world, core):
        clients = core.answer(request(), request(b"/f/y"))
        await asyncio.sleep(0)
        assert world.happened == ["weigh", "weigh", "hand over 2"]
        await world.end()
        assert world.happened[3:] == ["recorded", "check", "write", "check", "write"]
        assert [client.answers[0][0] for client in clients] == [200, 200]

    run(scenario)


def test_a_refusal_is_written_after_its_record_as_well():
    async def scenario(world, core):
        [client] = core.answer(request(b"/nowhere"))
        await asyncio.sleep(0)
        assert client.answers == []
        await world.end()
        assert client.answers[0][0] == 404

    run(scenario)


def test_what_changed_while_the_disk_was_waited_for_is_withdrawn_and_decided_anew():
    async def scenario(world, core):
        [client] = core.answer(request())
        world.leaf.is_current = False
        await world.end()
        assert client.answers == []
        assert client.passed_on == 1
        assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]

    run(scenario)


def test_without_a_record_nothing_is_sent_and_all_are_passed_on():
    async def scenario(world, core):
        clients = core.answer(request(), request(b"/nowhere"))
        await world.end(Unavailable("audit", "the disk has not answered", Reason.NO_AUDIT))
        assert [client.passed_on for client in clients] == [1, 1]
        assert "write" not in world.happened

    run(scenario)


@pytest.mark.parametrize("target", [b"/f/x", b"/nowhere"])
def test_a_client_that_left_meanwhile_gets_nothing_and_its_allow_is_closed(target):
    async def scenario(world, core):
        [client] = core.answer(request(target))
        client.may_answer = False
        await world.end()
        assert client.answers == []
        assert [one.ending for one in world.outcomes] == ([Ending.WITHDRAWN] if target == b"/f/x" else [])

    run(scenario)


def test_without_a_lease_by_then_the_application_answers_as_it_says_so_in_its_headers():
    async def scenario(world, core):
        [client] = core.answer(request())
        world.is_leased_now = False
        await world.end()
        assert (client.answers, client.passed_on) == ([], 1)

    run(scenario)


def test_the_next_request_of_another_connection_does_not_wait():
    async def scenario(world, core):
        [first] = core.answer(request())
        held, waiting = world.result, world.waiting
        [second] = core.answer(request(b"/f/y"))
        await world.end()
        assert (len(first.answers), len(second.answers)) == (0, 1)
        world.result, world.waiting = held, waiting
        await world.end()
        assert len(first.answers) == 1

    run(scenario)
