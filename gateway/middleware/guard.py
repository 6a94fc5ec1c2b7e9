"""The guard as pure ASGI middleware. Other people mount it as `GuardMiddleware` (`in_app/guard.py`).

    app = ChokePoint(app, guard=guard, transfers=transfers, routes=[...], clock=..., telemetry=...)

It reads the raw path only (never `request.url`, `scope["path"]` or the Host header, I4), finds the declared
route by its shape, and has the guard decide and record. Then it calls the app with the `Receipt` in
`scope["cachegate.receipt"]` and the route in `scope["cachegate.route"]`. Undeclared paths are refused. The
guard's last check runs before the first byte; the transfer is watched until the last; and the receipt is
closed with what was really sent. The app behind it has to do none of this, so it cannot omit any of it.

When a fact changes before the first byte, the request is decided anew. So the app may be called again for
the same request, but never after its first byte.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.audit.record_fields import secrets_of
from gateway.credential.client import TrustedNetworks, peer_of
from gateway.credential.extract import extract
from gateway.middleware.bodies import Bodies, held_bytes
from gateway.middleware.client_end import client_end
from gateway.middleware.hook import answer_taken, read_body
from gateway.middleware.meter import Meter
from gateway.middleware.refusing import answer_refused
from gateway.middleware.routes import UNROUTED, Routes
from gateway.middleware.sending import bound_to, send_whole
from gateway.middleware.shape import refusal_by_shape
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.extensions import SENT, WATCH, ZERO_COPY
from gateway.model.routes import ForwardedRoute, GuardedRoute, HookRoute, PublicRoute
from gateway.model.verdicts import Declined, Ending, Ordered, Outcome, Rejection
from gateway.problems import UNRECORDED
from gateway.transfers import ClientGoneError, TransferCutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.guard import Guard
    from gateway.middleware.routes import Declared
    from gateway.model.access import Credential
    from gateway.model.answers import Answer
    from gateway.model.clocks import Clock
    from gateway.model.routes import Forwarding
    from gateway.model.verdicts import Receipt
    from gateway.telemetry import Telemetry
    from gateway.transfers import ClientEnd, Transfer, Transfers

RECEIPT = "cachegate.receipt"
ROUTE = "cachegate.route"
METER = "cachegate.meter"


MAX_ATTEMPTS = 3  # how often a request is decided when its facts change before the first byte
SMALL_FORM_BYTES = 64 * 1024
MAX_LARGE_FORMS = 4  # at a time: each may have a megabyte
MAX_LARGE_FORMS_OF_CLIENT = 2  # of them: any valid key may send one, and slowly
DEGRADED = (b"cachegate-degraded", b"last-known-good")

NOBODY = TrustedNetworks()


class ChokePoint:
    """The single choke point in front of an ASGI app (I4)."""

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
        find_route: Callable[[Scope, bytes], Declared | None] | None = None,
    ) -> None:
        """`find_route` finds the declared route of a raw path, where its shape alone does not tell."""
        self._app = app
        self._guard = guard
        declared = tuple(routes)
        shapes = Routes(declared)
        self._find_route = find_route or (lambda _scope, raw_path: shapes.find(raw_path))
        self._clock = clock
        self._telemetry = telemetry
        self._transfers = transfers
        self._trusted_proxies = trusted_proxies
        self._bodies = Bodies(held_bytes(max(map(_held_body_bytes, declared))))
        self._large_forms: Counter[str] = Counter()  # by the client's address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection: HTTP is guarded, WebSockets are closed, lifespan goes to the app."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def record_refused_socket(self, scope: Scope) -> None:
        """Record a WebSocket that is refused, as a request without a route."""
        request, _ = self._read({**scope, "method": "GET"})
        try:
            await self._guard.decline(Rejection(request=request, reason=Reason.NO_ROUTE))
        except Unavailable as failure:
            self._telemetry.failed(failure)
        self._telemetry.decided(request.route, Reason.NO_ROUTE)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, route = self._read(scope)
        meter = Meter(asyncio.get_running_loop().time(), scope.get(SENT))
        try:
            await self._answer(scope, receive, send, request, route, meter)
        except Exception as error:  # noqa: BLE001 -- the last boundary: a defect of ours is never an allow
            await self._fail(error, request, route, meter, send)
        finally:
            self._telemetry.answered(meter.status, meter.bytes_sent)
            if meter.began_at is not None:
                self._telemetry.began(request.route, meter.began_at - meter.started_at)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: Declared | None,
        meter: Meter,
    ) -> None:
        """Answer by the kind of the route; what has no route, or no right form, is refused."""
        if isinstance(route, ForwardedRoute | GuardedRoute) and route.beside is not None:
            send = _with_headers(send, tuple(route.beside(request)))
        reason = refusal_by_shape(request, route)
        if reason is not None or route is None:
            rejection = Rejection(request=request, reason=reason or Reason.NO_ROUTE)
            await self._refuse(rejection, route, meter, send)
            return
        if isinstance(route, HookRoute):
            await self._take(receive, send, request, route, meter)
            return
        if isinstance(route, ForwardedRoute):
            await self._forward(scope, receive, send, request, route, meter)
            return
        if isinstance(route, PublicRoute):
            await self._send_unrecorded(route.answer(), request, meter, send)
            return
        if route.form_bytes:
            await self._answer_form(scope, receive, send, request, route, meter)
            return
        if route.reads_body:
            await self._answer_body(scope, receive, send, request, route, meter)
            return
        await self._answer_guarded(scope, receive, send, request, route, meter)

    async def _answer_form(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: GuardedRoute,
        meter: Meter,
    ) -> None:
        """Read the form, which may contain the caller's key, then answer as any other request."""
        if route.has_key_in_head:
            declined = await self._guard.find_refusal_by_head(request, route)
            if declined is not None:
                await self._decline(request, route, declined, meter.counting(send))
                return
        try:
            form = await self._read_form(receive, route, request.client)
        except Refusal as refusal:
            await self._refuse(Rejection(request=request, reason=refusal.reason), route, meter, send)
            return
        request = replace(request, form=form)
        try:
            await self._answer_guarded(scope, receive, send, request, route, meter)
        except Exception as error:  # noqa: BLE001 -- as in `_http`, which does not know the form's secrets
            await self._fail(error, request, route, meter, send)

    async def _answer_body(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: GuardedRoute,
        meter: Meter,
    ) -> None:
        """Read the body that names the resource. A key that is refused whatever it says is refused before."""
        try:
            key = extract(request.headers, request.query)
            declined = await self._guard.find_refusal(request, key, route.action)
            if declined is not None:
                await self._decline(request, route, declined, meter.counting(send))
                return
            with self._bodies.holding(request.client) as held:
                body = await self._bodies.read(receive, route.body_bytes, held)
                named = replace(request, body=body)
                await self._answer_guarded(scope, receive, send, named, route, meter)
        except Refusal as refusal:
            await self._refuse(_rejected(request, refusal), route, meter, send)

    async def _read_form(self, receive: Receive, route: GuardedRoute, client: str) -> bytes:
        """The whole form. Of large ones, few are read at a time. Raises `Refusal`."""
        if route.form_bytes <= SMALL_FORM_BYTES:
            return await read_body(receive, route.form_bytes)
        forms = self._large_forms
        if forms.total() >= MAX_LARGE_FORMS or forms[client] >= MAX_LARGE_FORMS_OF_CLIENT:
            raise Refusal(Reason.BUSY)
        forms[client] += 1
        try:
            return await read_body(receive, route.form_bytes)
        finally:
            forms[client] -= 1
            if not forms[client]:
                del forms[client]

    async def _answer_guarded(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: GuardedRoute,
        meter: Meter,
    ) -> None:
        async def admit() -> tuple[Receipt, ...] | Declined:
            admitted = await self._guard.admit(request, route)
            return admitted if isinstance(admitted, Declined) else (admitted,)

        await self._admit_and_deliver(scope, receive, send, request, route, meter, admit)

    async def _admit_and_deliver(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: Declared,
        meter: Meter,
        admit: Callable[[], Awaitable[tuple[Receipt, ...] | Declined]],
        forwarding: Forwarding | None = None,
    ) -> None:
        """Decide and deliver; decide anew when a fact changed before the first byte."""
        for _ in range(MAX_ATTEMPTS):
            receipts = await admit()
            if isinstance(receipts, Declined):
                await self._decline(request, route, receipts, meter.counting(send))
                return
            meter.record_id = receipts[0].record_id
            scope[RECEIPT], scope[ROUTE], scope[METER] = receipts[0], route, meter
            try:
                await self._deliver(scope, receive, send, receipts, meter, forwarding)
            except WithdrawnError:
                self._telemetry.withdrawn()
                continue
            return
        await self._decline(request, route, await self._guard.give_up(request), meter.counting(send))

    async def _send_unrecorded(self, answer: Answer, request: WireRequest, meter: Meter, send: Send) -> None:
        """Send an answer that no decision is about: it has nothing of the cache, and is for everybody."""
        self._telemetry.decided(request.route, Reason.PERMITTED)
        trace = (b"traceparent", traceparent(request.trace_id))
        await send_whole(answer, (trace,), request.method, meter.counting(send))

    async def _take(
        self, receive: Receive, send: Send, request: WireRequest, route: HookRoute, meter: Meter
    ) -> None:
        """Have a hook verify and process its body; a refusal is recorded."""
        try:
            document = await route.take(request, await read_body(receive, route.max_body_bytes))
        except Refusal as refusal:
            await self._refuse(Rejection(request=request, reason=refusal.reason), route, meter, send)
            return
        await self._send_unrecorded(answer_taken(document), request, meter, send)

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: WireRequest,
        route: ForwardedRoute,
        meter: Meter,
    ) -> None:
        """Have an inference server answer; nothing is sent there before all decisions are recorded.

        The server is asked once. Where a fact changes before the first byte of its answer, the request is
        decided anew, and what the server has answered already is sent or dropped.
        """
        try:
            forwarding = route.begin(request, receive)
        except Refusal as refusal:
            await self._refuse(_rejected(request, refusal), route, meter, send)
            return
        request = replace(request, route=forwarding.template)
        own = forwarding.own_answer()
        if own is not None:
            await self._send_unrecorded(own, request, meter, send)
            return
        try:
            with self._bodies.holding(request.client) as held:
                try:
                    if forwarding.reads_whole_body:
                        declined = await self._refusal_by_head(request, forwarding)
                        if declined is not None:
                            await self._decline(request, route, declined, meter.counting(send))
                            return
                        # The bytes have no name here, so that they go once they are parsed.
                        asked = forwarding.ask(await self._bodies.read(receive, route.max_body_bytes, held))
                    else:
                        asked = forwarding.ask(None)
                except Refusal as refusal:
                    await self._refuse(_rejected(request, refusal), route, meter, send)
                    return
                known = _with_key(request, asked.credential)
                admit = partial(self._guard.admit_all, known, asked)
                await self._admit_and_deliver(scope, receive, send, known, route, meter, admit, forwarding)
        finally:
            await forwarding.close()

    async def _refusal_by_head(self, request: WireRequest, forwarding: Forwarding) -> Declined | None:
        """Refuse a key in the head that is valid for nothing, before a byte of the body is read."""
        key = forwarding.key_in_head()
        return None if key is None else await self._guard.find_refusal(_with_key(request, key), key)

    async def _refuse(self, rejection: Rejection, route: Declared | None, meter: Meter, send: Send) -> None:
        """Record a refusal and answer it."""
        declined = await self._guard.decline(rejection)
        await self._decline(rejection.request, route, declined, meter.counting(send))

    async def _deliver(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        receipts: tuple[Receipt, ...],
        meter: Meter,
        forwarding: Forwarding | None = None,
    ) -> None:
        """Have the app send what was admitted: last check before the first byte, watched until the last.

        A forwarded request has a receipt for each of its models; the first one stands for all.
        """
        receipt = receipts[0]
        counting = meter.counting(send)
        client = client_end(scope)
        found = receipt.admission.found
        is_change = isinstance(found, Ordered) and found.is_change
        if is_change:
            self._confirm(receipts, forwarding)  # here: the change may end what it was decided on
        async with self._transfers.under_way(receipt, client, is_watched=not is_change) as transfer:

            async def confirmed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await client.drained()  # so that nothing is awaited between the check and the write
                    if not is_change:
                        self._confirm(receipts, forwarding)
                    self._telemetry.decided(receipt.admission.request.route, Reason.PERMITTED)
                    if self._guard.is_degraded():
                        self._telemetry.degraded()
                        message["headers"] = [*message.get("headers", ()), DEGRADED]
                elif meter.bytes_sent:
                    await transfer.verify()
                if message["type"] == ZERO_COPY:  # one message is many steps; the server checks before each
                    message = {**message, WATCH: transfer}
                await transfer.hand_over(message, counting)

            try:
                await self._run_app(scope, receive, confirmed, transfer)
            except (WithdrawnError, TransferCutError):
                raise
            except Exception as error:  # noqa: BLE001 -- answered here, so that the outcome says what was sent
                # The request of the scope may be a GET that asks about a HEAD: it is answered as what it is.
                request = replace(receipt.admission.request, method=scope["method"])
                await self._fail(error, request, scope[ROUTE], meter, send)
            finally:
                self._end(receipts, transfer, meter, forwarding)
        _verify_told(meter, transfer, client)

    def _end(
        self,
        receipts: tuple[Receipt, ...],
        transfer: Transfer,
        meter: Meter,
        forwarding: Forwarding | None,
    ) -> None:
        """Record how it ended, once for each receipt."""
        meter.cut = transfer.cut or meter.cut
        if meter.status and not meter.is_complete:
            transfer.disconnect()  # a cut answer must not look like one that is merely slow
        meter.upstream = None if forwarding is None else forwarding.upstream
        outcome = meter.outcome(asyncio.get_running_loop().time())
        for one in receipts:
            self._close(one, outcome)

    def _confirm(self, receipts: tuple[Receipt, ...], forwarding: Forwarding | None) -> None:
        """The guard's last check."""
        if forwarding is None:
            self._guard.confirm(receipts[0], self._clock.now())
        else:
            self._guard.confirm_all(receipts, forwarding.stamp, self._clock.now())

    async def _run_app(self, scope: Scope, receive: Receive, send: Send, transfer: Transfer) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientGoneError:
            transfer.cut = Ending.CLIENT_GONE
            raise

    async def _fail(
        self,
        error: Exception,
        request: WireRequest,
        route: Declared | None,
        meter: Meter,
        send: Send,
    ) -> None:
        """Answer an error, if nothing was sent yet: 503 for a dependency that is down, else 500.

        A refusal is of a forwarded request, for what was found out after its decision: the outcome has it.
        """
        reason = error.reason if isinstance(error, Unavailable | Refusal) else Reason.INTERNAL
        if isinstance(error, Unavailable):
            self._telemetry.failed(error)
        elif isinstance(error, Refusal):
            meter.reason = reason
        else:
            self._telemetry.defect(request.route, error, secrets_of(request))
        if meter.status == 0:
            if reason is Reason.INTERNAL:
                declined = await self._record_defect(request)
            else:
                about = error if isinstance(error, Refusal) else None
                declined = Declined(
                    reason=reason,
                    record_id=meter.record_id or UNRECORDED,
                    client_detail=about.client_detail if about else None,
                    fields=about.fields if about else (),
                )
            await self._decline(request, route, declined, meter.counting(send))
        meter.cut = Ending.CHANGED_ON_DISK if reason is Reason.CHANGED_ON_DISK else Ending.FAILED

    def _close(self, receipt: Receipt, outcome: Outcome) -> None:
        """Record the outcome. The bytes were sent: if it cannot be recorded, this can only be logged."""
        try:
            receipt.close(outcome)
        except Unavailable as failure:
            self._telemetry.failed(failure)

    def _read(self, scope: Scope) -> tuple[WireRequest, Declared | None]:
        """The request as received. From a server without `raw_path` in its scope, nothing is served."""
        raw_path = raw_path_of(scope)
        headers = tuple(scope["headers"])
        route = self._find_route(scope, raw_path)
        address = scope.get("client")
        peer = peer_of(address[0] if address else None, self._trusted_proxies)
        request = WireRequest(
            method=scope["method"],
            raw_path=raw_path,
            query=scope.get("query_string", b""),
            headers=headers,
            client=peer.client(headers),
            route=route.template if route else UNROUTED,
            trace_id=find_trace_id(_first(headers, b"traceparent")),
            received_at=self._clock.now(),
            is_of_proxy=peer.is_believed,
        )
        return request, route

    async def _decline(
        self, request: WireRequest, route: Declared | None, declined: Declined, send: Send
    ) -> None:
        self._telemetry.decided(request.route, declined.reason)
        bound = bound_to(declined.record_id, request.trace_id)
        await send_whole(answer_refused(declined, request, route), bound, request.method, send)

    async def _record_defect(self, request: WireRequest) -> Declined:
        try:
            return await self._guard.decline(Rejection(request=request, reason=Reason.INTERNAL))
        except Unavailable:
            return Declined(reason=Reason.INTERNAL, record_id=UNRECORDED)


