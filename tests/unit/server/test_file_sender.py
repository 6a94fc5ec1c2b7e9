"""Files sent by `sendfile` over real sockets: complete, in order, and without blocking the event loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import socket
import struct
import weakref
from contextlib import asynccontextmanager
from io import UnsupportedOperation
from pathlib import Path

import pytest
import uvloop

from gateway.server import file_span
from gateway.server.file_sender import FileSender
from gateway.server.file_span import RangeCallbacks, is_in_memory
from gateway.server.kernel_queue import MAX_UNSENT_BYTES, MAX_UNSENT_FILE_BYTES, bound_the_kernel
from gateway.server.send_queue import SendQueue

unheard = RangeCallbacks(on_sent=lambda _: None)
CONTENT = random.Random(11).randbytes(9 << 20)  # more than the buffers between two sockets


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class Server(asyncio.Protocol):
    """Keeps the one connection that is made, and its sender."""

    def __init__(self, turns):
        self.turns = turns
        self.made = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.sender = FileSender(transport, asyncio.get_running_loop(), self.turns)
        self.made.set()

    def connection_lost(self, _error):
        self.lost.set()
        self.sender.close()


@asynccontextmanager
async def connected():
    """The server's end of a connection, and a client's socket."""
    loop, end = asyncio.get_running_loop(), Server(SendQueue())
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
        piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1 << 18), 20)
        if not piece:
            break
        received += piece
    return bytes(received)


def run(test):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(test())


def test_the_kernel_may_keep_more_of_a_file_and_not_as_much_as_it_likes(file):
    """Larger pieces of a file cost less. But what all sockets hold together is bounded for the machine."""

    async def scenario():
        async with connected() as (end, client):
            accepted = end.transport.get_extra_info("socket")
            bound_the_kernel(accepted, 60)
            as_bound = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            await asyncio.gather(end.sender.send(file, 0, 100, unheard), read(client, 100))
            raised = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert (as_bound, raised) == (MAX_UNSENT_BYTES, MAX_UNSENT_FILE_BYTES)

    run(scenario)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_range_arrives_whole_after_what_was_written_before_it(file):
    async def test():
        async with connected() as (server, client):
            steps = []
            server.transport.write(b"head" * 100_000)  # more than the kernel takes at once
            sending = asyncio.create_task(
                server.sender.send(file, 1000, len(CONTENT) - 2000, RangeCallbacks(on_sent=steps.append))
            )
            received = await read(client, 400_000 + len(CONTENT) - 2000)
            await sending
            server.transport.write(b"tail")
            return steps, received + await read(client, 4)

    steps, received = run(test)
    assert received == b"head" * 100_000 + CONTENT[1000:-1000] + b"tail"
    assert sum(steps) == len(CONTENT) - 2000
    assert len(steps) > 1


def test_a_client_that_reads_nothing_holds_up_its_own_transfer_alone(file):
    async def test():
        async with connected() as (stopped, _), connected() as (server, client):
            steps = []
            waiting = asyncio.create_task(
                stopped.sender.send(file, 0, len(CONTENT), RangeCallbacks(on_sent=steps.append))
            )
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), unheard))
            received = await read(client, len(CONTENT))
            await sending
            so_far = sum(steps)
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert sum(steps) == so_far < len(CONTENT)
            waiting.cancel()
            return received

    assert run(test) == CONTENT


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_client_that_leaves_ends_the_transfer_and_nothing_stays_open(file, how):
    async def test():
        async with connected():
            pass  # opens what the loop itself keeps open from here on
        before = open_descriptors()
        async with connected() as (server, client):
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), unheard))
            await read(client, 10_000)
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(OSError, match=r"reset|[Bb]roken|^$"):
                await asyncio.wait_for(sending, 10)
            await server.lost.wait()
        return open_descriptors() - before

    assert run(test) <= 0


def test_a_transfer_that_is_cancelled_leaves_the_connection_to_others(file):
    async def test():
        async with connected() as (server, client):
            steps = []
            sending = asyncio.create_task(
                server.sender.send(file, 0, len(CONTENT), RangeCallbacks(on_sent=steps.append))
            )
            received = await read(client, 10_000)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            sent = sum(steps)
            _, rest = await asyncio.gather(
                server.sender.send(file, 0, 5_000_000, unheard),
                read(client, sent + 5_000_000 - len(received)),
            )
            return sent, received + rest

    sent, received = run(test)
    assert received == CONTENT[:sent] + CONTENT[:5_000_000]


def test_a_file_that_ends_before_the_range_does_is_no_whole_answer(file):
    async def test():
        async with connected() as (server, client):
            os.truncate(f"/proc/self/fd/{file}", 1 << 20)
            sent = []
            sending = asyncio.create_task(
                server.sender.send(file, 0, 2 << 20, RangeCallbacks(on_sent=sent.append))
            )
            received = await read(client, 1 << 20)
            with pytest.raises(EOFError):
                await sending
            return sum(sent), received

    sent, received = run(test)
    assert sent == 1 << 20
    assert received == CONTENT[: 1 << 20]


def test_after_a_wait_it_is_looked_anew_whether_the_file_is_in_memory(file, monkeypatch):
    looked_at = []

    def look(descriptor, offset, end):
        looked_at.append(offset)
        return is_in_memory(descriptor, offset, end)

    monkeypatch.setattr(file_span, "is_in_memory", look)

    async def test():
        async with connected() as (server, client):
            steps = []
            looks = RangeCallbacks(on_sent=steps.append)
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), looks))
            await asyncio.sleep(0.2)  # until the buffers are full
            waited_at = sum(steps)
            await read(client, len(CONTENT))
            await sending
            return waited_at

    waited_at = run(test)
    assert 0 < waited_at < len(CONTENT)
    assert waited_at in looked_at


def test_nothing_is_sent_on_a_connection_that_is_closing(file):
    async def test():
        async with connected() as (server, _):
            server.transport.close()
            with pytest.raises(ConnectionResetError):
                await server.sender.send(file, 0, 1000, unheard)

    run(test)


def test_a_file_that_is_not_in_memory_is_read_by_a_thread_and_arrives_whole(file):
    async def test():
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        async with connected() as (server, client):
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), unheard))
            received = await read(client, len(CONTENT))
            await sending
            return received

    assert run(test) == CONTENT


def test_a_file_is_looked_at_before_each_step_and_once_more_after_the_last(file):
    seen = []

    async def test():
        async with connected() as (server, client):
            sending = asyncio.create_task(
                server.sender.send(
                    file,
                    0,
                    2 << 20,
                    RangeCallbacks(on_sent=lambda _: seen.append("sent"), verify=lambda: seen.append("look")),
                )
            )
            await read(client, 2 << 20)
            await sending

    run(test)
    assert seen.count("sent") > 2
    assert seen[-2:] == ["sent", "look"]
    assert all(seen[place - 1] == "look" for place, what in enumerate(seen) if what == "sent")


def test_a_check_that_finds_a_change_ends_the_range(file):
    class ChangedError(Exception):
        pass

    async def test():
        async with connected() as (server, client):
            steps = []

            def verify():
                if steps:
                    raise ChangedError

            with pytest.raises(ChangedError):
                await server.sender.send(
                    file, 0, len(CONTENT), RangeCallbacks(on_sent=steps.append, verify=verify)
                )
            return sum(steps), await read(client, sum(steps))

    sent, received = run(test)
    assert 0 < sent < len(CONTENT)
    assert received == CONTENT[:sent]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_that_the_kernel_cannot_send_is_said_to_be_one_before_the_first_byte_only(
    number, file, monkeypatch
):
    calls = []

    def cannot(*_):
        raise OSError(number, os.strerror(number))

    def can_once(*place):
        calls.append(place)
        return sendfile(*place) if len(calls) == 1 else cannot()

    sendfile = os.sendfile

    async def test(expected):
        async with connected() as (server, _):
            with pytest.raises(OSError, match=os.strerror(number) + "|^$") as caught:
                await server.sender.send(file, 0, len(CONTENT), unheard)
            assert isinstance(caught.value, UnsupportedOperation) is expected

    monkeypatch.setattr(os, "sendfile", cannot)
    run(lambda: test(expected=True))
    monkeypatch.setattr(os, "sendfile", can_once)
    run(lambda: test(expected=False))


class Watch:
    """A watch that is uncertain once, after so many steps."""

    def __init__(self, steps, after):
        self.steps = steps
        self.after = after
        self.is_settled = False
        self.asked = asyncio.Event()
        self.settled = asyncio.Event()
        self.error = None

    @property
    def is_certain(self):
        return self.is_settled or len(self.steps) < self.after

    async def verify(self):
        if self.is_certain:
            return
        self.asked.set()
        await self.settled.wait()
        if self.error is not None:
            raise self.error
        self.is_settled = True


def watched(steps, after):
    watch = Watch(steps, after)
    return watch, RangeCallbacks(on_sent=steps.append, watch=watch)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_nothing_is_sent_while_it_is_not_certain_that_it_may_be(after, file):
    async def test():
        async with connected() as (server, client):
            watch, looks = watched(steps := [], after)
            reading = asyncio.create_task(read(client, 4 << 20))
            sending = asyncio.create_task(server.sender.send(file, 0, 4 << 20, looks))
            await watch.asked.wait()
            await asyncio.sleep(0.05)
            assert len(steps) == after
            assert not sending.done()
            watch.settled.set()
            await sending
            return await reading

    assert run(test) == CONTENT[: 4 << 20]


def test_a_transfer_that_may_not_go_on_ends(file):
    class EndedError(Exception):
        pass

    async def test():
        async with connected() as (server, client):
            watch, looks = watched(steps := [], 2)
            watch.error = EndedError()
            watch.settled.set()
            reading = asyncio.create_task(read(client, len(CONTENT)))
            with pytest.raises(EndedError):
                await server.sender.send(file, 0, len(CONTENT), looks)
            server.transport.close()
            return sum(steps), await reading

    sent, received = run(test)
    assert 0 < sent < len(CONTENT)
    assert received == CONTENT[:sent]


def test_a_connection_that_is_lost_while_it_is_not_certain_ends_the_transfer(file):
    async def test():
        async with connected() as (server, client):
            watch, looks = watched([], 1)
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), looks))
            await watch.asked.wait()
            client.close()
            server.transport.abort()
            await server.lost.wait()
            watch.settled.set()
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(sending, 5)

    run(test)


@pytest.mark.parametrize("after", [0, 1])
def test_what_ends_a_transfer_is_raised_once_and_kept_by_nobody(after, file):
    """asyncio's loop has no error to report, and no traceback refers to the transfer."""

    async def test():
        heard, kept = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        async with connected() as (server, client):
            watch, looks = watched([], after)
            sending = asyncio.create_task(server.sender.send(file, 0, len(CONTENT), looks))
            await watch.asked.wait()
            kept.append(weakref.ref(server.sender._file_span))
            client.close()
            server.transport.abort()
            await server.lost.wait()
            watch.settled.set()
            await asyncio.wait([sending])
            assert isinstance(sending.exception(), ConnectionResetError)
            del sending
        return heard, kept[0]

    gc.disable()
    try:
        heard, file_span = run(test)
        assert heard == []
        assert file_span() is None
    finally:
        gc.enable()
