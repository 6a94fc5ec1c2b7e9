"""Files of answers that are made at once, over real sockets: whole, checked at each step, ended once."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from contextlib import asynccontextmanager

import pytest
import uvloop

from gateway.model.answers import Span
from gateway.model.at_once import FileBody
from gateway.server import file_answer
from gateway.server.file_answer import FileAnswer
from gateway.server.file_sender import FileSender
from gateway.server.flow import Flow
from gateway.server.send_queue import TURN_BYTES, SendQueue

CONTENT = random.Random(13).randbytes(9 << 20)  # more than the buffers between two sockets
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
SHORT = Span(offset=1000, count=70_000)
WHOLE = Span(offset=0, count=len(CONTENT))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class Server(asyncio.Protocol):
    """The one connection that is made, as an answer sees it."""

    def __init__(self):
        self.made = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.flow = Flow(transport, ())
        self.sender = FileSender(transport, asyncio.get_running_loop(), SendQueue())
        self.made.set()

    def connection_lost(self, _error):
        self.lost.set()
        self.sender.close()

    def pause_writing(self):
        self.flow.pause_writing()

    def resume_writing(self):
        self.flow.resume_writing()

    def abort(self):
        self.transport.abort()


class Watched:
    """A transfer: what happened to it, and whether it may go on."""

    def __init__(self):
        self.ends = []
        self.complete = 0
        self.watches = 0
        self.verified = 0
        self.is_certain = True
        self.error = None

    async def verify(self):
        if self.error is not None:
            raise self.error

    def look(self):
        self.verified += 1

    def watch(self):
        self.watches += 1
        return self

    def body(self, file, *pieces, verify=None):
        return FileBody(
            file=file,
            pieces=pieces,
            verify=verify or self.look,
            watch=self.watch,
            on_end=lambda sent, error: self.ends.append((sent, error)),
        )

    def answer(self, server, body):
        def complete():
            self.complete += 1

        return FileAnswer(body, server, server.sender, complete)


@asynccontextmanager
async def connected():
    loop, end = asyncio.get_running_loop(), Server()
    server = await loop.create_server(lambda: end, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await end.made.wait()
        yield end, client
    finally:
        client.close()
        server.close()
        end.transport.abort()
        await end.lost.wait()


async def read(client, count):
    received = bytearray()
    while len(received) < count:
        try:
            piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1 << 18), 20)
        except ConnectionResetError:
            break
        if not piece:
            break
        received += piece
    return bytes(received)


def run(test):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(test())


def test_a_short_range_goes_out_with_its_head_before_anything_else_runs(file):
    async def test():
        watched = Watched()
        async with connected() as (server, client):
            needs_more = watched.answer(server, watched.body(file, SHORT)).begin(HEAD)
            ends = list(watched.ends)
            return needs_more, ends, watched, await read(client, len(HEAD) + SHORT.count)

    needs_more, ends, watched, received = run(test)
    assert received == HEAD + CONTENT[SHORT.offset : SHORT.end]
    assert (needs_more, ends, watched.complete) == (False, [(SHORT.count, None)], 1)
    assert watched.verified == 2  # before the bytes and after them
    assert watched.watches == 0


def test_a_long_range_begins_at_once_and_goes_on_in_checked_steps(file):
    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE))
            assert answer.begin(HEAD)
            assert watched.ends == []
            _, received = await asyncio.gather(answer.finish(), read(client, len(HEAD) + WHOLE.count))
            return watched, received

    watched, received = run(test)
    assert received == HEAD + CONTENT
    assert (watched.ends, watched.complete, watched.watches) == ([(len(CONTENT), None)], 1, 1)
    assert watched.verified > len(CONTENT) // TURN_BYTES


def test_several_ranges_and_what_is_between_them_go_out_in_their_order(file):
    pieces = (b"one", SHORT, b"two", Span(offset=2_000_000, count=3_000_000), b"three")

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, *pieces))
            assert answer.begin(HEAD)
            length = sum(len(one) if isinstance(one, bytes) else one.count for one in pieces)
            _, received = await asyncio.gather(answer.finish(), read(client, len(HEAD) + length))
            return watched, length, received

    watched, length, received = run(test)
    parts = [one if isinstance(one, bytes) else CONTENT[one.offset : one.end] for one in pieces]
    assert received == HEAD + b"".join(parts)
    assert watched.ends == [(length, None)]


def test_what_one_iteration_sends_beside_the_queue_is_bounded(file):
    async def test():
        queue = SendQueue()
        loop = asyncio.get_running_loop()
        count = 0
        while queue.may_send(SHORT.count, loop):
            count += 1
        in_first = count
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return in_first, queue.may_send(SHORT.count, loop)

    assert run(test) == (TURN_BYTES // SHORT.count, True)


def test_nothing_is_sent_past_those_that_wait_in_the_queue(file):
    async def test():
        queue, loop = SendQueue(), asyncio.get_running_loop()
        queue.line_up(lambda: False, loop)
        return queue.may_send(1, loop)

    assert run(test) is False


class ChangedError(Exception):
    """What a check raises."""


def test_a_file_that_changed_sends_no_byte_and_ends_the_connection(file):
    def changed():
        raise ChangedError

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            needs_more = watched.answer(server, watched.body(file, SHORT, verify=changed)).begin(HEAD)
            return needs_more, watched, await read(client, 1)

    needs_more, watched, received = run(test)
    [(sent, error)] = watched.ends
    assert (needs_more, received, sent, type(error), watched.complete) == (False, b"", 0, ChangedError, 0)


def test_what_went_out_before_a_file_changed_is_counted(file):
    checks = iter([None, ChangedError()])

    def verify():
        error = next(checks)
        if error is not None:
            raise error

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            needs_more = watched.answer(server, watched.body(file, SHORT, verify=verify)).begin(HEAD)
            return needs_more, watched, await read(client, len(HEAD) + SHORT.count)

    needs_more, watched, _ = run(test)
    [(sent, error)] = watched.ends
    assert (needs_more, sent, type(error), watched.complete) == (False, SHORT.count, ChangedError, 0)


def test_a_file_that_changes_on_the_way_is_cut(file):
    checks = []

    def verify():
        checks.append(1)
        if len(checks) > 4:
            raise ChangedError

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE, verify=verify))
            assert answer.begin(HEAD)
            _, received = await asyncio.gather(answer.finish(), read(client, len(HEAD) + WHOLE.count))
            return watched, received

    watched, received = run(test)
    [(sent, error)] = watched.ends
    assert isinstance(error, ChangedError)
    assert len(received) - len(HEAD) <= sent < len(CONTENT)
    assert watched.complete == 0


def test_steps_stop_when_the_transfer_may_not_go_on_without_anybody_watching_it(file):
    """The watch of all transfers looks five times a second: a step does not wait for it."""

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE))
            assert answer.begin(HEAD)
            finishing = asyncio.create_task(answer.finish())
            received = await read(client, 600_000)
            watched.is_certain, watched.error = False, PermissionError("revoked")
            received += await read(client, len(HEAD) + WHOLE.count)
            await finishing
            return watched, received

    watched, received = run(test)
    [(sent, error)] = watched.ends
    assert isinstance(error, PermissionError)
    assert len(received) <= len(HEAD) + sent < len(CONTENT)


def test_a_client_that_leaves_ends_the_transfer_once(file):
    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE))
            assert answer.begin(HEAD)
            finishing = asyncio.create_task(answer.finish())
            await read(client, 600_000)
            client.close()
            await asyncio.wait_for(finishing, 20)
            return watched

    watched = run(test)
    [(sent, error)] = watched.ends
    assert isinstance(error, ConnectionError)
    assert sent < len(CONTENT)


def test_a_connection_that_is_lost_already_ends_the_transfer_at_once(file):
    async def test():
        watched = Watched()
        async with connected() as (server, _client):
            server.transport.abort()
            needs_more = watched.answer(server, watched.body(file, SHORT)).begin(HEAD)
            return needs_more, watched

    needs_more, watched = run(test)
    [(sent, error)] = watched.ends
    assert (needs_more, sent, isinstance(error, ConnectionError)) == (False, 0, True)


def test_without_sendfile_the_file_is_copied(file, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "not of this file")

    monkeypatch.setattr(os, "sendfile", refuse)
    monkeypatch.setattr(file_answer, "COPIED_BYTES", 1 << 20)

    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE))
            assert answer.begin(HEAD)
            _, received = await asyncio.gather(answer.finish(), read(client, len(HEAD) + WHOLE.count))
            return watched, received

    watched, received = run(test)
    assert received == HEAD + CONTENT
    assert watched.ends == [(len(CONTENT), None)]


def test_a_transfer_that_is_cancelled_ends_its_connection(file):
    async def test():
        watched = Watched()
        async with connected() as (server, client):
            answer = watched.answer(server, watched.body(file, WHOLE))
            assert answer.begin(HEAD)
            finishing = asyncio.create_task(answer.finish())
            await read(client, 600_000)
            finishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await finishing
            await asyncio.wait_for(server.lost.wait(), 20)
            return watched

    watched = run(test)
    assert [type(error) for _, error in watched.ends] == [asyncio.CancelledError]
