"""The middleware that others mount: what it lets through, and what it refuses before anything is decided."""

from __future__ import annotations

import pytest

from gateway.middleware import GuardMiddleware, admitted, caller_route, model_route, unguarded_route
from gateway.model.errors import Misconfigured, Reason
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.problems import UNRECORDED

pytestmark = pytest.mark.anyio


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_before_the_guard_runs_and_after_it_only_unguarded_routes_are_answered(world, capsys):
    for path, status in ((b"/m/acme/cars/1", 503), (b"/nowhere", 503), (b"/me", 503), (b"/open", 200)):
        asked = world(hello)
        asked.process.now_running = None
        await asked.ask(path)
        assert asked.status == status
        if status == 503:
            assert (b"cachegate-record", UNRECORDED.encode()) in asked.headers
            assert (asked.gate.requests, b"hello" in asked.body) == ([], False)
    assert "running()" in "".join(capsys.readouterr())  # wherever logs go: another test may have set them up


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (b"/nowhere", {}),
        (b"/m/a%2Fb", {"path": "/m/a/b"}),
        (b"/m/acme/cars/1", {"path": "/open"}),  # the server, or something outside, says two things
        (b"/open", {"path": "/m/acme/cars/1"}),
        (b"/open", {"method": "POST"}),
        (b"", {}),
    ],
)
async def test_what_is_not_declared_or_could_be_read_in_two_ways_is_not_there(world, path, more):
    asked = await world(hello).ask(path, **more)
    assert (asked.status, asked.gate.requests) == (404, [])
    assert [one.reason for one in asked.gate.rejections] == [Reason.NO_ROUTE]


async def test_a_path_that_is_too_long_is_matched_with_nothing(world):
    asked = await world(hello).ask(b"/m/" + b"x" * MAX_TARGET_BYTES)
    assert asked.status == 414


async def test_one_path_may_mean_two_things_by_two_methods(world):
    asked = world(hello)
    asked.middleware = GuardMiddleware(
        hello,
        process=asked.process,
        routes=[
            unguarded_route("/x"),
            model_route("/x", methods=["POST"], model=lambda _head: "acme/cars/1"),
        ],
    )
    assert ((await asked.ask(b"/x")).status, asked.gate.requests) == (200, [])
    asked.sent.clear()
    assert ((await asked.ask(b"/x", method="POST")).status, len(asked.gate.requests)) == (200, 1)
    asked.sent.clear()
    assert (await asked.ask(b"/x", method="PUT")).status == 405


async def test_an_unguarded_route_has_no_decision(world):
    seen = []

    async def app(scope, receive, send):
        class Connection:
            pass

        connection = Connection()
        connection.scope = scope
        with pytest.raises(Misconfigured):
            admitted(connection)
        seen.append(True)
        await hello(scope, receive, send)

    asked = await world(app).ask(b"/open")
    assert (asked.status, seen, asked.gate.requests) == (200, [True], [])


async def test_a_guarded_declaration_comes_before_an_unguarded_one_of_the_same_path(gate, process, world):
    asked = world(hello)
    asked.middleware = GuardMiddleware(
        hello, process=asked.process, routes=[unguarded_route("/{any}"), caller_route("/me")]
    )
    asked.gate.refusals.append(Reason.NO_CREDENTIAL)
    await asked.ask(b"/me")
    assert asked.status == 401


@pytest.mark.parametrize(
    ("path", "websockets", "is_passed"),
    [
        (b"/open", "refuse", False),
        (b"/open", "pass", True),
        (b"/me", "pass", False),
        (b"/nowhere", "pass", False),
        (b"/%6Fpen", "pass", False),
    ],
)
async def test_a_websocket_is_passed_where_setting_and_declaration_say_so(world, path, websockets, is_passed):
    passed = []

    async def app(scope, receive, send):
        passed.append(scope["type"])

    asked = world(app, websockets=websockets)
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": path.decode(), "raw_path": path, "headers": [], "client": None}
    await asked.middleware(scope, None, send)
    assert passed == (["websocket"] if is_passed else [])
    assert sent == ([] if is_passed else [{"type": "websocket.close", "code": 1008}])
    assert [one.reason for one in asked.gate.rejections] == ([] if is_passed else [Reason.NO_ROUTE])


@pytest.mark.parametrize(
    "more",
    [
        {"routes": []},
        {"routes": [unguarded_route("/a")]},
        {"routes": [caller_route("/a"), unguarded_route("/a", methods=["POST", "GET"])]},
        {"websockets": "yes"},
    ],
)
def test_a_guard_that_would_protect_nothing_stops_the_start(process, gate, more):
    with pytest.raises(Misconfigured):
        GuardMiddleware(hello, **{"process": process(gate()), "routes": [caller_route("/me")], **more})


async def test_parameters_of_an_outer_mount_are_kept_apart(world):
    async def app(scope, receive, send):
        scope["path_params"] = {**scope["path_params"], "model": "acme/cars/1"}
        await hello(scope, receive, send)

    assert (await world(app).ask(path_params={"outer": "x"})).status == 200
