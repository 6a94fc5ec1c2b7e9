"""The guard in front of the real server: a file that the kernel sends ends with its key, step by step.

The watch that looks at all transfers several times a second does not run here: the steps themselves have to
notice.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.middleware.guard import ChokePoint
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.extensions import ZERO_COPY
from gateway.model.routes import GuardedRoute
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Ending, Receipt
from gateway.server.protocol import worker_protocol
from gateway.telemetry import Telemetry
from gateway.transfers import Transfers
from tests import samples

SIZE = 48 << 20  # more than the buffers between two sockets, and one message
SELF = Resource(kind=ResourceKind.SELF)
PRINCIPAL = samples.principal()
ROUTE = GuardedRoute(
    template="/f",
    methods=("GET",),
    action=Action.READ,
    matches=lambda raw: raw == b"/f",
    locate=lambda request: SELF,
)


@dataclass
class Gate:
    """Guard, identity, directory and clock in one, with one key."""

    key: Leaf = field(default_factory=lambda: Leaf(b"key", b"1"))
    reason: Reason | None = None  # for which the key has ended
    is_in_its_time: bool = True
    is_leased_now: bool = True
    outcomes: asyncio.Queue = field(default_factory=asyncio.Queue)

    async def admit(self, request, route):
        admission = samples.admission(PRINCIPAL, request=request, stamp=Stamp(1, (self.key,)))
        return Receipt(record_id="r", admission=admission, on_close=self.outcomes.put_nowait)

    async def reauthenticate(self, stamp, client, now):
        if self.reason is not None:
            raise Refusal(self.reason)
        return PRINCIPAL, Stamp(1, (self.key,))

    def confirm(self, receipt, now):
        pass

    def is_degraded(self):
        return False

    def is_in_time(self, principal, now):
        return self.is_in_its_time

    def is_fresh(self, degraded_seconds):
        return self.is_leased_now

    def verify_fresh(self, degraded_seconds):
        pass

    def now(self):
        return 1.0

    # what happens to the key

    def rewrite(self):
        self.key.is_current = False
        self.key = Leaf(b"key", b"2")

    def revoke(self):
        self.key.is_current = False
        self.reason = Reason.REVOKED_KEY

    def expire(self):
        self.is_in_its_time = False
        self.reason = Reason.EXPIRED_KEY


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, SIZE)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def transfer(file, change):
    """How much of the file a client gets, at whose first bytes the key changes, and the outcome."""

    async def app(scope, receive, send):
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": ZERO_COPY, "file": file, "offset": 0, "count": SIZE, "more_body": False})

    async def main():
        loop, gate = asyncio.get_running_loop(), Gate()
        transfers = Transfers(identity=gate, directory=gate, clock=gate)
        layer = ChokePoint(
            app, guard=gate, routes=[ROUTE], clock=gate, telemetry=Telemetry(), transfers=transfers
        )
        config = uvicorn.Config(layer, lifespan="off", log_config=None)
        config.load()
        server = await loop.create_server(
            lambda: worker_protocol()(config, ServerState(), {}), "127.0.0.1", 0
        )
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            await loop.sock_sendall(client, b"GET /f HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await loop.sock_recv(client, 1 << 10)
            assert head.startswith(b"HTTP/1.1 200 ")
            change(gate)
            received = len(head.partition(b"\r\n\r\n")[2])
            try:
                while received < SIZE and (piece := await loop.sock_recv(client, 1 << 20)):
                    received += len(piece)
            except ConnectionResetError:
                pass
            outcome = await gate.outcomes.get()
        server.close()
        return received, outcome

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    ("change", "ending"),
    [(Gate.revoke, Ending.REVOKED), (Gate.expire, Ending.EXPIRED)],
    ids=["revoked", "expired"],
)
def test_the_steps_of_one_message_stop_when_the_key_ends(change, ending, file):
    received, outcome = transfer(file, change)
    assert outcome.ending is ending
    assert received <= outcome.bytes_sent < SIZE


def test_a_key_that_stays_valid_gets_all_of_it_though_its_record_changed(file):
    received, outcome = transfer(file, Gate.rewrite)
    assert (received, outcome.bytes_sent, outcome.ending) == (SIZE, SIZE, Ending.COMPLETE)
