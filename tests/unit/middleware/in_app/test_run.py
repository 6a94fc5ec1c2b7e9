"""The app runs once for each request, and can send nothing that the guard does not let out."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest
from anyio import to_thread

from gateway.middleware.in_app.run import RUN
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Ending

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}


def answering(*messages):
    runs = []

    async def app(scope, receive, send):
        runs.append(scope)
        for message in messages or (START, {"type": "http.response.body", "body": b"hello"}):
            await send(message)

    app.runs = runs
    return app


async def test_an_answer_names_the_record_that_it_is_sent_under_and_no_other(world):
    forged = {**START, "headers": [(b"Cachegate-Record", b"forged"), (b"x", b"y")]}
    asked = await world(answering(forged, {"type": "http.response.body", "body": b"hello"})).ask()
    names = [value for name, value in asked.headers if name.lower() == b"cachegate-record"]
    assert names == [b"record-1"]
    assert (asked.status, asked.body) == (200, b"hello")
    assert [one.ending for one in asked.gate.outcomes] == [Ending.COMPLETE]


async def test_a_fact_that_moved_is_decided_anew_and_the_app_runs_once(world, gate, withdrawn):
    app = answering()
    asked = await world(app, gate(confirmations=[withdrawn(), withdrawn()])).ask()
    assert (len(app.runs), len(asked.gate.requests), asked.status) == (1, 3, 200)
    assert (b"cachegate-record", b"record-3") in asked.headers
    assert [one.ending for one in asked.gate.outcomes] == [
        Ending.WITHDRAWN,
        Ending.WITHDRAWN,
        Ending.COMPLETE,
    ]


async def test_an_app_whose_caller_is_refused_meanwhile_is_ended_and_none_of_its_answer_is_sent(
    world, gate, withdrawn
):
    ended = []

    async def app(scope, receive, send):
        try:
            await send(START)
            await send({"type": "http.response.body", "body": b"secret"})
        finally:
            ended.append(True)

    asked = await world(app, gate(refusals=[None, Reason.REVOKED_KEY], confirmations=[withdrawn()])).ask()
    assert (asked.status, ended) == (401, [True])
    assert b"secret" not in asked.body


async def test_facts_that_keep_moving_are_given_up(world, gate, withdrawn):
    asked = await world(answering(), gate(confirmations=[withdrawn() for _ in range(9)])).ask()
    assert asked.status == 503
    assert b"hello" not in asked.body


@pytest.mark.parametrize("fault", [Unavailable("redis", "gone", Reason.NO_LEASE), None])
async def test_an_app_that_swallows_what_the_guard_raises_sends_nothing_more(world, gate, fault):
    """With a fault the last check fails; without one, the body is over the limit."""

    async def stubborn(scope, receive, send):
        for _ in range(3):
            with suppress(Exception):
                await receive()
            with suppress(Exception):
                await send(START)
            with suppress(Exception):
                await send({"type": "http.response.body", "body": b"secret"})

    asked = await world(stubborn, gate(confirmations=[fault] if fault else [])).ask(
        method="POST", body=[b"x" * (10 if fault else 11)]
    )
    assert asked.status == (503 if fault else 413)
    assert b"secret" not in asked.body


async def test_a_body_within_the_limit_reaches_the_app_as_it_comes(world):
    seen = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            seen.append(message["body"])
            if not message["more_body"]:
                break
        await answering()(scope, receive, send)

    asked = await world(app).ask(method="POST", body=[b"12345", b"67890"])
    assert (asked.status, seen) == (200, [b"12345", b"67890"])


async def test_a_body_that_names_the_model_is_handed_to_the_app_once(world):
    seen = []

    async def app(scope, receive, send):
        seen.append(await receive())
        await answering()(scope, receive, send)

    asked = await world(app).ask(b"/body", method="POST", body=[b"acme/", b"cars/1"])
    assert (asked.status, asked.gate.requests[0].body) == (200, b"acme/cars/1")
    assert seen == [{"type": "http.request", "body": b"acme/cars/1", "more_body": False}]


async def test_a_server_that_could_send_by_itself_is_not_offered_to_the_app(world):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"])
        await send(START)
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})

    offered = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "tls": {}}
    asked = await world(app).ask(extensions=offered)
    assert seen == [{"tls": {}}]
    assert "http.response.pathsend" not in {one["type"] for one in asked.sent}
    assert asked.gate.outcomes[0].ending is Ending.FAILED


async def test_head_has_no_body_whatever_the_app_sends(world):
    asked = await world(answering()).ask(method="HEAD")
    assert (asked.status, asked.body, asked.gate.outcomes[0].bytes_sent) == (200, b"", 0)


async def test_what_follows_the_last_byte_is_no_part_of_the_request_and_is_waited_for(world):
    happened = []
    goes_on = asyncio.Event()

    async def app(scope, receive, send):
        await answering()(scope, receive, send)
        await goes_on.wait()
        happened.append("background ended")

    asked = world(app)
    request = asyncio.ensure_future(asked.ask())
    while not asked.gate.outcomes:  # noqa: ASYNC110 -- a list that the guard appends to
        await asyncio.sleep(0)
    assert (happened, request.done(), len(asked.process.now_running.transfers)) == ([], False, 0)
    goes_on.set()
    await request
    assert happened == ["background ended"]


async def test_a_background_task_that_fails_is_the_servers_to_report(world):
    async def app(scope, receive, send):
        await answering()(scope, receive, send)
        raise ZeroDivisionError

    asked = world(app)
    with pytest.raises(ZeroDivisionError):
        await asked.ask()
    assert [one.ending for one in asked.gate.outcomes] == [Ending.COMPLETE]


async def test_a_request_that_the_server_gives_up_ends_the_app_too(world):
    ended = []
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    asked = world(app)
    request = asyncio.ensure_future(asked.ask())
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert ended == [True]
    assert [one.ending for one in asked.gate.outcomes] == [Ending.FAILED]


async def test_a_defect_of_the_app_is_a_bland_500_and_in_the_log(world, capsys):
    async def app(scope, receive, send):
        raise KeyError("a-secret-detail")

    asked = await world(app).ask()
    assert asked.status == 500
    assert b"secret" not in asked.body
    assert asked.process.telemetry.counters["cachegate_defects_total"] == 1


async def test_a_stream_is_cut_when_its_key_ends(world):
    ended = []

    async def app(scope, receive, send):
        try:
            await send(START)
            while True:
                await send({"type": "http.response.body", "body": b"piece", "more_body": True})
                asked.gate.has_ended = True
                asked.gate.key.is_current = False
        finally:
            ended.append(True)

    asked = world(app)
    await asked.ask()
    assert (asked.body, ended) == (b"piece", [True])
    assert [one.ending for one in asked.gate.outcomes] == [Ending.REVOKED]


@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_key_that_ends_while_the_handler_runs_is_refused_without_waiting_for_it(
    world, gate, in_thread
):
    begun, goes_on = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        begun.set()
        if in_thread:
            await to_thread.run_sync(goes_on.wait)  # cannot be cancelled, like a model that runs
        else:
            await asyncio.Event().wait()
        await answering()(scope, receive, send)

    asked = world(app, gate(refusals=[None, Reason.REVOKED_KEY]))
    watch = asyncio.ensure_future(asked.process.now_running.transfers.watch())
    request = asyncio.ensure_future(asked.ask())
    while not begun.is_set():  # noqa: ASYNC110 -- set from a thread
        await asyncio.sleep(0)
    asked.gate.has_ended = True
    asked.gate.key.is_current = False
    while not asked.sent:  # noqa: ASYNC110 -- a list that the server appends to
        await asyncio.sleep(0.01)
    goes_on.set()
    await request
    watch.cancel()
    assert (asked.status, b"hello" in asked.body) == (401, False)
    assert [one.ending for one in asked.gate.outcomes] == [Ending.REVOKED]


async def test_a_run_that_was_ended_does_not_go_on_when_a_new_decision_allows_it(world, gate):
    begun = asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await asyncio.Event().wait()

    asked = world(app)
    watch = asyncio.ensure_future(asked.process.now_running.transfers.watch())
    request = asyncio.ensure_future(asked.ask())
    await begun.wait()
    asked.gate.has_ended = True
    asked.gate.key.is_current = False
    await request
    watch.cancel()
    assert asked.status == 503


async def test_a_route_that_the_router_took_and_nobody_declared_is_not_there(world):
    async def app(scope, receive, send):
        scope["path_params"] = {"a": "acme", "b": "cars/1"}  # of another route than the declared one
        await answering()(scope, receive, send)

    asked = await world(app).ask()
    assert asked.status == 404
    assert b"hello" not in asked.body


async def test_a_copied_scope_has_the_same_run(world):
    seen = []

    async def app(scope, receive, send):
        copy = dict(scope)
        seen.append(copy[RUN].receipt.record_id)
        await answering()(copy, receive, send)

    asked = await world(app).ask()
    assert (asked.status, seen) == (200, ["record-1"])
