"""More connections than there are descriptors, against a real instance with a low limit of open files."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack

from gateway.server.acceptor import FILES_OF_A_CONNECTION, FILES_OF_ITS_OWN

ROOM = 12
FILES = FILES_OF_ITS_OWN + ROOM * FILES_OF_A_CONNECTION
MANY = 5 * ROOM
REQUEST = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
REFUSED = "cachegate_connections_refused_total"


def answered(connections, count):
    """The connections that were answered, once there are so many."""
    deadline, found = time.monotonic() + 30, []
    while len(found) < count:
        found = select.select(connections, [], [], 0.1)[0]
        assert time.monotonic() < deadline, len(found)
    return found


def test_so_many_are_served_as_there_are_files_for_and_the_rest_in_their_turn(serving):
    with serving(files=FILES, trusted_proxies=["127.0.0.0/8"]) as running, ExitStack() as stack:
        [worker] = running.status()["pids"]
        connections = [stack.enter_context(running.connect()) for _ in range(MANY)]
        for one in connections:
            one.sendall(REQUEST)
        while connections:
            served = answered(connections, min(ROOM, len(connections)))
            assert len(served) <= ROOM
            for one in served:
                assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
                one.close()
                connections.remove(one)
        status = running.status()
        assert status["pids"] == [worker]
        assert status["counters"][REFUSED] == 0
        assert status["counters"]["requests"] == MANY


def asked(running):
    """What a client received; empty where it was reset, even while it connected."""
    try:
        return running.send(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    except ConnectionError:
        return b""


def test_one_address_leaves_room_for_others(serving):
    with serving(files=FILES) as running, ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(ROOM // 2)]
        for one in connections:
            one.sendall(REQUEST)
            assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        for _ in range(10):
            assert asked(running) == b""
        assert running.await_status(lambda status: status["counters"][REFUSED] == 10)
        connections.pop().close()
        deadline = time.monotonic() + 30
        while not asked(running):
            assert time.monotonic() < deadline