def raw_path_of(scope: Scope) -> bytes:
    """The raw path below the mount of the app; empty from a server that does not tell it."""
    raw_path: bytes = scope.get("raw_path") or b""
    root = scope.get("root_path", "").encode()
    return raw_path[len(root) :] if root and raw_path.startswith(root + b"/") else raw_path


def _verify_told(meter: Meter, transfer: Transfer, client: ClientEnd) -> None:
    """Raises `WithdrawnError` for a request that was cut before its answer began, if its caller waits.

    Never for what is not watched, a change: once begun, it is not made again.
    """
    if transfer.is_watched and not meter.status and transfer.cut is not None and not client.can_abort:
        raise WithdrawnError


def _held_body_bytes(route: Declared) -> int:
    """How much of a body is held in memory for a decision."""
    if isinstance(route, ForwardedRoute):
        return route.max_body_bytes
    return route.body_bytes if isinstance(route, GuardedRoute) and route.reads_body else 0


def _with_headers(send: Send, more: tuple[tuple[bytes, bytes], ...]) -> Send:
    """`send`, with these headers added to the answer."""
    if not more:
        return send

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return adding


def _with_key(request: WireRequest, credential: Credential) -> WireRequest:
    """The request with its key, wherever that was found, where records look for its secrets (I8)."""
    key = (b"authorization", b"Bearer " + credential.secret.encode())
    return replace(request, headers=(*request.headers, key))


def _rejected(request: WireRequest, refusal: Refusal) -> Rejection:
    return Rejection(request=request, reason=refusal.reason, client_detail=refusal.client_detail)


def _first(headers: tuple[tuple[bytes, bytes], ...], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
