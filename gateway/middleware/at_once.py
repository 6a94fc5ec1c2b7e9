"""Answers from within the server's parser: no ASGI scope, nothing to wait for.

It takes requests without a body from the server (`model/at_once.py`), and answers all that came in one
iteration of the event loop together, at its end:

    weigh each  ─▶  record all of them in one write  ─▶  for each: make the answer, last check, write

Where the log waits for the disk (`durability = power`), the second half follows once their group is synced:
the last check stands behind the wait, directly before the first byte, in either case.

It is not a second guard. The decision is the guard's (`weigh_now`, which is the pipeline that `admit` runs),
so are the record before the bytes and the last check before the first byte; the answers are made by the
faces' functions, as for the application. This module only calls them in order. What would have to wait for
something (a key or a decision that is not in memory, a file that is not known), and whatever cannot be
recorded or confirmed, is passed on to the application, which begins from the start.

A known file that is too large for memory is opened while its request is weighed. The server sends its bytes
after the last check, and more of them later where the client takes them slowly: then the transfer is watched
like any other (`transfers.py`), and its outcome is recorded at its end.

What was seen on disk is shared by the requests of one iteration, and never kept for the next.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.audit.record_fields import secrets_of
from gateway.audit.request_secrets import RequestSecrets
from gateway.credential.client import Peer, TrustedNetworks
from gateway.delivery.file_body import ending_of
from gateway.delivery.steps import INLINE_BYTES, read_exactly
from gateway.delivery.unchanged import CutError, unsent, verify_unchanged
from gateway.middleware.refusing import answer_refused
from gateway.middleware.routes import UNROUTED, Routes
from gateway.middleware.shape import refusal_of_bodiless
from gateway.middleware.trace import find_trace_id, traceparent
from gateway.model.access import WireRequest
from gateway.model.answers import Answer, FileParts, Span
from gateway.model.at_once import FileBody
from gateway.model.errors import Reason, Unavailable, WithdrawnError
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import WITHDRAWN, Admission, Declined, Ending, Outcome, Receipt, Rejection
from gateway.problems import problem_of
from gateway.resource.disk_checks import SeenOnDisk
from gateway.transfers import ClientEnd

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Iterable

    from gateway.guard import Guard
    from gateway.middleware.routes import Declared
    from gateway.model.at_once import ClientConnection, Request
    from gateway.model.clocks import Clock
    from gateway.telemetry import AnsweredAtOnce, Telemetry
    from gateway.transfers import Transfer, Transfers

_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}
NOBODY = TrustedNetworks()


class _Taken:
    """One request of this iteration, and what it came to so far."""

    __slots__ = ("client", "request", "route", "started_at")

    def __init__(
        self, request: WireRequest, route: GuardedRoute | None, client: ClientConnection, started_at: float
    ) -> None:
        self.request = request
        self.route = route
        self.client = client
        self.started_at = started_at


_Weighed = tuple[_Taken, Admission | Rejection]
"""A request, and what the guard decided."""


class SynchronousCore:
    """What the server asks before it makes a scope. Nothing here raises."""

    def __init__(
        self,
        *,
        guard: Guard,
        routes: Iterable[Declared],
        clock: Clock,
        seconds: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        telemetry: Telemetry,
        transfers: Transfers,
        trusted_proxies: TrustedNetworks = NOBODY,
        unguarded: frozenset[bytes] = frozenset(),
    ) -> None:
        """`unguarded` are paths that the application answers before the guard."""
        self._guard = guard
        self._routes = Routes(routes)
        self._clock = clock
        self._seconds = seconds  # the clock by which response times are measured, as in the middleware
        self._soon = soon  # schedules a call at the end of the event loop iteration
        self._telemetry = telemetry
        self._transfers = transfers
        self._trusted_proxies = trusted_proxies
        self._unguarded = unguarded
        self._taken: list[tuple[Request, ClientConnection, float]] = []

    def take(self, request: Request, client: ClientConnection) -> None:
        """Take a request; it is answered or passed on by `finish`."""
        if not self._taken:
            self._soon(self.finish)
        self._taken.append((request, client, self._seconds()))

    def finish(self) -> None:
        """Answer everything that was taken."""
        taken, self._taken = self._taken, []
        if not taken:
            return
        weighed: list[_Weighed] = []
        looks, now = SeenOnDisk(), self._clock.now()
        is_leased = not self._guard.is_degraded()
        for parsed, client, started_at in taken:
            one = self._weigh(parsed, client, started_at, looks, now) if is_leased else None
            if one is None:
                client.pass_on()
            elif not client.may_answer:
                _release(one[1])
                client.pass_on()
            else:
                weighed.append(one)
        if weighed:
            self._answer(weighed)

    def _weigh(
        self, parsed: Request, client: ClientConnection, started_at: float, looks: SeenOnDisk, now: float
    ) -> tuple[_Taken, Admission | Rejection] | None:
        """What the guard decides without waiting; None where the application has to be asked."""
        route: Declared | None = None
        try:
            raw_path, _, query = parsed.target.partition(b"?")
            if raw_path in self._unguarded:
                return None
            route = self._routes.find(raw_path)
            if route is not None and (
                type(route) is not GuardedRoute
                or route.answer is None
                or route.form_bytes
                or route.body_bytes
            ):
                return None
            request = self._read(parsed, raw_path, query, route, client, now)
            taken = _Taken(request, route, client, started_at)
            reason = refusal_of_bodiless(request, route)
            if reason is not None or route is None:
                return taken, Rejection(request=request, reason=reason or Reason.NO_ROUTE)
            weighed = self._guard.weigh_now(request, route, looks, may_open=client.sends_files)
            if isinstance(weighed, Admission):
                return taken, weighed
            is_undecided = weighed is not None and problem_of(weighed.reason, "").is_undecided
        except Exception as defect:  # noqa: BLE001 -- a boundary: it must not get into the server
            secrets = RequestSecrets(parsed.headers, parsed.target.partition(b"?")[2])
            self._telemetry.defect(UNROUTED, defect, secrets)
            return None
        return None if weighed is None or is_undecided else (taken, weighed)

    def _answer(self, weighed: list[_Weighed]) -> None:
        """Record all of it in one write, then answer one after the other."""
        try:
            recorded = self._guard.record_all([one for _, one in weighed])
        except Exception as error:  # noqa: BLE001 -- each of them still gets its answer, from the application
            self._pass_on(weighed, error)
            return
        if isinstance(recorded, list):
            self._send(weighed, recorded)
        else:  # the disk is waited for elsewhere
            recorded.add_done_callback(partial(self._send_later, weighed))

    def _send_later(self, weighed: list[_Weighed], recording: Future[list[Receipt | Declined]]) -> None:
        """The same once all of it is on the disk. Meanwhile a client may have gone, or the lease."""
        failure = recording.exception()
        if failure is not None:
            self._pass_on(weighed, failure)
            return
        still: list[tuple[_Weighed, Receipt | Declined]] = []
        is_degraded = self._guard.is_degraded()  # the application's answers say so
        for one, result in zip(weighed, recording.result(), strict=True):
            client = one[0].client
            if client.may_answer and not is_degraded:
                still.append((one, result))
                continue
            if isinstance(result, Receipt):
                result.close(WITHDRAWN)
            client.pass_on()  # does nothing where the client has gone
        self._send([one for one, _ in still], [result for _, result in still])

    def _pass_on(self, weighed: list[_Weighed], failure: BaseException) -> None:
        """Have the application answer what could not be recorded: it tries again, and says why not."""
        if isinstance(failure, Exception) and not isinstance(failure, Unavailable):
            secrets = _secrets_of_all(taken.request for taken, _ in weighed)
            self._telemetry.defect(UNROUTED, failure, secrets)
        for taken, _ in weighed:
            taken.client.pass_on()

    def _send(self, weighed: list[_Weighed], recorded: list[Receipt | Declined]) -> None:
        """Answer what is recorded, each after its last check."""
        answered: list[AnsweredAtOnce] = []
        for (taken, _), one in zip(weighed, recorded, strict=True):
            sent = self._decline(taken, one) if isinstance(one, Declined) else self._deliver(taken, one)
            if sent is None:
                taken.client.pass_on()
            else:
                answered.append(sent)
        self._telemetry.answered_at_once(answered, self._seconds())

    def _decline(self, taken: _Taken, declined: Declined) -> AnsweredAtOnce:
        request, route = taken.request, taken.route
        answer = answer_refused(declined, request, route)
        sent = _write(taken, answer, declined.record_id)
        return request.route, declined.reason, answer.status, sent, taken.started_at

    def _deliver(self, taken: _Taken, receipt: Receipt) -> AnsweredAtOnce | None:
        """Make the answer, run the last check and write it; None when nothing was written."""
        request, route = taken.request, taken.route
        try:
            answer = _made(route, receipt)
            self._guard.confirm(receipt, self._clock.now())
        except WithdrawnError:
            self._telemetry.withdrawn()
            return None
        except Unavailable:
            receipt.close(WITHDRAWN)
            return None
        except Exception as defect:  # noqa: BLE001 -- as above
            receipt.close(Outcome(ending=Ending.FAILED, status=0, bytes_sent=0, milliseconds=0.0))
            self._telemetry.defect(request.route, defect, secrets_of(request))
            return None
        if isinstance(answer.body, FileParts):
            self._send_file(taken, receipt, answer.status, answer.headers.block, answer.body)
            # The bytes are counted as it ends.
            return request.route, Reason.PERMITTED, answer.status, 0, taken.started_at
        sent = _write(taken, answer, receipt.record_id)
        self._close(taken, receipt, answer.status, sent, answer.ending or Ending.COMPLETE)
        return request.route, Reason.PERMITTED, answer.status, sent, taken.started_at

    def _send_file(
        self, taken: _Taken, receipt: Receipt, status: int, block: bytes, parts: FileParts
    ) -> None:
        """Have the server send a file. What is not sent at once is watched, as every transfer is."""
        client = taken.client
        transfer: Transfer | None = None

        def watch() -> Transfer:
            nonlocal transfer
            transfer = self._transfers.begin(receipt, ClientEnd(abort=client.abort))
            return transfer

        def end(sent: int, error: BaseException | None) -> None:
            cut = None
            if transfer is not None:
                self._transfers.end(transfer)
                cut = transfer.cut if error is not None else None
            ending = cut or ending_of(error)
            is_foreseen = ending is not Ending.FAILED or isinstance(error, CutError | OSError)
            if isinstance(error, Exception) and not is_foreseen:
                self._telemetry.defect(taken.request.route, error, secrets_of(taken.request))
            self._telemetry.sent(sent)
            self._close(taken, receipt, status, sent, ending)

        body = FileBody(
            file=parts.file.descriptor,
            pieces=parts.pieces,
            verify=partial(verify_unchanged, parts.file),
            watch=watch,
            on_end=end,
        )
        client.answer_with_file(status, _head(taken, block, receipt.record_id), body)

    def _close(self, taken: _Taken, receipt: Receipt, status: int, sent: int, ending: Ending) -> None:
        """Record the outcome. The answer was sent: whatever fails here must not cause a second one."""
        milliseconds = (self._seconds() - taken.started_at) * 1000
        outcome = Outcome(ending=ending, status=status, bytes_sent=sent, milliseconds=milliseconds)
        try:
            receipt.close(outcome)
        except Unavailable as failure:
            self._telemetry.failed(failure)  # it cannot be recorded, only logged
        except Exception as defect:  # noqa: BLE001 -- see above
            self._telemetry.defect(taken.request.route, defect, secrets_of(taken.request))

    def _read(
        self,
        parsed: Request,
        raw_path: bytes,
        query: bytes,
        route: GuardedRoute | None,
        client: ClientConnection,
        now: float,
    ) -> WireRequest:
        """The request, as `ChokePoint` reads it."""
        headers, peer = parsed.headers, client.memo
        if not isinstance(peer, Peer):
            peer = client.memo = Peer(client.peer, self._trusted_proxies)
        fields = parsed.fields
        if fields is None:  # the first trace, if there are several
            trace, address = dict(reversed(headers)).get(b"traceparent"), peer.client(headers)
        else:
            trace, address = fields.get(b"traceparent"), peer.named_by(fields.get(b"x-forwarded-for"))
        return WireRequest(
            method=_METHODS[parsed.method],
            raw_path=raw_path,
            query=query,
            headers=tuple(headers),
            client=address,
            route=route.template if route is not None else UNROUTED,
            trace_id=None if trace is None else find_trace_id(trace),
            received_at=now,
            fields=fields,
            is_of_proxy=peer.is_believed,
        )


def _secrets_of_all(requests: Iterable[WireRequest]) -> RequestSecrets:
    """The secrets of several requests: a defect of what they have in common may tell of any of them."""
    all_of_them = tuple(requests)
    headers = [header for one in all_of_them for header in one.headers]
    return RequestSecrets(headers, b"&".join([one.query for one in all_of_them]))


def _made(route: GuardedRoute | None, receipt: Receipt) -> Answer:
    """The answer; what is short is read from its file here. Raises `Unavailable` where it cannot be."""
    answer = None if route is None or route.answer is None else route.answer(receipt)
    if not isinstance(answer, Answer) or not isinstance(answer.body, bytes | FileParts):
        raise TypeError("what is answered at once is in memory, or in a file")
    if isinstance(answer.body, FileParts) and answer.body.length <= INLINE_BYTES:
        return Answer(answer.status, answer.headers, _read_whole(answer.body), answer.ending)
    return answer


def _read_whole(parts: FileParts) -> bytes:
    try:
        content = b"".join(
            [read_exactly(parts.file, one) if isinstance(one, Span) else one for one in parts.pieces]
        )
        verify_unchanged(parts.file)
    except CutError as cut:
        raise unsent(parts.file, cut) from cut
    return content


def _release(weighed: Admission | Rejection) -> None:
    """Close the file of an admission that is not recorded."""
    if isinstance(weighed, Admission):
        weighed.release()


def _write(taken: _Taken, answer: Answer, record_id: str) -> int:
    """Write a whole answer; how many bytes its body has."""
    body = answer.body if taken.request.method == "GET" and isinstance(answer.body, bytes) else b""
    taken.client.answer(answer.status, _head(taken, answer.headers.block, record_id), body)
    return len(body)


def _head(taken: _Taken, block: bytes, record_id: str) -> bytes:
    """The header lines of an answer, with what binds it to its record."""
    trace = traceparent(taken.request.trace_id)
    return b"%bcachegate-record: %b\r\ntraceparent: %b\r\n\r\n" % (block, record_id.encode(), trace)
