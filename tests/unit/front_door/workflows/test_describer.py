"""Asking a server what a workflow will do: how often, with what, and what is made of its answers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the answers beside us

from descriptions import answer, step

from gateway.adapters.inference_server import InferenceClient
from gateway.front_door.servers import Servers
from gateway.front_door.workflows.describer import KNOWN_SECONDS, MAX_UNDER_WAY, Describer
from gateway.front_door.workflows.specification import read_specification
from gateway.model.access import Principal
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind
from gateway.model.inference import InferenceServer
from gateway.model.names import KeyId, TenantId
from gateway.telemetry import Telemetry

pytestmark = pytest.mark.anyio

ACME, OTHER = (
    Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId(f"key_{name}"),
        key_name="",
        tenant=TenantId(name),
        scopes=frozenset(),
        expires_at=None,
    )
    for name in ("acme", "other")
)


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds


class Upstream:
    """A server that answers as told, and keeps what it was asked."""

    def __init__(self):
        self.info = {"name": "Roboflow Inference Server", "version": "1.8.3", "uuid": "one"}
        self.status, self.described = 200, answer(step())
        self.asked = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_asked = asyncio.Event()

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                path = head.split(" ")[1]
                self.asked.append((path, head, body))
                self.is_asked.set()
                await self.may_answer.wait()
                status, content = 200, json.dumps(self.info).encode()
                if path != "/info":
                    status, content = self.status, self.described
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def asked_for(self, path):
        return [one for one in self.asked if one[0] == path]


def text(name="one", **more):
    return read_specification({"steps": [{"type": "some/block@v1", "name": "one"}], "id": name} | more)


@pytest.fixture
async def upstream():
    async with Upstream().running() as running:
        yield running


@pytest.fixture
async def asking(upstream):
    client, clock = InferenceClient(), Clock()
    describer = Describer(client, clock, Telemetry(), "1.8.3")
    [server] = Servers([InferenceServer(url=upstream.url)], clock).all

    async def ask(specification, principal=ACME):
        return await describer.describe(server, specification, principal)

    ask.clock, ask.describer, ask.server = clock, describer, server
    yield ask
    await client.close()


async def reason(asking, *arguments):
    with pytest.raises(Refusal) as caught:
        await asking(*arguments)
    return caught.value.reason


DESCRIBE = "/workflows/describe_workload"


async def test_one_text_is_asked_about_once_with_the_key_that_asks_nobody(asking, upstream):
    first = await asking(text())
    assert await asking(text(), OTHER) is first
    [(_, head, body)] = upstream.asked_for(DESCRIBE)
    assert json.loads(body) == {"api_key": "local", "specification": json.loads(text().text)}
    assert "authorization" not in head
    await asking(text("other"))
    assert len(upstream.asked_for(DESCRIBE)) == 2


async def test_many_that_wait_for_one_text_share_one_question(asking, upstream):
    await asking(text("warm"))
    upstream.may_answer.clear()
    waiting = [asyncio.create_task(asking(text())) for _ in range(20)]
    upstream.is_asked.clear()
    await upstream.is_asked.wait()
    upstream.may_answer.set()
    assert len(set(map(id, await asyncio.gather(*waiting)))) == 1
    assert len(upstream.asked_for(DESCRIBE)) == 2


async def test_one_key_has_few_questions_under_way_and_hinders_no_other(asking, upstream):
    await asking(text("warm"))
    upstream.may_answer.clear()
    waiting = [asyncio.create_task(asking(text(f"t{number}"))) for number in range(MAX_UNDER_WAY)]
    while len(upstream.asked_for(DESCRIBE)) <= MAX_UNDER_WAY:
        upstream.is_asked.clear()
        await upstream.is_asked.wait()
    assert await reason(asking, text("beyond")) is Reason.BUSY
    other = asyncio.create_task(asking(text("of another"), OTHER))
    upstream.is_asked.clear()
    await upstream.is_asked.wait()
    upstream.may_answer.set()
    await asyncio.gather(other, *waiting)
    assert await asking(text("beyond"))


async def test_another_process_is_asked_anew(asking, upstream):
    await asking(text())
    asking.clock.seconds += KNOWN_SECONDS
    await asking(text())
    assert len(upstream.asked_for(DESCRIBE)) == 1
    upstream.info["uuid"] = "two"
    asking.clock.seconds += KNOWN_SECONDS
    await asking(text())
    assert len(upstream.asked_for(DESCRIBE)) == 2


async def test_after_a_failure_the_process_is_asked_for_anew(asking, upstream):
    await asking(text())
    asking.describer.forget(asking.server)
    await asking(text())
    assert len(upstream.asked_for("/info")) == 2


@pytest.mark.parametrize(
    "info", [{"version": "1.8.4", "uuid": "x"}, {"version": "1.8.3"}, {}, {"version": 183, "uuid": "x"}, []]
)
async def test_a_version_that_is_not_known_runs_none(asking, upstream, info):
    upstream.info = info
    assert await reason(asking, text()) is Reason.NO_WORKFLOWS
    assert not upstream.asked_for(DESCRIBE)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_that_does_not_say_runs_none(asking, upstream, status):
    upstream.status = status
    assert await reason(asking, text()) is Reason.NO_WORKFLOWS


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_a_failure_of_the_server_is_not_remembered(asking, upstream, status):
    upstream.status = status
    assert await reason(asking, text()) is Reason.INFERENCE_UNAVAILABLE
    upstream.status = 200
    assert await asking(text())


@pytest.mark.parametrize(
    ("status", "described", "expected"),
    [
        (400, b'{"message": "no such block"}', Reason.MALFORMED_WORKFLOW),
        (400, b"\xff", Reason.MALFORMED_WORKFLOW),
        (422, b"[]", Reason.MALFORMED_WORKFLOW),
        (200, b"{}", Reason.UNKNOWN_WORKLOAD),
        (200, answer(), Reason.UNKNOWN_WORKLOAD),
    ],
)
async def test_a_text_that_cannot_run_is_remembered_as_such(asking, upstream, status, described, expected):
    upstream.status, upstream.described = status, described
    assert await reason(asking, text()) is expected
    assert await reason(asking, text()) is expected
    assert len(upstream.asked_for(DESCRIBE)) == 1


async def test_what_is_remembered_is_charged(asking):
    before = asking.describer.memory.held_bytes
    await asking(text())
    assert asking.describer.memory.held_bytes > before


async def test_a_server_that_is_gone_is_unavailable(asking, upstream):
    gone = InferenceServer(url="http://127.0.0.1:1")
    [server] = Servers([gone], asking.clock).all
    with pytest.raises(Refusal) as caught:
        await asking.describer.describe(server, text(), ACME)
    assert caught.value.reason is Reason.INFERENCE_UNAVAILABLE
