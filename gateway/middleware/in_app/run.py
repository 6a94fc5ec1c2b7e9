"""One run of the app for one request: the app is called once, whatever the guard decides meanwhile.

The guard confirms its decision right before the first byte. When a fact has changed by then, it decides anew,
and calls the app again. An app of somebody else's has run a model by then, or charged for it, so it must not
run twice: its run waits in `send` until the new decision, and then goes on with the same answer, or ends.

    GuardMiddleware ─▶ ChokePoint ─▶ Run.deliver ┄▶ the app, in a task of its own
                            ▲                           │ send
                            └── confirm, count, cut ◀── Run.send ◀─┘

What goes through here is only what the guard can see: the start and the body of a response. So extensions by
which a server sends files itself are hidden from the app. The request's body is counted, or is the one that
was read before the decision. Once the last byte was sent, the guard is done; background tasks of the response
go on, and neither delay its record nor end with the caller's key.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.middleware.guard import METER, RECEIPT, ROUTE
from gateway.middleware.sending import bound_to
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.delivery.file_answer import Means
    from gateway.middleware.meter import Meter
    from gateway.model.verdicts import Receipt

RUN = "cachegate.run"
_HIDDEN = "http.response."  # extensions that let a server send what the guard does not see
_OURS = frozenset({b"cachegate-record", b"traceparent"})


class Run:
    """The app's run for one request."""

    def __init__(
        self, app: ASGIApp, scope: Scope, *, means: Means, is_expected: Callable[[Scope], bool]
    ) -> None:
        """`is_expected` tells whether the route that the app's router took is the one that was declared."""
        self.means = means
        self.is_held = False  # by a response that sends the receipt's file, and has to make it anew
        self._app = app
        self._is_expected = is_expected
        self._is_head = scope["method"] == "HEAD"
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None  # the guard waits for it
        self._decided: asyncio.Event = asyncio.Event()
        self._over: BaseException | None = None  # nothing more is sent, whatever the app does with this
        self._is_finished = False
        self._body: bytes | None = None
        self._left_bytes = 0
        self._guard_send: Send | None = None
        self._server_receive: Receive | None = None

    @property
    def receipt(self) -> Receipt:
        """Of the decision that is being delivered."""
        receipt: Receipt = self._scope[RECEIPT]
        return receipt

    @property
    def meter(self) -> Meter:
        """Counts this response."""
        meter: Meter = self._scope[METER]
        return meter

    async def deliver(self, receive: Receive, send: Send) -> None:
        """Have the app answer under the receipt of the scope. Ends with the last byte of the answer.

        Raises what the guard raised from `send`, or what the app raised.
        """
        turn = self._turn = asyncio.get_running_loop().create_future()
        self._guard_send, self._server_receive = send, receive
        if self._task is None:
            self._begin()
        elif self._over is not None:
            raise self._over
        else:
            self._decided.set()
        task = self._task
        if task is None:
            raise RuntimeError("the app was not started")
        try:
            await asyncio.wait({turn, task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._cut(task)  # not waited for here: it may be a thread, and the caller is owed a refusal
            raise
        if turn.done():
            turn.result()
        elif self._over is not None:
            raise self._over
        elif task.cancelled():
            raise RuntimeError("the app cancelled its own task")
        else:
            task.result()

    def finish(self) -> None:
        """The last byte was sent: the guard is done."""
        self._is_finished = True
        self._settle(None)

    async def end(self, *, is_cut: bool = False) -> None:
        """After the guard is done: wait for the app's background tasks, or end a run that may not go on."""
        task = self._task
        if task is None:
            return
        if is_cut or not self._is_finished:
            self._cut(task)
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # retrieved: the guard has answered for it, and logged what was its own
            return
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            raise

    async def send(self, message: Message) -> None:
        """The app's `send`."""
        message = self._checked(message)
        while True:
            if self._over is not None:
                raise self._over
            if self._guard_send is None:
                raise RuntimeError("the app was not started")
            try:
                await self._guard_send(self._bound(message))
            except WithdrawnError as withdrawn:
                self._decided.clear()
                self._settle(withdrawn)
                await self._decided.wait()
                if self.is_held:
                    raise
                continue
            except Exception as error:
                self._over = error
                self._settle(error)
                raise
            break
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and not self.is_held:
            self.finish()

    async def receive(self) -> Message:
        """The app's `receive`: the body that was read already, or a body that is counted."""
        if self._over is not None:
            raise self._over
        if self._server_receive is None:
            raise RuntimeError("the app was not started")
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._server_receive()
        if message["type"] == "http.request":
            self._left_bytes -= len(message.get("body", b""))
            if self._left_bytes < 0:
                self._refuse(Refusal(Reason.BODY_TOO_LARGE))
        return message

    def _begin(self) -> None:
        request, route = self.receipt.admission.request, self._scope[ROUTE]
        self._body = request.body if route.reads_body else None
        self._left_bytes = route.body_bytes
        offered: dict[str, Any] = self._scope.get("extensions") or {}
        kept = {name: offer for name, offer in offered.items() if not name.startswith(_HIDDEN)}
        self._scope["extensions"] = kept
        self._task = asyncio.ensure_future(self._app(self._scope, self.receive, self.send))

    def _cut(self, task: asyncio.Task[None]) -> None:
        self._over = self._over or Unavailable("guard", "the run of the app was ended", Reason.FACTS_MOVED)
        task.cancel()

    def _checked(self, message: Message) -> Message:
        """A message of the app's that the guard can see. A HEAD has no body, whatever the app sends."""
        if message["type"] == "http.response.start":
            if not self._is_expected(self._scope):
                # Nothing was sent. For the caller this route is not there (I1).
                self._refuse(Refusal(Reason.NO_ROUTE))
        elif message["type"] != "http.response.body":
            raise RuntimeError(f"a guarded route cannot send {message['type']!r}: the guard would not see it")
        elif self._is_head:
            return {**message, "body": b""}
        return message

    def _bound(self, message: Message) -> Message:
        """The message; a response's start names the record of the decision that it is sent under."""
        if message["type"] != "http.response.start" or self.is_held:
            return message
        receipt = self.receipt
        own = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _OURS]
        bound = bound_to(receipt.record_id, receipt.admission.request.trace_id)
        return {**message, "headers": [*own, *bound]}

    def _refuse(self, refusal: Refusal) -> None:
        self._over = refusal
        self._settle(refusal)
        raise refusal

    def _settle(self, error: BaseException | None) -> None:
        """Let the guard go on."""
        turn = self._turn
        if turn is None or turn.done():
            return
        if error is None:
            turn.set_result(None)
        else:
            turn.set_exception(error)
