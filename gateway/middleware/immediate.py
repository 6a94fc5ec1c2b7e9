"""Immediate answers: small files from memory, sent from within the server's parser, without the ASGI app.

This does what `GuardMiddleware` and the file endpoint do for the simplest request, in one go and without
waiting: no scope, no task, no application. It is not a second guard. The decision, the record before the
bytes, and the last check before the first byte are the guard's (`admit_now`, `admit_again`, `confirm`); the
headers come from delivery's functions. This module only calls them in order.

Clients that keep a connection often send the same bytes again. The meaning of a request depends on its bytes
and the peer alone, so a known request (`known_requests.py`) is not even parsed. Its answer is promised, and
given at the end of the event loop iteration together with all others of that iteration: their records are
one write, and each is admitted on what is true then. If a promised request cannot be answered like that, it
is parsed and goes to the application, as if it had come only now.

The result is False, with nothing sent, wherever the application could answer with anything but this file as
it is: a header that delivery depends on, a query, no remembered pass, nothing in memory, no lease, no audit.
Then the application is asked, and starts from the beginning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

from gateway.audit.record_fields import secrets_of
from gateway.audit.request_secrets import RequestSecrets
from gateway.credential.client import TrustedNetworks, client_address
from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.headers import Headers, asked_fields, caller_headers
from gateway.middleware.known_requests import KnownRequests, request_key
from gateway.middleware.routes import UNROUTED, Routes
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import WireRequest
from gateway.model.errors import Unavailable, WithdrawnError
from gateway.model.verdicts import Ending, HeldFile, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.guard import Guard
    from gateway.middleware.known_requests import RequestKey
    from gateway.model.clocks import Clock
    from gateway.model.routes import GuardedRoute
    from gateway.model.verdicts import Admission, Receipt
    from gateway.telemetry import Telemetry

    Write = Callable[[bytes, bytes], None]  # the head after the server's own headers, and the body
    Promise = tuple[RequestKey, Admission, float, bytes, "Client"]
    """What was admitted before, when it was asked for, all of the request, and the connection."""

_OK = 200
_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}
REMEMBERED_HEADS = 4096  # some 300 bytes each
NOBODY = TrustedNetworks()


class Client(Protocol):
    """A connection with one request that waits for its answer."""

    @property
    def may_answer(self) -> bool:
        """Whether it is open and takes what is written."""

    @property
    def is_promised(self) -> bool:
        """Whether its request still waits for an answer."""

    def write_now(self, head: bytes, body: bytes) -> None:
        """Write a whole answer."""

    def note_answered(self) -> None:
        """Count the answer that was written."""

    def take_long_way(self, raw_request: bytes) -> None:
        """Parse the request and ask the application, as there is no immediate answer. No-op once closed."""


class ImmediateAnswers:
    """What the server's protocol may ask before it makes a scope. Nothing here raises."""

    def __init__(
        self,
        *,
        guard: Guard,
        routes: Iterable[GuardedRoute],
        clock: Clock,
        seconds: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        telemetry: Telemetry,
        max_bytes: int,
        trusted_proxies: TrustedNetworks = NOBODY,
    ) -> None:
        self._guard = guard
        self._routes = Routes(routes)
        self._clock = clock
        self._seconds = seconds  # the clock by which response times are measured, as in the middleware
        self._soon = soon  # schedules a call at the end of the event loop iteration
        self._promises: list[Promise] = []
        self._telemetry = telemetry
        self._trusted_proxies = trusted_proxies
        self._known = KnownRequests(max_bytes=max_bytes)

    @property
    def memories(self) -> tuple[KnownRequests, ...]:
        """The bounded memories, for the regular sweep."""
        return (self._known,)

    def answer(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        peer: str | None,
        write: Write,
        raw_request: bytes | None = None,
    ) -> bool:
        """Answer and record, or do nothing. `headers` are ASGI pairs; there is no body.

        `raw_request` is all of the request, if it came in one read: then its bytes are known next time.
        """
        started_at = self._seconds()
        if b"?" in target or b"#" in target or not target.isascii() or asked_fields(headers):
            return False
        try:
            receipt = self._guard.admit_now(self._read(method, target, headers, peer))
            if receipt is None:
                return False
            admission = receipt.admission
            if raw_request is not None and admission.request.trace_id is None:
                self._known.learn(request_key(raw_request, peer), admission)
        except Unavailable:
            return False  # the application answers with the right error
        except Exception as defect:  # noqa: BLE001 -- a boundary: it must not get into the parser
            self._telemetry.defect(UNROUTED, defect, RequestSecrets(headers, b""))
            return False
        return self._has_delivered(receipt, started_at, write)

    def promise(self, raw_request: bytes, peer: str | None, to: Client) -> bool:
        """Whether these bytes are a request that `answer` knows; if so, it is answered by `keep`."""
        key = request_key(raw_request, peer)
        admission = self._known.peek(key)
        if admission is None:
            return False
        if not self._promises:
            self._soon(self.keep)
        self._promises.append((key, admission, self._seconds(), raw_request, to))
        return True

    def keep(self) -> None:
        """Answer all promised requests."""
        promises, self._promises = self._promises, []
        kept = [promise for promise in promises if promise[-1].may_answer]
        receipts = self._admit_again([admission for _, admission, *_ in kept])
        for receipt, (key, _, started_at, raw_request, to) in zip(receipts, kept, strict=True):
            if receipt is not None and self._has_delivered(receipt, started_at, to.write_now):
                to.note_answered()
            else:
                self._known.drop(key)
                to.take_long_way(raw_request)
        if len(kept) < len(promises):
            for *_, raw_request, to in promises:
                if to.is_promised:
                    to.take_long_way(raw_request)

    def _admit_again(self, admissions: list[Admission]) -> list[Receipt | None]:
        try:
            return self._guard.admit_again(admissions, self._clock.now())
        except Unavailable:
            pass  # the application answers with the right error
        except Exception as defect:  # noqa: BLE001 -- a boundary: each of them still gets its answer
            self._telemetry.defect(UNROUTED, defect)
        return [None] * len(admissions)

    def _has_delivered(self, receipt: Receipt, started_at: float, write: Write) -> bool:
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
        write(head, body)
        self._finish(receipt, len(body), started_at)
        return True

    def _finish(self, receipt: Receipt, sent: int, started_at: float) -> None:
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
