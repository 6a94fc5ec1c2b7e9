"""A route without a declaration stops the start; one with it serves exactly what was declared (I4)."""

from __future__ import annotations

import asyncio

import pytest
from starlette.routing import Match, Mount, NoMatchFound, Route

from gateway.faces.route import FaceRoute, declarations
from gateway.middleware.guard import ROUTE
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Misconfigured
from gateway.model.routes import GuardedRoute


def declaration(template="/a"):
    return GuardedRoute(
        template=template,
        methods=("GET",),
        action=Action.READ,
        matches=lambda raw: True,
        locate=lambda request: Resource(kind=ResourceKind.SELF),
    )


async def endpoint(scope, receive, send):
    scope["served"].append(scope)


@pytest.mark.parametrize(
    "stranger", [Route("/open", endpoint), Mount("/open", app=endpoint)], ids=["route", "mount"]
)
def test_a_route_that_declares_no_guard_stops_the_start(stranger):
    with pytest.raises(Misconfigured):
        declarations([FaceRoute(declaration(), endpoint), stranger])


def test_declarations_are_those_of_the_routes_in_order():
    first, second = declaration("/a"), declaration("/b")
    assert declarations([FaceRoute(first, endpoint), FaceRoute(second, endpoint)]) == (first, second)


def test_a_route_matches_only_what_the_guard_admitted_for_it():
    mine, twin = declaration(), declaration()
    route = FaceRoute(mine, endpoint)
    assert route.matches({ROUTE: mine, "path": "/elsewhere"})[0] is Match.FULL
    assert route.matches({ROUTE: twin, "path": "/a"})[0] is Match.NONE
    assert route.matches({"path": "/a"})[0] is Match.NONE


def test_a_route_hands_the_request_to_its_endpoint():
    scope = {"served": []}
    asyncio.run(FaceRoute(declaration(), endpoint).handle(scope, None, None))
    assert scope["served"] == [scope]


def test_a_route_makes_no_links():
    with pytest.raises(NoMatchFound):
        FaceRoute(declaration(), endpoint).url_path_for("a")
