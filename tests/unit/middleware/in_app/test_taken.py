"""Which route the app's own router takes, asked before it does."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route, Router

from gateway.middleware import GuardMiddleware
from gateway.middleware.in_app.taken import find_parameters, find_routes


def endpoint(_request):
    raise AssertionError("it is matched and not called")


def taken(app, path, method="GET", **more):
    return find_parameters(app.routes, {"type": "http", "method": method, "path": path, **more})


def fastapi():
    app, router, inner = FastAPI(), APIRouter(prefix="/r"), APIRouter()
    app.get("/m/{model:path}/classes")(lambda: None)
    app.get("/m/{model:path}")(lambda: None)
    inner.get("/deep/{x}")(lambda: None)
    router.get("/m/{a}/{b}")(lambda: None)
    router.get("/m/{model:path}")(lambda: None)
    router.include_router(inner)
    app.include_router(router)
    return app


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/m/a/b", {"model": "a/b"}),
        ("/m/a/b/classes", {"model": "a/b"}),
        ("/r/m/a/b", {"a": "a", "b": "b"}),
        ("/r/m/a/b/c", {"model": "a/b/c"}),
        ("/r/deep/1", {"x": "1"}),
        ("/docs", {}),
        ("/nowhere", None),
        ("/m", None),
    ],
)
def test_of_a_fastapi_app_with_included_routers(path, parameters):
    assert taken(fastapi(), path) == parameters


def test_a_mount_is_looked_into_and_a_method_that_fits_wins():
    app = Starlette(
        routes=[
            Route("/{a}/x", endpoint, methods=["POST"]),
            Mount("/in/{t}", routes=[Route("/{n:int}", endpoint)]),
            Mount("/files", app=endpoint),
            Route("/{b}/x", endpoint, methods=["GET"]),
        ]
    )
    assert taken(app, "/1/x") == {"b": "1"}
    assert taken(app, "/1/x", "POST") == {"a": "1"}
    assert taken(app, "/1/x", "DELETE") == {"a": "1"}
    assert taken(app, "/in/acme/7") == {"t": "acme", "n": 7}
    assert taken(app, "/in/acme/seven") is None
    assert taken(app, "/files/a/b") == {}
    assert taken(app, "/m/1/x", root_path="/m") == {"b": "1"}


def test_routes_are_found_below_middleware_that_shows_what_it_wraps():
    app = fastapi()
    assert find_routes(app, {}, GuardMiddleware) == app.routes
    assert find_routes(GZipMiddleware(app), {}, GuardMiddleware) == app.routes
    assert find_routes(Router(routes=[]), {}, GuardMiddleware) == []


def test_routes_behind_closed_middleware_are_those_of_the_app_that_has_the_guard():
    def closed(app):
        async def layer(scope, receive, send):
            await app(scope, receive, send)

        return layer

    guarded = Starlette(routes=[Route("/a", endpoint)], middleware=[Middleware(GuardMiddleware)])
    assert find_routes(closed(guarded), {"app": guarded}, GuardMiddleware) == guarded.routes
    outer = Starlette(routes=[Route("/b", endpoint)])
    assert find_routes(closed(guarded), {"app": outer}, GuardMiddleware) is None
    assert find_routes(closed(guarded), {}, GuardMiddleware) is None
