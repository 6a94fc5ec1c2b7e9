"""Immediate answers: small files from memory, sent without the ASGI app.

This does what `GuardMiddleware` and the file endpoint do for the simplest request, in one go and without
waiting: no scope, no task, no application. It is not a second guard. The decision, the record before the
bytes, and the last check before the first byte are the guard's (`admit_now`, `confirm`); the headers come
from delivery's functions. This module only calls them in order.

The requests of one event loop iteration are answered together, at its end.

A request is passed on to the application, with nothing sent, wherever that could answer with anything but
this file as it is: a header that delivery depends on, a query, no remembered pass, nothing in memory, no
lease, no audit. Then the application starts from the beginning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

from gateway.audit.record_fields import secrets_of
from gateway.audit.request_secrets import RequestSecrets
from gateway.credential.client import TrustedNetworks, client_address
from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.headers import Headers, asked_fields, caller_headers
from gateway.middleware.routes import UNROUTED, Routes
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import WireRequest
from gateway.model.errors import Unavailable, WithdrawnError
from gateway.model.verdicts import Ending, HeldFile, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.guard import Guard
    from gateway.model.clocks import Clock
    from gateway.model.routes import GuardedRoute
    from gateway.model.verdicts import Admission, Receipt
    from gateway.telemetry import Telemetry

_OK = 200
_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}
REMEMBERED_HEADS = 4096  # some 300 bytes each
NOBODY = TrustedNetworks()


class TakenRequest(Protocol):
    """A request without a body, as the server's parser reported it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]


class Connection(Protocol):
    """The connection of a request that was taken, until exactly one of `answer` and `pass_on` is called."""

    peer: str | None

    @property
    def may_answer(self) -> bool:
        """Whether it is open and takes what is written."""

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write a whole answer: `head` follows the server's own headers and ends with the empty line."""

    def pass_on(self) -> None:
        """Have the application answer. No-op once closed."""


class ImmediateAnswers:
    """What the server has answer a request before it asks the application. Nothing here raises."""

    def __init__(
        self,
        *,
        guard: Guard,
        routes: Iterable[GuardedRoute],
        clock: Clock,
        seconds: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        telemetry: Telemetry,
        trusted_proxies: TrustedNetworks = NOBODY,
    ) -> None:
        self._guard = guard
        self._routes = Routes(routes)
        self._clock = clock
        self._seconds = seconds  # the clock by which response times are measured, as in the middleware
        self._soon = soon  # schedules a call at the end of the event loop iteration
        self._taken: list[tuple[TakenRequest, Connection, float]] = []
        self._telemetry = telemetry
        self._trusted_proxies = trusted_proxies

    def take(self, request: TakenRequest, connection: Connection) -> None:
        """Answer a request without a body at the end of this event loop iteration, or pass it on."""
        if not self._taken:
            self._soon(self.finish)
        self._taken.append((request, connection, self._seconds()))

    def finish(self) -> None:
        """Answer everything that was taken."""
        taken, self._taken = self._taken, []
        for request, connection, started_at in taken:
            if not (connection.may_answer and self._has_answered(request, connection, started_at)):
                connection.pass_on()

    def _has_answered(self, request: TakenRequest, connection: Connection, started_at: float) -> bool:
        """Answer and record; false, with nothing sent, where the application has to."""
        method, target, headers = request.method, request.target, request.headers
        if b"?" in target or b"#" in target or not target.isascii() or asked_fields(headers):
            return False
        try:
            receipt = self._guard.admit_now(self._read(method, target, headers, connection.peer))
        except Unavailable:
            return False  # the application answers with the right error
        except Exception as defect:  # noqa: BLE001 -- a boundary: it must not get into the server
            self._telemetry.defect(UNROUTED, defect, RequestSecrets(headers, b""))
            return False
        return receipt is not None and self._has_delivered(receipt, started_at, connection)

    def _has_delivered(self, receipt: Receipt, started_at: float, connection: Connection) -> bool:
        """Run the last check and write the whole answer; false when nothing was written."""
        request = receipt.admission.request
        try:
            file = _held(receipt.admission)
            head = _head(request.method, file.size, file.sha256, file.md5 is not None)
            head %= receipt.record_id.encode(), traceparent(request.trace_id)
            body = file.content if request.method == "GET" else b""
            self._guard.confirm(receipt, self._clock.now())
        except WithdrawnError:
            self._telemetry.withdrawn()
            return False
        except Unavailable:
            return False
        except Exception as defect:  # noqa: BLE001 -- as above
            self._telemetry.defect(request.route, defect, secrets_of(request))
            return False
        connection.answer(_OK, head, body)
        self._close(receipt, len(body), started_at)
        return True

    def _close(self, receipt: Receipt, sent: int, started_at: float) -> None:
        """Record the outcome. The answer was sent: whatever fails here must not cause a second one."""
        milliseconds = (self._seconds() - started_at) * 1000
        outcome = Outcome(ending=Ending.COMPLETE, status=_OK, bytes_sent=sent, milliseconds=milliseconds)
        try:
            receipt.close(outcome)
        except Unavailable as failure:
            self._telemetry.failed(failure)  # it cannot be recorded, only logged
        except Exception as defect:  # noqa: BLE001 -- see above
            request = receipt.admission.request
            self._telemetry.defect(request.route, defect, secrets_of(request))
        self._telemetry.served(receipt.admission.request.route, sent)

    def _read(self, method: bytes, target: bytes, headers: Headers, peer: str | None) -> WireRequest:
        """The request, as `GuardMiddleware` reads it."""
        route = self._routes.find(target)
        trace = next((value for name, value in headers if name == b"traceparent"), None)
        return WireRequest(
            method=_METHODS[method],
            raw_path=target,
            query=b"",
            headers=tuple(headers),
            client=client_address(peer, headers, self._trusted_proxies),
            route=route.template if route else UNROUTED,
            trace_id=find_trace_id(trace),
            received_at=self._clock.now(),
        )


def _held(admission: Admission) -> HeldFile:
    if not isinstance(admission.found, HeldFile):
        raise TypeError("what is answered at once is in memory")
    return admission.found


@lru_cache(maxsize=REMEMBERED_HEADS)
def _head(method: str, size: int, sha256: str | None, is_blob: bool) -> bytes:  # noqa: FBT001 -- a cache wants positions
    """The head of every whole answer with this content, without the record id and the trace."""
    plan = plan_delivery(method, (), size=size, sha256=sha256, is_blob=is_blob)
    caller = caller_headers(cast("Receipt", _Placeholder), b"%b")
    lines = [b"%b: %b\r\n" % (name, value) for name, value in (*plan.headers, *caller)]
    return b"".join((*lines, b"\r\n"))


class _Placeholder:
    """Takes the place of a receipt while the head is made. No header of ours has a percent sign."""

    record_id = "%b"
