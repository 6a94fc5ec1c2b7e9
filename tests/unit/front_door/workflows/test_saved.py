"""Saved workflows, from a platform over a socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.adapters.provider import Provider
from gateway.front_door.workflows.saved import (
    REMEMBERED_SECONDS,
    Reference,
    Saved,
    names_saved,
    read_reference,
)
from gateway.front_door.workflows.specification import (
    INNER_WORKFLOW,
    MAX_INNER_DEPTH,
    MAX_INNER_WORKFLOWS,
    MAX_TEXT_BYTES,
)
from gateway.model.errors import Reason, Refusal, Unavailable

pytestmark = pytest.mark.anyio

NAMED = Reference(workspace="acme", workflow="w")


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Clock:
    seconds = 1000.0

    def monotonic(self):
        return self.seconds


def workflow(*steps, **more):
    return {"inputs": [], "steps": list(steps), "outputs": []} | more


def inner(name="inner", **more):
    return {"type": INNER_WORKFLOW, "name": name, "parameter_bindings": {}} | more


def naming(workflow_id, workspace="acme", **more):
    return inner(workflow_workspace_id=workspace, workflow_id=workflow_id, **more)


class Platform:
    def __init__(self):
        self.answers, self.asked = {}, []

    def save(self, name, specification, **more):
        config = json.dumps({"specification": specification})
        self.answers[f"/acme/workflows/{name}"] = 200, {"workflow": {"config": config, "id": name} | more}

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
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                url = urlsplit(head.split(" ")[1])
                self.asked.append((url.path, parse_qs(url.query)))
                status, document = self.answers.get(url.path, (404, {}))
                content = json.dumps(document).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def platform():
    async with Platform().running() as running:
        yield running


@pytest.fixture
async def saved(platform):
    clock = Clock()
    provider = Provider(platform.url, private_upstreams=True, clock=clock)
    made = Saved(provider, clock)
    made.clock = clock
    yield made
    await provider.close()


async def reason(work):
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value.reason


async def test_it_is_asked_for_as_the_server_asks(saved, platform):
    platform.save("w", workflow())
    assert await saved.fetch(NAMED, "key", may_remember=True) == workflow() | {"id": "w"}
    versioned = Reference(workspace="acme", workflow="w", version="v1")
    await saved.fetch(versioned, "key", may_remember=True)
    assert platform.asked == [
        ("/acme/workflows/w", {"api_key": ["key"]}),
        ("/acme/workflows/w", {"api_key": ["key"], "workflow_version": ["v1"]}),
    ]


async def test_what_one_key_was_given_is_remembered_for_that_key_alone_and_not_long(saved, platform):
    platform.save("w", workflow())
    for key in ("one", "one", "two"):
        await saved.fetch(NAMED, key, may_remember=True)
    assert [query["api_key"] for _, query in platform.asked] == [["one"], ["two"]]
    await saved.fetch(NAMED, "one", may_remember=False)
    saved.clock.seconds += REMEMBERED_SECONDS
    await saved.fetch(NAMED, "two", may_remember=True)
    assert len(platform.asked) == 4


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 423])
async def test_what_the_platform_refuses_is_refused(saved, platform, status):
    platform.answers["/acme/workflows/w"] = status, {}
    assert await reason(saved.fetch(NAMED, "key", may_remember=True)) is Reason.SAVED_WORKFLOW


@pytest.mark.parametrize(
    "answer", [(200, {}), (200, []), (200, {"workflow": {"config": {}}}), (500, {}), (204, {})]
)
async def test_an_answer_that_makes_no_sense_decides_nothing(saved, platform, answer):
    platform.answers["/acme/workflows/w"] = answer
    with pytest.raises(Unavailable):
        await saved.fetch(NAMED, "key", may_remember=True)


@pytest.mark.parametrize(
    "config",
    [
        *("", "[]", "{}", "x", '{"specification": []}', '{"specification": {}, "specification": {"a": 1}}'),
        *('{"specification": {"a": NaN}}', '{"specification": "\\ud800"}', " " * (3 * MAX_TEXT_BYTES)),
    ],
)
async def test_a_specification_is_read_strictly(saved, platform, config):
    platform.answers["/acme/workflows/w"] = 200, {"workflow": {"config": config}}
    assert await reason(saved.fetch(NAMED, "key", may_remember=True)) is Reason.MALFORMED_WORKFLOW


async def test_all_that_is_named_is_put_in(saved, platform):
    platform.save("leaf", workflow({"type": "x", "name": "leaf"}))
    platform.save("middle", workflow(naming("leaf")))
    document = workflow(naming("middle"), inner(workflow_definition=workflow(naming("leaf"))))
    assert names_saved(document)
    resolved = await saved.resolve(document, "key", may_remember=True)
    assert not names_saved(resolved)
    assert "workflow_workspace_id" not in json.dumps(resolved)
    assert json.dumps(resolved).count('"leaf", "id"') + json.dumps(resolved).count('"name": "leaf"') == 2
    assert names_saved(document)  # it stayed as it was


async def test_what_names_itself_ends(saved, platform):
    platform.save("w", workflow(naming("w")))
    assert await reason(saved.resolve(workflow(naming("w")), "key", may_remember=True)) is (
        Reason.MALFORMED_WORKFLOW
    )
    assert len(platform.asked) == 1


async def test_it_is_bounded_in_number_and_size(saved, platform):
    platform.save("w", workflow())
    many = workflow(*[naming("w", name=f"s{number}") for number in range(MAX_INNER_WORKFLOWS + 1)])
    assert await reason(saved.resolve(many, "key", may_remember=True)) is Reason.MALFORMED_WORKFLOW
    platform.save("big", workflow(note="x" * (MAX_TEXT_BYTES // 2)))
    twice = workflow(naming("big"), naming("big"))
    assert await reason(saved.resolve(twice, "key", may_remember=True)) is Reason.MALFORMED_WORKFLOW
    deep = workflow()
    for _ in range(MAX_INNER_DEPTH + 1):
        deep = workflow(inner(workflow_definition=deep))
    assert await reason(saved.resolve(deep, "key", may_remember=True)) is Reason.MALFORMED_WORKFLOW


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (naming("w", execution_mode="remote_dispatch"), Reason.UNKNOWN_WORKLOAD),
        (naming("w", workflow_definition=workflow()), Reason.MALFORMED_WORKFLOW),
        (naming("w", "local"), Reason.SAVED_WORKFLOW),
        (naming("w", None), Reason.SAVED_WORKFLOW),
        (naming(None), Reason.SAVED_WORKFLOW),
        (inner(workflow_version_id="1"), Reason.SAVED_WORKFLOW),
        (inner(), Reason.MALFORMED_WORKFLOW),
    ],
)
async def test_a_step_that_names_none_or_two_is_refused(saved, step, expected):
    assert await reason(saved.resolve(workflow(step), "key", may_remember=True)) is expected


@pytest.mark.parametrize(
    "workspace", ["local", "LOCAL", "Local", "", " ", "a/b", "..", "a.b", "\u00e9", 7, None, ["a"]]
)
def test_a_workspace_is_a_name_and_not_files_of_the_server(workspace):
    with pytest.raises(Refusal) as caught:
        read_reference(workspace, "w", None)
    assert caught.value.reason is Reason.SAVED_WORKFLOW
