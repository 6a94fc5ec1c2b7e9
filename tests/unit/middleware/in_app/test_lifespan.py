"""The guard starts before the app and ends after it, and a failed start is told to the server."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from gateway.middleware.in_app.lifespan import live_with
from gateway.model.errors import Misconfigured, Unavailable

pytestmark = pytest.mark.anyio


async def live(process, app):
    """A server's side of one life; the types of what it was told, in order with what happened."""
    asked = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    told = []

    async def receive():
        return asked.pop(0)

    async def send(message):
        process.happened.append(message["type"])
        told.append(message)

    await live_with(process, app, {"type": "lifespan", "state": {}}, receive, send)
    assert not asked or told[-1]["type"] == "lifespan.startup.failed"
    return told


def lively(happened, fault=None):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        if fault is not None:
            await send({"type": "lifespan.startup.failed", "message": "the app's own"})
            raise fault
        happened.append("app starts")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        happened.append("app ends")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_the_guard_is_there_as_long_as_the_app(process, gate):
    guarded = process(gate())
    await live(guarded, lively(guarded.happened))
    assert guarded.happened == [
        "guard starts",
        "app starts",
        "lifespan.startup.complete",
        "app ends",
        "guard ends",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize("fault", [Misconfigured("state", "is missing"), Unavailable("redis", "is gone")])
async def test_what_keeps_the_guard_from_starting_is_told_and_the_app_does_not_start(process, gate, fault):
    guarded = process(gate(), fault=fault)
    told = await live(guarded, lively(guarded.happened))
    assert guarded.happened == ["lifespan.startup.failed"]
    assert str(fault) in told[0]["message"]


async def test_a_defect_at_the_start_is_told_and_raised(process, gate):
    guarded = process(gate(), fault=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await live(guarded, lively(guarded.happened))
    assert guarded.happened == ["lifespan.startup.failed"]


async def test_a_start_that_fails_in_the_app_is_the_apps_to_tell_and_ends_the_guard(process, gate):
    guarded = process(gate())
    with pytest.raises(KeyError):
        await live(guarded, lively(guarded.happened, KeyError("x")))
    assert guarded.happened == ["guard starts", "lifespan.startup.failed", "guard ends"]


@pytest.mark.parametrize("reads", [True, False])
async def test_an_app_that_knows_no_lifespan_has_a_guard_all_the_same(process, gate, reads):
    async def app(scope, receive, send):
        if reads:
            await receive()
        raise ValueError("this app only knows http")

    guarded = process(gate())
    await live(guarded, app)
    assert guarded.happened == [
        "guard starts",
        "lifespan.startup.complete",
        "guard ends",
        "lifespan.shutdown.complete",
    ]


async def test_a_starlette_app_lives_as_it_does_alone(process, gate):
    guarded = process(gate())
    told = await live(guarded, Starlette())
    assert [one["type"] for one in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
