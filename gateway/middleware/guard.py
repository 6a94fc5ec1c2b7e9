"""The guard as pure ASGI: mount it in front of any app that serves from the shared caches.

    app = GuardMiddleware(app, guard=guard, routes=[...], clock=clock, telemetry=telemetry)

It looks at the raw path only (never `request.url`, never `scope["path"]`, never the Host header, I4),
finds the declared route by shape, has the guard decide and record, and calls the app with the
`Receipt` in `scope["cachegate.receipt"]` and the route in `scope["cachegate.route"]`. Whatever is not
declared is refused. It closes the receipt with what really went out, so an app behind it cannot
forget the outcome record.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.credential.client import TrustedNetworks, client_address
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import WireRequest
from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.model.verdicts import Declined, Ending, Outcome, Rejection
from gateway.problems import PROBLEMS, UNRECORDED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.guard import Guard
    from gateway.model.access import GuardedRoute
    from gateway.model.ports import Clock
    from gateway.model.verdicts import Receipt
    from gateway.telemetry import Telemetry

RECEIPT = "cachegate.receipt"
ROUTE = "cachegate.route"
METER = "cachegate.meter"

NOBODY = TrustedNetworks()
UNROUTED = "-"  # the route of requests that match none, in records and metrics: never the client's text


class Meter:
    """Counts what one response really sent, and lets delivery say that it cut it and why."""

    __slots__ = ("bytes_sent", "cut", "is_complete", "started_at", "status")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.status = 0
        self.bytes_sent = 0
        self.is_complete = False
        self.cut: Ending | None = None

    def note(self, message: Message) -> None:
        """Take account of one ASGI message that was handed to the server."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.bytes_sent += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)

    def outcome(self, now: float) -> Outcome:
        """What to record."""
        ending = self.cut or (Ending.COMPLETE if self.is_complete else Ending.FAILED)
        milliseconds = round((now - self.started_at) * 1000, 3)
        return Outcome(
            ending=ending, status=self.status, bytes_sent=self.bytes_sent, milliseconds=milliseconds
        )


class GuardMiddleware:
    """One choke point in front of an ASGI app."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        routes: Iterable[GuardedRoute],
        clock: Clock,
        telemetry: Telemetry,
        trusted_proxies: TrustedNetworks = NOBODY,
    ) -> None:
        self._app = app
        self._guard = guard
        self._routes = tuple(routes)
        self._clock = clock
        self._telemetry = telemetry
        self._trusted_proxies = trusted_proxies
        if not self._routes:
            raise Misconfigured("GuardMiddleware", "no guarded route is declared, so nothing could be served")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection. Only HTTP passes; lifespan is not a client's."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        meter = Meter(loop.time())

        async def metered(message: Message) -> None:
            await send(message)
            meter.note(message)

        request, route = self._read(scope)
        receipt = None
        try:
            reason = self._refusal_by_shape(request, route)
            if reason is None and route is not None:
                answer = await self._guard.admit(request, route)
            else:
                answer = self._guard.decline(Rejection(request=request, reason=reason or Reason.NO_ROUTE))
            if isinstance(answer, Declined):
                await self._decline(request, route, answer, metered)
                return
            receipt = answer
            scope[RECEIPT], scope[ROUTE], scope[METER] = receipt, route, meter
            self._telemetry.decided(request.route, Reason.PERMITTED)
            await self._app(scope, receive, metered)
        except Unavailable as failure:
            self._telemetry.failed(failure)
            record_id = receipt.record_id if receipt else UNRECORDED
            if meter.status == 0:
                declined = Declined(reason=failure.reason, record_id=record_id)
                await self._decline(request, route, declined, metered)
            is_changed = failure.reason is Reason.CHANGED_ON_DISK
            meter.cut = Ending.CHANGED_ON_DISK if is_changed else Ending.FAILED
        except Exception as defect:  # noqa: BLE001 -- the last boundary: a defect of ours is a 500 and never an allow
            self._telemetry.defect(request.route, defect)
            if meter.status == 0:
                await self._decline(request, route, self._record_defect(request), metered)
            meter.cut = Ending.FAILED
        finally:
            if receipt is not None:
                self._close(receipt, meter.outcome(loop.time()))
            self._telemetry.answered(meter.status, meter.bytes_sent)

    def _close(self, receipt: Receipt, outcome: Outcome) -> None:
        """Record how it ended. The bytes are out by then: what cannot be recorded now can only be told."""
        try:
            receipt.close(outcome)
        except Unavailable as failure:
            self._telemetry.failed(failure)

    def _read(self, scope: Scope) -> tuple[WireRequest, GuardedRoute | None]:
        """The request as bytes off the wire. A server that hides the raw path gets nothing served."""
        raw_path: bytes = scope.get("raw_path") or b""
        root = scope.get("root_path", "").encode()
        if root and raw_path.startswith(root + b"/"):
            raw_path = raw_path[len(root) :]
        headers = tuple(scope["headers"])
        route = next((one for one in self._routes if one.matches(raw_path)), None)
        peer = scope.get("client")
        request = WireRequest(
            method=scope["method"],
            raw_path=raw_path,
            query=scope.get("query_string", b""),
            headers=headers,
            client=client_address(peer[0] if peer else None, headers, self._trusted_proxies),
            route=route.template if route else UNROUTED,
            trace_id=find_trace_id(_first(headers, b"traceparent")),
            received_at=self._clock.now(),
        )
        return request, route

    def _refusal_by_shape(self, request: WireRequest, route: GuardedRoute | None) -> Reason | None:
        """What is refused by its shape alone: the same for everybody."""
        if len(request.raw_path) + len(request.query) > MAX_TARGET_BYTES:
            return Reason.PATH_TOO_LONG
        block = sum(len(name) + len(value) + 4 for name, value in request.headers)
        if block > MAX_HEADER_BYTES or len(request.headers) > MAX_HEADER_COUNT:
            return Reason.HEADERS_TOO_LARGE
        if route is None:
            return Reason.NO_ROUTE
        if request.method not in route.methods:
            return Reason.METHOD_NOT_ALLOWED
        if announced_body(request) > MAX_BODY_BYTES:
            return Reason.BODY_TOO_LARGE
        return None

    async def _decline(
        self, request: WireRequest, route: GuardedRoute | None, declined: Declined, send: Send
    ) -> None:
        self._telemetry.decided(request.route, declined.reason)
        problem = PROBLEMS[declined.reason]
        body = problem.body(declined.record_id)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"cachegate-record", declined.record_id.encode()),
            (b"traceparent", traceparent(request.trace_id)),
            *problem.headers,
        ]
        if declined.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
            headers.append((b"allow", ", ".join(route.methods).encode()))
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})

    def _record_defect(self, request: WireRequest) -> Declined:
        try:
            return self._guard.decline(Rejection(request=request, reason=Reason.INTERNAL))
        except Unavailable:
            return Declined(reason=Reason.INTERNAL, record_id=UNRECORDED)


def announced_body(request: WireRequest) -> int:
    """How long a body the headers announce; chunked or unreadable counts as too long."""
    length = request.header(b"content-length") or b"0"
    if request.header(b"transfer-encoding") is not None or not length.isdigit():
        return MAX_BODY_BYTES + 1
    return int(length[:12])


def _first(headers: tuple[tuple[bytes, bytes], ...], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
