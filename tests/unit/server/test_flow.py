"""How many bytes are queued for a client that does not read, counted with a transport that never drains."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.server.flow import HIGH_WATER_BYTES, MAX_QUEUED_BYTES
from gateway.server.protocol import worker_protocol

GET = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
ONE_READ = 1 << 18  # what uvloop reads at once
LARGEST_FROM_MEMORY = 1 << 16
STEP = 1 << 20


class SilentClient:
    """A transport whose client always sends, and takes nothing until it is told to."""

    def __init__(self):
        self.queued = self.most_queued = 0
        self.high = None
        self.is_reading = True
        self.is_paused = self.is_aborted = False
        self.protocol = None

    def set_write_buffer_limits(self, high):
        self.high = high

    def write(self, data):
        self.queued += len(data)
        self.most_queued = max(self.most_queued, self.queued)
        if self.queued > self.high and not self.is_paused:
            self.is_paused = True
            self.protocol.pause_writing()

    def take_all(self):
        self.queued = 0
        if self.is_paused:
            self.is_paused = False
            self.protocol.resume_writing()

    def get_write_buffer_size(self):
        return self.queued

    def pause_reading(self):
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self):
        assert not self.is_reading
        self.is_reading = True

    def is_closing(self):
        return self.is_aborted

    def abort(self):
        self.is_aborted = True

    close = abort

    def can_write_eof(self):
        return False

    def get_extra_info(self, name):
        return None


class App:
    """Answers with so many bytes, in steps as delivery sends them."""

    def __init__(self, size=0):
        self.size = size
        self.begun = self.answered = 0

    async def __call__(self, scope, receive, send):
        self.begun += 1
        headers = [(b"content-length", b"%d" % self.size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = self.size
        while left > STEP:
            left -= STEP
            await send({"type": "http.response.body", "body": bytes(STEP), "more_body": True})
        await send({"type": "http.response.body", "body": bytes(left)})
        self.answered += 1


class Memory:
    """Answers everything from memory, with the largest answer allowed."""

    def __init__(self):
        self.answered = self.taken_in_vain = 0

    def take(self, request, connection):
        self.taken_in_vain += not connection.may_answer
        asyncio.get_running_loop().call_soon(self._give, connection)

    def _give(self, connection):
        if connection.may_answer:
            self.answered += 1
            connection.answer(
                200, b"content-length: %d\r\n\r\n" % LARGEST_FROM_MEMORY, bytes(LARGEST_FROM_MEMORY)
            )
        else:
            connection.pass_on()

    def finish(self):
        pass


def connected(app, **more):
    config = uvicorn.Config(app, http=worker_protocol(**more), lifespan="off", log_config=None)
    config.load()
    client = SilentClient()
    client.protocol = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
    client.protocol.connection_made(client)
    return client


async def determine(client):
    """Run until nothing more happens."""
    before, idle = None, 0
    while idle < 20:
        await asyncio.sleep(0)
        now = client.queued, len(client.protocol.waiting), client.is_reading
        before, idle = now, idle + 1 if now == before else 0


def run(scenario):
    """Run a scenario, and close its connections at the end: waiting senders would wait for ever."""
    clients = []

    async def to_the_end():
        try:
            await scenario(
                lambda *arguments, **more: clients.append(connected(*arguments, **more)) or clients[-1]
            )
        finally:
            for client in clients:
                client.protocol.connection_lost(None)
            await asyncio.sleep(0)

    asyncio.run(to_the_end())


async def send_while_it_is_read(client, piece, count=1000):
    """How often the socket was read: the client never stops sending."""
    for number in range(count):
        if not client.is_reading or client.is_aborted:
            return number
        client.protocol.data_received(piece)
        await determine(client)
    return count


def one_read_of(path=b"a", most=100):
    """As many pipelined requests as one read of the socket holds, within the limit."""
    return (GET % path) * min(most, ONE_READ // len(GET % path))


@pytest.mark.parametrize("size", [0, 700, STEP, 10 * STEP])
def test_no_more_is_queued_than_the_limit_and_reading_stops(size):
    async def scenario(connected):
        app = App(size)
        client = connected(app)
        reads = await send_while_it_is_read(client, one_read_of(most=100))
        assert client.high == HIGH_WATER_BYTES
        assert HIGH_WATER_BYTES <= client.queued <= client.most_queued <= MAX_QUEUED_BYTES
        assert not client.is_reading
        assert reads < 100

    run(scenario)


def test_no_more_is_queued_than_the_limit_of_answers_from_memory():
    async def scenario(connected):
        memory = Memory()
        client = connected(App(LARGEST_FROM_MEMORY), at_once=memory)
        await send_while_it_is_read(client, one_read_of(most=100))
        assert client.most_queued <= MAX_QUEUED_BYTES
        assert memory.taken_in_vain == 0
        assert memory.answered <= 1 + HIGH_WATER_BYTES // LARGEST_FROM_MEMORY
        assert not client.is_reading

    run(scenario)


def test_one_request_after_the_other_is_bounded_as_well():
    """Each in a read of its own, so that none has to wait for another."""

    async def scenario(connected):
        app = App(700)
        client = connected(app)
        reads = await send_while_it_is_read(client, GET % b"a")
        assert client.most_queued <= HIGH_WATER_BYTES + 1000
        assert not client.is_reading
        assert app.begun == app.answered == reads  # the next request was not even parsed
        client.take_all()
        assert client.is_reading  # nothing else would resume reading: no answer is pending
        client.protocol.data_received(GET % b"a")
        await determine(client)
        assert app.answered == reads + 1

    run(scenario)


def test_a_client_that_reads_again_is_read_again_and_gets_every_answer():
    async def scenario(connected):
        app = App(700)
        client = connected(app)
        asked = 0
        for _ in range(30):
            asked += 100 * await send_while_it_is_read(client, one_read_of(most=100))
            assert not client.is_reading
            while not client.is_reading or client.queued:
                client.take_all()
                await determine(client)
            assert app.answered == asked
        assert not client.is_aborted

    run(scenario)


def test_an_application_that_waits_for_its_client_to_leave_does_not_have_it_read_on():
    """As delivery does while it sends: `receive` makes uvicorn read."""

    class Waiting(App):
        async def __call__(self, scope, receive, send):
            leaving = asyncio.ensure_future(receive())  # the request itself
            await leaving
            leaving = asyncio.ensure_future(receive())
            try:
                await super().__call__(scope, receive, send)
            finally:
                leaving.cancel()

    async def scenario(connected):
        app = Waiting(10 * STEP)
        client = connected(app)
        client.protocol.data_received(GET % b"a")
        await determine(client)
        assert (app.begun, app.answered) == (1, 0)
        assert client.queued > HIGH_WATER_BYTES
        assert not client.is_reading

    run(scenario)


def test_an_application_that_waits_for_a_client_to_take_its_answer_learns_that_it_has_left():
    async def scenario(_connected):
        app = App(10 * STEP)
        client = connected(app)
        client.protocol.data_received(GET % b"a")
        await determine(client)
        [task] = asyncio.all_tasks() - {asyncio.current_task()}
        client.protocol.connection_lost(None)
        async with asyncio.timeout(60):
            await asyncio.wait([task])

    run(scenario)


def test_a_connection_that_is_lost_is_let_go_of():
    async def scenario(_connected):
        client = connected(App())
        lost = weakref.ref(client.protocol)
        client.protocol.connection_lost(None)
        client.protocol = None
        gc.collect()
        assert lost() is None  # no timer keeps a reference

    run(scenario)


def test_requests_that_wait_their_turn_are_not_joined_by_more():
    """uvicorn resumes reading after each answer; the waiting requests would grow until one is refused."""

    async def scenario(connected):
        app = App(0)
        client = connected(app)
        client.protocol.data_received(one_read_of(most=100))
        while client.protocol.waiting:
            assert not client.is_reading
            await asyncio.sleep(0)
        await determine(client)
        assert client.is_reading
        assert app.answered == 100

    run(scenario)
