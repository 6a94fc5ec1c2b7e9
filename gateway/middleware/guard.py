"""The guard as pure ASGI: mount it in front of any app that serves from the shared caches.

    app = GuardMiddleware(app, guard=guard, transfers=transfers, routes=[...], clock=..., telemetry=...)

It looks at the raw path only (never `request.url`, never `scope["path"]`, never the Host header, I4),
finds the declared route by shape, has the guard decide and record, and calls the app with the
`Receipt` in `scope["cachegate.receipt"]` and the route in `scope["cachegate.route"]`. Whatever is not
declared is refused. Before the first byte the guard confirms; while bytes flow the transfer is watched;
and the receipt is closed with what really went out, so an app behind this cannot forget any of it.

An answer that was overtaken by a change is decided anew, so an app may be called again for the same
request: before its first byte, and never after.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.audit.record_fields import secrets_of
from gateway.credential.client import TrustedNetworks, client_address
from gateway.middleware.client_end import client_end
from gateway.middleware.hook import read_body, send_taken
from gateway.middleware.meter import Meter
from gateway.middleware.routes import UNROUTED, Routes
from gateway.middleware.shape import refusal_by_shape
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import HookRoute, WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.extensions import SENT, WATCH, ZERO_COPY
from gateway.model.verdicts import Declined, Ending, Outcome, Rejection
from gateway.problems import UNRECORDED, problem_of
from gateway.transfers import TransferCutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.guard import Guard
    from gateway.middleware.routes import Declared
    from gateway.model.ports import Clock
    from gateway.model.verdicts import Receipt
    from gateway.telemetry import Telemetry
    from gateway.transfers import Transfers

RECEIPT = "cachegate.receipt"
ROUTE = "cachegate.route"
METER = "cachegate.meter"


MAX_ATTEMPTS = 3  # an answer whose facts moved before its first byte is worked out anew this often
DEGRADED = (b"cachegate-degraded", b"last-known-good")

NOBODY = TrustedNetworks()


class GuardMiddleware:
    """One choke point in front of an ASGI app."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        routes: Iterable[Declared],
        clock: Clock,
        telemetry: Telemetry,
        transfers: Transfers,
        trusted_proxies: TrustedNetworks = NOBODY,
    ) -> None:
        self._app = app
        self._guard = guard
        self._routes = Routes(routes)
        self._clock = clock
        self._telemetry = telemetry
        self._transfers = transfers
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection. Only HTTP passes; lifespan is not a client's."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, route = self._read(scope)
        meter = Meter(asyncio.get_running_loop().time(), scope.get(SENT))
        try:
            await self._answer(scope, receive, send, request, route, meter)
        except Exception as error:  # noqa: BLE001 -- the last boundary: a defect of ours is never an allow
            await self._fail(error, request, route, meter, send)
        finally:
            self._telemetry.answered(meter.status, meter.bytes_sent)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: Declared | None,
        meter: Meter,
    ) -> None:
        """Decide and deliver; decide anew when a fact moved before the first byte."""
        reason = refusal_by_shape(request, route)
        if reason is not None or route is None:
            rejection = Rejection(request=request, reason=reason or Reason.NO_ROUTE)
            await self._decline(request, route, self._guard.decline(rejection), meter.counting(send))
            return
        if isinstance(route, HookRoute):
            await self._take(receive, meter.counting(send), request, route)
            return
        for _ in range(MAX_ATTEMPTS):
            answer = await self._guard.admit(request, route)
            if isinstance(answer, Declined):
                await self._decline(request, route, answer, meter.counting(send))
                return
            meter.record_id = answer.record_id
            scope[RECEIPT], scope[ROUTE], scope[METER] = answer, route, meter
            try:
                await self._deliver(scope, receive, send, answer, meter)
            except WithdrawnError:
                self._telemetry.withdrawn()
                continue
            return
        await self._decline(request, route, self._guard.give_up(request), meter.counting(send))

    async def _take(self, receive: Receive, send: Send, request: WireRequest, route: HookRoute) -> None:
        """Have a hook look at its body and do what it says; what it refuses is recorded."""
        try:
            document = await route.take(request, await read_body(receive, route.max_body_bytes))
        except Refusal as refusal:
            rejection = Rejection(request=request, reason=refusal.reason)
            await self._decline(request, route, self._guard.decline(rejection), send)
            return
        self._telemetry.decided(request.route, Reason.PERMITTED)
        await send_taken(request, document, send)

    async def _deliver(
        self, scope: Scope, receive: Receive, send: Send, receipt: Receipt, meter: Meter
    ) -> None:
        """Have the app send what was admitted: confirmed before its first byte, watched until its last."""
        counting = meter.counting(send)
        client = client_end(scope)
        async with self._transfers.under_way(receipt, client) as transfer:

            async def confirmed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await client.drained()  # so that nothing is awaited between the check and the write
                    self._guard.confirm(receipt, self._clock.now())
                    self._telemetry.decided(receipt.admission.request.route, Reason.PERMITTED)
                    if self._guard.is_degraded():
                        self._telemetry.degraded()
                        message["headers"] = [*message.get("headers", ()), DEGRADED]
                elif meter.bytes_sent:
                    await transfer.verify()
                if message["type"] == ZERO_COPY:  # one message is many steps, and each of them is looked at
                    message = {**message, WATCH: transfer}
                await transfer.hand_over(message, counting)

            try:
                await self._app(scope, receive, confirmed)
            except (WithdrawnError, TransferCutError):
                raise
            except Exception as error:  # noqa: BLE001 -- answered here, so that the outcome says what was sent
                await self._fail(error, receipt.admission.request, scope[ROUTE], meter, send)
            finally:
                meter.cut = transfer.cut or meter.cut
                if meter.status and not meter.is_complete:
                    transfer.disconnect()  # half an answer must not look like a whole one that is late
                self._close(receipt, meter.outcome(asyncio.get_running_loop().time()))

    async def _fail(
        self,
        error: Exception,
        request: WireRequest,
        route: Declared | None,
        meter: Meter,
        send: Send,
    ) -> None:
        """Answer for what went wrong, if nothing was sent yet: 503 for what is not there, else 500."""
        reason = error.reason if isinstance(error, Unavailable) else Reason.INTERNAL
        if isinstance(error, Unavailable):
            self._telemetry.failed(error)
        else:
            self._telemetry.defect(request.route, error, secrets_of(request))
        if meter.status == 0:
            if reason is Reason.INTERNAL:
                declined = self._record_defect(request)
            else:
                declined = Declined(reason=reason, record_id=meter.record_id or UNRECORDED)
            await self._decline(request, route, declined, meter.counting(send))
        meter.cut = Ending.CHANGED_ON_DISK if reason is Reason.CHANGED_ON_DISK else Ending.FAILED

    def _close(self, receipt: Receipt, outcome: Outcome) -> None:
        """Record how it ended. The bytes are out by then: what cannot be recorded now can only be told."""
        try:
            receipt.close(outcome)
        except Unavailable as failure:
            self._telemetry.failed(failure)

    def _read(self, scope: Scope) -> tuple[WireRequest, Declared | None]:
        """The request as bytes off the wire. A server that hides the raw path gets nothing served."""
        raw_path: bytes = scope.get("raw_path") or b""
        root = scope.get("root_path", "").encode()
        if root and raw_path.startswith(root + b"/"):
            raw_path = raw_path[len(root) :]
        headers = tuple(scope["headers"])
        route = self._routes.find(raw_path)
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

    async def _decline(
        self, request: WireRequest, route: Declared | None, declined: Declined, send: Send
    ) -> None:
        self._telemetry.decided(request.route, declined.reason)
        problem = problem_of(declined.reason, declined.meant or request.route)
        headers, body = problem.answer(declined.record_id, traceparent(request.trace_id))
        if declined.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
            headers.append((b"allow", ", ".join(route.methods).encode()))
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})

    def _record_defect(self, request: WireRequest) -> Declined:
        try:
            return self._guard.decline(Rejection(request=request, reason=Reason.INTERNAL))
        except Unavailable:
            return Declined(reason=Reason.INTERNAL, record_id=UNRECORDED)


def _first(headers: tuple[tuple[bytes, bytes], ...], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
