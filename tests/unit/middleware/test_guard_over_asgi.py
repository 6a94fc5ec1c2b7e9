"""The guard middleware over ASGI: what reaches the app, what is answered, and how receipts are closed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from gateway.credential.client import parse_trusted_networks
from gateway.middleware.guard import (
    MAX_LARGE_FORMS_OF_CLIENT,
    METER,
    RECEIPT,
    ROUTE,
    SMALL_FORM_BYTES,
    ChokePoint,
)
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Unavailable
from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import Declined, Ending, Ordered, Receipt
from gateway.problems import PROBLEMS, UNRECORDED
from gateway.telemetry import Telemetry, sample
from gateway.transfers import ClientGoneError, Transfers
from tests import samples

RECORD = "018f3c1e-7a5b-7c21-9d0e-112233445566"
SELF = Resource(kind=ResourceKind.SELF)
ROUTE_A = GuardedRoute(
    template="/a/{x}",
    methods=("GET", "HEAD"),
    action=Action.READ,
    matches=lambda raw: raw.startswith(b"/a/"),
    locate=lambda request: SELF,
)
PRINCIPAL = samples.principal()


class Clock:
    def now(self):
        return 1_790_000_000.0


@dataclass
class Gate:
    """A guard that admits or refuses as it is told, and keeps the requests."""

    refusal: Reason | None = None
    fault: Exception | None = None
    close_fault: Exception | None = None
    decline_fault: Exception | None = None
    requests: list = field(default_factory=list)
    rejections: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)
    found: object = None

    async def admit(self, request, route):
        self.requests.append((request, route))
        if self.fault:
            raise self.fault
        if self.refusal:
            return Declined(reason=self.refusal, record_id=RECORD)
        admission = samples.admission(PRINCIPAL, request=request, action=route.action, policies=("p",))
        admission = admission if self.found is None else replace(admission, found=self.found)
        return Receipt(record_id=RECORD, admission=admission, on_close=self._close)

    def confirm(self, receipt, now):
        """No fact changes in these tests; `test_guard.py` has those in which one does."""

    def is_degraded(self):
        return False

    def is_fresh(self, degraded_seconds):
        return True

    def is_in_time(self, principal, now):
        return True

    async def decline(self, rejection):
        if self.decline_fault:
            raise self.decline_fault
        self.rejections.append(rejection)
        return Declined(reason=rejection.reason, record_id=RECORD)

    def _close(self, outcome):
        if self.close_fault:
            raise self.close_fault
        self.outcomes.append(outcome)


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})
    await send({"type": "http.response.body", "body": b"lo"})


def ask(gate, app=hello, *, routes=(ROUTE_A,), proxies=(), **scope):
    """One request through the middleware; the messages that came out of it."""
    seen, sent = [], []

    async def behind(inner, receive, send):
        seen.append(inner)
        await app(inner, receive, send)

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    telemetry = Telemetry()
    middleware = ChokePoint(
        behind,
        guard=gate,
        routes=routes,
        clock=Clock(),
        telemetry=telemetry,
        transfers=Transfers(identity=gate, directory=gate, clock=Clock()),
        trusted_proxies=parse_trusted_networks(proxies),
    )
    request = {
        "type": "http",
        "method": "GET",
        "path": "/a/b",
        "raw_path": b"/a/b",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
    } | scope
    asyncio.run(middleware(request, receive, send))
    return Exchange(seen, sent, telemetry.counters)


@dataclass
class Exchange:
    seen: list
    sent: list
    counters: dict

    @property
    def status(self):
        [start] = [one for one in self.sent if one["type"] == "http.response.start"]
        return start["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(one.get("body", b"") for one in self.sent)


class TestWhatReachesTheApp:
    def test_an_admitted_request_with_its_receipt_and_its_route(self):
        gate = Gate()
        exchange = ask(gate)
        [scope] = exchange.seen
        assert scope[RECEIPT].record_id == RECORD
        assert scope[ROUTE] is ROUTE_A
        assert scope[METER].bytes_sent == 5
        assert exchange.body == b"hello"

    @pytest.mark.parametrize("reason", [Reason.NO_CREDENTIAL, Reason.NOT_PERMITTED, Reason.NO_AUDIT])
    def test_no_request_that_was_not_admitted(self, reason):
        exchange = ask(Gate(refusal=reason))
        assert exchange.seen == []
        assert exchange.status == PROBLEMS[reason].status

    def test_no_request_whose_raw_path_the_server_hides(self):
        # The server's decoded path is there and would match; it must not be used.
        gate = Gate()
        exchange = ask(gate, raw_path=None)
        assert (exchange.seen, exchange.status) == ([], 404)
        assert gate.requests == []

    def test_the_raw_path_is_what_is_matched(self):
        gate = Gate()
        assert ask(gate, path="/a/b", raw_path=b"/%61/b").status == 404
        assert ask(gate, path="/elsewhere", raw_path=b"/a/b").status == 200

    @pytest.mark.parametrize(
        ("root", "raw", "expected"),
        [("/mnt", b"/mnt/a/b", b"/a/b"), ("/mnt", b"/mntx/a/b", b"/mntx/a/b"), ("", b"/a/b", b"/a/b")],
    )
    def test_a_mount_point_is_taken_off_as_a_whole_segment(self, root, raw, expected):
        gate = Gate()
        ask(gate, root_path=root, raw_path=raw, routes=[replace(ROUTE_A, matches=lambda raw: True)])
        assert gate.requests[0][0].raw_path == expected

    def test_no_websocket(self):
        exchange = ask(Gate(), type="websocket")
        assert exchange.sent == [{"type": "websocket.close", "code": 1008}]
        assert exchange.seen == []

    def test_the_lifespan_which_is_no_clients(self):
        async def start(scope, receive, send):
            assert scope["type"] == "lifespan"

        assert len(ask(Gate(), start, type="lifespan").seen) == 1


class TestWhatIsRefusedByItsShape:
    @pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "TRACE", "get", "BREW"])
    def test_a_method_that_the_route_does_not_declare(self, method):
        gate = Gate()
        exchange = ask(gate, method=method)
        assert exchange.status == 405
        assert exchange.headers[b"allow"] == b"GET, HEAD"
        assert gate.requests == []
        assert gate.rejections[0].reason is Reason.METHOD_NOT_ALLOWED

    @pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
    def test_a_path_without_a_route_by_any_method(self, method):
        assert ask(Gate(), raw_path=b"/b", method=method).status == 404

    def test_a_target_over_the_limit(self):
        assert ask(Gate(), raw_path=b"/a/" + b"x" * MAX_TARGET_BYTES).status == 414
        assert ask(Gate(), query_string=b"x" * MAX_TARGET_BYTES).status == 414
        assert ask(Gate(), query_string=b"x" * (MAX_TARGET_BYTES - len(b"/a/b"))).status == 200

    def test_headers_over_the_limit(self):
        assert ask(Gate(), headers=[(b"x", b"y" * MAX_HEADER_BYTES)]).status == 431
        assert ask(Gate(), headers=[(b"x", b"")] * (MAX_HEADER_COUNT + 1)).status == 431
        assert ask(Gate(), headers=[(b"x", b"")] * MAX_HEADER_COUNT).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"content-length", b"1")],
            [(b"content-length", b"99999999999999999999")],
            [(b"content-length", b"0x0")],
            [(b"content-length", b"-0")],
            [(b"transfer-encoding", b"chunked")],
            [(b"transfer-encoding", b"identity")],
            [(b"content-length", b"0"), (b"transfer-encoding", b"chunked")],
        ],
    )
    def test_a_body_however_it_is_announced(self, headers):
        assert ask(Gate(), headers=headers).status == 413

    def test_no_body_is_no_body(self):
        assert ask(Gate(), headers=[(b"content-length", b"0")]).status == 200


def _request(headers):
    return samples.wire_request(headers=tuple(headers), client="")


class TestWhatIsAnswered:
    def test_a_refusal_names_its_record_and_nothing_of_the_request(self):
        mark = b"mark-of-the-client"
        exchange = ask(
            Gate(refusal=Reason.NOT_PERMITTED), raw_path=b"/a/" + mark, headers=[(b"user-agent", mark)]
        )
        assert exchange.headers[b"cachegate-record"] == RECORD.encode()
        assert json.loads(exchange.body)["record"] == RECORD
        assert mark not in exchange.body
        assert mark not in b"".join(exchange.headers.values())
        assert exchange.headers[b"cache-control"] == b"no-store"
        assert exchange.headers[b"content-length"] == b"%d" % len(exchange.body)

    def test_head_gets_the_headers_of_get_and_no_body(self):
        get, head = (ask(Gate(refusal=Reason.ABSENT), method=method) for method in ("GET", "HEAD"))
        assert head.body == b""
        without_trace = [
            {name: value for name, value in one.headers.items() if name != b"traceparent"}
            for one in (get, head)
        ]
        assert without_trace[0] == without_trace[1]

    def test_the_callers_trace_goes_on_when_it_is_well_formed(self):
        trace = b"4bf92f3577b34da6a3ce929d0e0e4736"
        header = (b"traceparent", b"00-" + trace + b"-00f067aa0ba902b7-01")
        assert trace in ask(Gate(refusal=Reason.ABSENT), headers=[header]).headers[b"traceparent"]
        assert trace not in ask(Gate(refusal=Reason.ABSENT)).headers[b"traceparent"]

    def test_a_guard_that_cannot_decide_is_a_503_without_a_record(self):
        exchange = ask(Gate(fault=Unavailable("audit", "full", Reason.NO_AUDIT)))
        assert exchange.status == 503
        assert exchange.headers[b"cachegate-record"] == UNRECORDED.encode()
        assert exchange.headers[b"retry-after"] == b"1"

    def test_a_defect_is_a_bland_500_that_is_recorded(self, capsys):
        gate = Gate(fault=KeyError("a secret detail"))
        exchange = ask(gate)
        assert exchange.status == 500
        assert b"secret" not in exchange.body
        assert [one.reason for one in gate.rejections] == [Reason.INTERNAL]
        assert exchange.counters["cachegate_defects_total"] == 1
        assert exchange.seen == []

    def test_a_defect_that_cannot_be_recorded_is_still_a_500(self):
        exchange = ask(Gate(fault=KeyError("x"), decline_fault=Unavailable("audit", "full", Reason.NO_AUDIT)))
        assert exchange.status == 500
        assert exchange.headers[b"cachegate-record"] == UNRECORDED.encode()

    def test_a_refusal_that_cannot_be_recorded_is_a_503(self):
        exchange = ask(Gate(decline_fault=Unavailable("audit", "full", Reason.NO_AUDIT)), method="POST")
        assert exchange.status == 503


class TestWhatIsClosed:
    """The middleware writes the outcome, so an app behind it cannot omit it."""

    def outcome(self, app, **more):
        gate = Gate()
        exchange = ask(gate, app, **more)
        assert len(gate.outcomes) == 1
        return exchange, gate.outcomes[0]

    def test_what_really_went_out(self):
        _, outcome = self.outcome(hello)
        assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 200, 5)

    def test_an_app_that_says_nothing_has_failed(self):
        async def silent(scope, receive, send):
            return

        _, outcome = self.outcome(silent)
        assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.FAILED, 0, 0)

    def test_an_app_that_stops_half_way_has_failed(self):
        async def half(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hel", "more_body": True})

        _, outcome = self.outcome(half)
        assert (outcome.ending, outcome.bytes_sent) == (Ending.FAILED, 3)

    def test_an_app_that_says_why_it_cut_is_believed(self):
        async def cut(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            scope[METER].cut = Ending.CHANGED_ON_DISK

        _, outcome = self.outcome(cut)
        assert outcome.ending is Ending.CHANGED_ON_DISK

    @pytest.mark.parametrize(
        ("fault", "status", "ending"),
        [
            (KeyError("x"), 500, Ending.FAILED),
            (Unavailable("cache", "gone", Reason.CHANGED_ON_DISK), 503, Ending.CHANGED_ON_DISK),
            (Unavailable("redis", "gone"), 503, Ending.FAILED),
        ],
        ids=["defect", "changed", "unavailable"],
    )
    def test_an_app_that_fails_before_its_first_byte_is_answered_for_and_not_complete(
        self, fault, status, ending
    ):
        async def failing(scope, receive, send):
            raise fault

        exchange, outcome = self.outcome(failing)
        assert exchange.status == outcome.status == status
        assert outcome.ending is ending

    def test_a_get_that_asks_about_a_head_is_answered_as_the_get_that_it_is(self):
        class Unwrapping(Gate):
            async def admit(self, request, route):
                return await super().admit(replace(request, method="HEAD"), route)

        async def failing(scope, receive, send):
            raise Unavailable("redis", "gone")

        exchange = ask(Unwrapping(), failing)
        assert (exchange.status, len(exchange.body)) == (503, int(exchange.headers[b"content-length"]))

    @pytest.mark.parametrize(
        "fault", [KeyError("x"), Unavailable("redis", "gone")], ids=["defect", "unavailable"]
    )
    def test_an_app_that_fails_after_its_first_byte_gets_no_second_answer(self, fault):
        async def failing(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise fault

        exchange, outcome = self.outcome(failing)
        assert exchange.status == 200
        assert (outcome.ending, outcome.status) == (Ending.FAILED, 200)

    def test_an_outcome_that_cannot_be_written_changes_nothing_for_the_client(self):
        exchange = ask(Gate(close_fault=Unavailable("audit", "full", Reason.NO_AUDIT)))
        assert exchange.body == b"hello"
        assert exchange.counters[sample("cachegate_dependency_failures_total", "audit")] == 1

    def test_a_request_that_is_given_up_is_closed_as_well(self):
        gate = Gate()

        async def endless(scope, receive, send):
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            ask(gate, endless)
        assert [one.ending for one in gate.outcomes] == [Ending.FAILED]


class TestWhoAsks:
    def client(self, peer, forwarded=None, proxies=()):
        gate = Gate()
        headers = [(b"x-forwarded-for", forwarded)] if forwarded else []
        ask(gate, client=peer, headers=headers, proxies=proxies)
        return gate.requests[0][0].client

    def test_the_peer(self):
        assert self.client(("192.0.2.1", 9)) == "192.0.2.1"

    def test_nobody_else_however_much_it_is_claimed(self):
        assert self.client(("192.0.2.1", 9), b"203.0.113.7") == "192.0.2.1"

    def test_whom_a_trusted_proxy_names(self):
        assert self.client(("192.0.2.1", 9), b"203.0.113.7", ["192.0.2.0/24"]) == "203.0.113.7"


def test_a_change_that_has_begun_is_never_made_again():
    async def changes(scope, receive, send):
        raise ClientGoneError

    exchange = ask(Gate(found=Ordered(answer=None, is_change=True)), changes)
    assert len(exchange.seen) == 1
    assert len(ask(Gate(), changes).seen) > 1  # what changes nothing is decided anew


def test_one_address_takes_no_more_than_its_share_of_the_large_forms():
    large = SMALL_FORM_BYTES + 1
    route = replace(ROUTE_A, methods=("PUT",), form_bytes=large)
    own, other = ("192.0.2.1", 1), ("192.0.2.2", 1)

    async def scenario():
        gate, is_over, reading = Gate(), asyncio.Event(), asyncio.Semaphore(0)
        middleware = ChokePoint(
            hello,
            guard=gate,
            routes=[route],
            clock=Clock(),
            telemetry=Telemetry(),
            transfers=Transfers(identity=gate, directory=gate, clock=Clock()),
        )

        async def slow():
            reading.release()
            await is_over.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def put(client):
            statuses = []

            async def send(message):
                statuses.append(message.get("status"))

            scope = {"type": "http", "method": "PUT", "path": "/a/b", "raw_path": b"/a/b", "headers": []}
            await middleware({**scope, "query_string": b"", "client": client}, slow, send)
            return statuses[0]

        tasks = [asyncio.create_task(put(own)) for _ in range(MAX_LARGE_FORMS_OF_CLIENT)]
        for _ in tasks:
            await reading.acquire()
        assert await put(own) == 503
        tasks.append(asyncio.create_task(put(other)))
        await reading.acquire()
        is_over.set()
        assert await asyncio.gather(*tasks) == [200] * len(tasks)
        assert await put(own) == 200

    asyncio.run(scenario())
