"""The guard in front of an ASGI app of somebody else's, as middleware that they mount.

    app.add_middleware(GuardMiddleware, process=Cachegate(), routes=[file_route(...), ...])

It is the same guard as in our own server: the same decisions, records and last check before the first byte.
What it adds is what differs in a foreign app and under a foreign server: the guard starts and ends with the
app's lifespan, paths are read as the app's router reads them, and the app runs once for each request.

Until the guard runs, every declared route but the unguarded ones is 503, and every other path as well.

WebSockets are refused. With `websockets="pass"` those of unguarded routes reach the app: unguarded, as the
declaration says.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from gateway.middleware.guard import ChokePoint, raw_path_of
from gateway.middleware.in_app.lifespan import live_with
from gateway.middleware.in_app.paths import is_as_served, read_path
from gateway.middleware.in_app.run import RUN, Run
from gateway.middleware.in_app.taken import find_parameters, find_routes
from gateway.middleware.sending import bound_to, send_whole
from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.problems import UNRECORDED, problem_of
from gateway.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.middleware.in_app.declared import AppRoute
    from gateway.middleware.in_app.running import GuardProcess, Running
    from gateway.model.routes import GuardedRoute

DECLARED = "cachegate.declared"
NOT_RUNNING = (
    "it was not started, so every request is refused. The server has to send lifespan messages to the app; "
    "for an app that is mounted in another one, enter `running()` in the lifespan of the outer one"
)


class GuardMiddleware:
    """Protects the declared routes of an app, and refuses all others. Mount it outermost."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        process: GuardProcess,
        routes: Iterable[AppRoute],
        websockets: Literal["refuse", "pass"] = "refuse",
    ) -> None:
        if websockets not in {"refuse", "pass"}:
            raise Misconfigured("GuardMiddleware", "websockets: expected 'refuse' or 'pass'")
        self._app = app
        self._process = process
        self._routes = tuple(routes)
        if not any(one.guarded is not None for one in self._routes):
            raise Misconfigured("GuardMiddleware", "no guarded route is declared, so nothing is protected")
        for one, another in combinations(self._routes, 2):
            if one.path.template == another.path.template and set(one.methods) & set(another.methods):
                raise Misconfigured(one.path.template, "is declared twice for one method")
        self._passes_websockets = websockets == "pass"
        self._built: tuple[Running, ChokePoint] | None = None
        self._log = Telemetry()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection."""
        if scope["type"] == "lifespan":
            await live_with(self._process, self._app, scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = next(iter(self._candidates(scope)), None) if self._passes_websockets else None
        if declared is not None and declared.guarded is None:
            await self._app(scope, receive, send)
            return
        running = self._process.now_running
        if running is not None:
            await self._choke_point(running).record_refused_socket({**scope, DECLARED: None})
        await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = self._find(scope)
        if declared is not None and declared.guarded is None and scope["method"] in declared.methods:
            await self._app(scope, receive, send)
            return
        running = self._process.now_running
        if running is None:
            self._log.failed(Unavailable("guard", NOT_RUNNING, Reason.NO_LEASE))
            answer = problem_of(Reason.NO_LEASE, "-").answer(UNRECORDED)
            await send_whole(answer, bound_to(UNRECORDED, None), scope["method"], send)
            return
        scope[DECLARED] = None if declared is None else declared.guarded
        is_expected = partial(_is_expected, self._expected(declared, scope), scope.get("path_params"))
        run = scope[RUN] = Run(self._app, scope, means=running.means, is_expected=is_expected)
        try:
            await self._choke_point(running)(scope, receive, send)
        except BaseException:
            await run.end(is_cut=True)
            raise
        await run.end()

    def _choke_point(self, running: Running) -> ChokePoint:
        """The guard's middleware around the app's runs; made anew when the guard was started anew."""
        if self._built is None or self._built[0] is not running:
            guarded = [one.guarded for one in self._routes if one.guarded is not None]
            choke_point = ChokePoint(
                _deliver,
                guard=running.guard,
                routes=guarded,
                clock=running.clock,
                telemetry=running.telemetry,
                transfers=running.transfers,
                trusted_proxies=running.trusted_proxies,
                find_route=_find_declared,
            )
            self._built = running, choke_point
        return self._built[1]

    def _candidates(self, scope: Scope) -> list[AppRoute]:
        """The declared routes that match the path, in order, the guarded ones before the others."""
        raw_path = raw_path_of(scope)
        if len(raw_path) > MAX_TARGET_BYTES:  # before anything is matched with it
            return []
        text = read_path(raw_path)
        if text is None or not is_as_served(scope, text):
            return []
        found = [one for one in self._routes if one.path.matches(raw_path)]
        return sorted(found, key=lambda one: one.guarded is None)

    def _find(self, scope: Scope) -> AppRoute | None:
        """The declared route of a request: of those that match, the one that the app's router will take."""
        found = self._candidates(scope)
        routes = find_routes(self._app, scope, type(self)) if found else None
        if routes is not None:
            taken = find_parameters(routes, dict(scope))
            found = [one for one in found if one.guarded is None or self._expected(one, scope) == taken]
        by_method = [one for one in found if scope["method"] in one.methods]
        return next(iter(by_method or found), None)

    def _expected(self, declared: AppRoute | None, scope: Scope) -> dict[str, Any] | None:
        """The path parameters that the app's router has to find, those of an outer mount among them."""
        own = None if declared is None else declared.path.converted(raw_path_of(scope))
        return None if own is None else {**scope.get("path_params", {}), **own}


def _is_expected(expected: dict[str, Any] | None, before: object, scope: Scope) -> bool:
    """Whether the app's router found these parameters; a router that does not tell is not compared."""
    after = scope.get("path_params")
    return after is None or after is before or after == expected


async def _deliver(scope: Scope, receive: Receive, send: Send) -> None:
    run: Run = scope[RUN]
    await run.deliver(receive, send)


def _find_declared(scope: Scope, _raw_path: bytes) -> GuardedRoute | None:
    declared: GuardedRoute | None = scope[DECLARED]
    return declared
