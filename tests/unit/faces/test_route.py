"""A route without a declaration stops the start; one with it serves exactly what was declared (I4)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from starlette.routing import Match, Mount, NoMatchFound, Route

from gateway.faces.route import FaceRoute, declarations
from gateway.middleware.guard import METER, RECEIPT, ROUTE
from gateway.middleware.meter import Meter
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.answers import Answer
from gateway.model.errors import Misconfigured
from gateway.model.header_block import Headers
from gateway.model.routes import GuardedRoute

ANSWER = Answer(200, Headers.of((b"content-length", b"2")), b"ok")


def declaration(template="/a", answer=lambda receipt: ANSWER):
    return GuardedRoute(
        template=template,
        methods=("GET",),
        action=Action.READ,
        matches=lambda raw: True,
        locate=lambda request: Resource(kind=ResourceKind.SELF),
        answer=answer,
    )


async def endpoint(scope, receive, send):
    scope["served"].append(scope)


@pytest.mark.parametrize(
    "stranger", [Route("/open", endpoint), Mount("/open", app=endpoint)], ids=["route", "mount"]
)
def test_a_route_that_declares_no_guard_stops_the_start(stranger):
    with pytest.raises(Misconfigured):
        declarations([FaceRoute(declaration()), stranger])


def test_declarations_are_those_of_the_routes_in_order():
    first, second = declaration("/a"), declaration("/b")
    assert declarations([FaceRoute(first), FaceRoute(second)]) == (first, second)


def test_a_route_matches_only_what_the_guard_admitted_for_it():
    mine, twin = declaration(), declaration()
    route = FaceRoute(mine)
    assert route.matches({ROUTE: mine, "path": "/elsewhere"})[0] is Match.FULL
    assert route.matches({ROUTE: twin, "path": "/a"})[0] is Match.NONE
    assert route.matches({"path": "/a"})[0] is Match.NONE


async def made_later(receipt):
    return ANSWER


@pytest.mark.parametrize("answer", [lambda receipt: ANSWER, made_later])
def test_a_route_sends_the_answer_that_it_declares(answer):
    request = SimpleNamespace(method="GET", trace_id=None, route="/a")
    admission = SimpleNamespace(request=request, found=None)
    receipt = SimpleNamespace(record_id="r" * 36, admission=admission)
    messages = []

    async def send(message):
        messages.append(message)

    route = FaceRoute(declaration(answer=answer))
    asyncio.run(route.handle({"method": "GET", RECEIPT: receipt, METER: Meter(0.0)}, None, send))
    start, body = messages
    assert (start["status"], body["body"]) == (200, b"ok")
    assert dict(start["headers"])[b"cachegate-record"] == b"r" * 36


def test_a_route_without_an_answer_stops_the_start():
    with pytest.raises(Misconfigured):
        FaceRoute(declaration(answer=None))


def test_a_route_makes_no_links():
    with pytest.raises(NoMatchFound):
        FaceRoute(declaration()).url_path_for("a")
