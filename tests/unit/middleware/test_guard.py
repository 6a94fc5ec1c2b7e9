"""The guard middleware, with a guard that decides as the test says and an app that may misbehave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.middleware.client_end import NAMES
from gateway.middleware.guard import MAX_ATTEMPTS, METER, RECEIPT, ROUTE, ChokePoint
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.routes import GuardedRoute
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import WITHDRAWN, Declined, Ending, Receipt
from gateway.telemetry import Telemetry, sample
from gateway.transfers import Transfers
from tests import samples

pytestmark = pytest.mark.anyio

PRINCIPAL = samples.principal()
SELF = Resource(kind=ResourceKind.SELF)
FILES = GuardedRoute(
    template="/f",
    methods=("GET", "HEAD"),
    action=Action.READ,
    matches=lambda raw: raw.startswith(b"/f"),
    locate=lambda request: SELF,
)


@dataclass
class Gate:
    """Guard, identity, directory and clock in one; keeps the order of events."""

    answers: list = field(default_factory=list)  # what admit returns, the last again; empty: a receipt
    confirmations: list = field(default_factory=list)  # what confirm raises, in order; then nothing
    key: Leaf = field(default_factory=lambda: Leaf(b"key", b"1"))
    degraded: bool = False
    audit_is_full: bool = False
    key_has_ended: bool = False
    happened: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    declined: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)

    async def admit(self, request, route):
        self.happened.append("admit")
        self.requests.append(request)
        if self.answers:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer
        admission = samples.admission(PRINCIPAL, request=request, stamp=Stamp(1, (self.key,)))
        return Receipt(record_id=f"r{len(self.requests)}", admission=admission, on_close=self.close)

    def close(self, outcome):
        self.happened.append("close")
        self.outcomes.append(outcome)
        if self.audit_is_full:
            raise Unavailable("audit", "full", Reason.NO_AUDIT)

    def confirm(self, receipt, now):
        self.happened.append("confirm")
        fault = self.confirmations.pop(0) if self.confirmations else None
        if fault is not None:
            receipt.close(WITHDRAWN)
            raise fault

    def is_degraded(self):
        return self.degraded

    async def decline(self, rejection):
        self.declined.append(rejection)
        if self.audit_is_full:
            raise Unavailable("audit", "full", Reason.NO_AUDIT)
        return Declined(reason=rejection.reason, record_id="d")

    async def give_up(self, request):
        return Declined(reason=Reason.FACTS_MOVED, record_id="g")

    async def reauthenticate(self, stamp, client, now):
        if self.key_has_ended:
            raise Refusal(Reason.REVOKED_KEY)
        return PRINCIPAL, stamp

    def is_in_time(self, principal, now):
        return True

    def is_fresh(self, degraded_seconds):
        return True

    def verify_fresh(self, degraded_seconds):
        pass

    def now(self):
        return 1.0


async def file_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await send({"type": "http.response.body", "body": b"second"})


@dataclass
class Exchange:
    """One request through the middleware, and all messages that came out."""

    gate: Gate
    app: object = file_app
    sent: list = field(default_factory=list)
    telemetry: Telemetry = field(default_factory=Telemetry)
    aborted: int = 0
    on_send: object = None

    async def __call__(self, method="GET", raw_path=b"/f", **scope):
        transfers = Transfers(identity=self.gate, directory=self.gate, clock=self.gate)
        layer = ChokePoint(
            self.app,
            guard=self.gate,
            routes=[FILES],
            clock=self.gate,
            telemetry=self.telemetry,
            transfers=transfers,
        )
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/lies",
            "raw_path": raw_path,
            "query_string": b"",
            "headers": [],
            "client": ("192.0.2.1", 1234),
            NAMES["abort"]: self.abort,
            **scope,
        }

        async def send(message):
            self.gate.happened.append(message["type"].rsplit(".", 1)[1])
            self.sent.append(message)
            if self.on_send is not None:
                await self.on_send(message)

        await layer(self.scope, None, send)
        return self

    def abort(self):
        self.aborted += 1

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent[1:])


@pytest.fixture
def gate():
    return Gate()


async def test_decide_confirm_send_record_in_this_order(gate):
    exchange = await Exchange(gate)()
    assert gate.happened == ["admit", "confirm", "start", "body", "body", "close"]
    assert (exchange.status, exchange.body) == (200, b"firstsecond")
    [outcome] = gate.outcomes
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 200, 11)
    assert exchange.scope[ROUTE] is FILES
    assert exchange.scope[RECEIPT].record_id == exchange.scope[METER].record_id == "r1"


async def test_room_is_made_before_the_last_check_and_nothing_is_awaited_after_it(gate):
    async def drained():
        gate.happened.append("drained")

    await Exchange(gate)(**{NAMES["drained"]: drained})
    assert gate.happened[:4] == ["admit", "drained", "confirm", "start"]


async def test_an_answer_that_was_overtaken_is_decided_anew(gate):
    gate.confirmations = [WithdrawnError(), WithdrawnError()]
    exchange = await Exchange(gate)()
    assert (exchange.status, exchange.body) == (200, b"firstsecond")
    assert [one.ending for one in gate.outcomes] == [Ending.WITHDRAWN, Ending.WITHDRAWN, Ending.COMPLETE]
    assert exchange.telemetry.counters["cachegate_withdrawn_total"] == 2
    assert exchange.scope[RECEIPT].record_id == "r3"


async def test_facts_that_never_hold_still_are_given_up(gate):
    gate.confirmations = [WithdrawnError() for _ in range(10)]
    exchange = await Exchange(gate)()
    assert exchange.status == 503
    assert exchange.headers[b"cachegate-record"] == b"g"
    assert gate.happened.count("admit") == MAX_ATTEMPTS
    assert [one.ending for one in gate.outcomes] == [Ending.WITHDRAWN] * MAX_ATTEMPTS


async def test_a_lease_that_was_lost_before_the_first_byte_is_a_503_of_the_withdrawn_record(gate):
    gate.confirmations = [Unavailable("redis", "no lease", Reason.NO_LEASE)]
    exchange = await Exchange(gate)()
    assert exchange.status == 503
    assert exchange.headers[b"cachegate-record"] == b"r1"
    assert [one.ending for one in gate.outcomes] == [Ending.WITHDRAWN]
    assert b"firstsecond" not in exchange.body


async def test_what_is_served_on_what_was_last_known_says_so(gate):
    gate.degraded = True
    exchange = await Exchange(gate)()
    assert exchange.headers[b"cachegate-degraded"] == b"last-known-good"
    assert exchange.headers[b"x"] == b"y"
    assert exchange.telemetry.counters["cachegate_degraded_responses_total"] == 1
    gate.degraded = False
    assert b"cachegate-degraded" not in (await Exchange(gate)()).headers


async def test_an_app_that_sends_no_headers_is_served_degraded_too(gate):
    async def bare(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    gate.degraded = True
    exchange = await Exchange(gate, bare)()
    assert (exchange.status, exchange.headers) == (204, {b"cachegate-degraded": b"last-known-good"})


async def test_a_key_that_ends_between_two_steps_ends_the_transfer(gate):
    async def revoke(message):
        if message.get("body") == b"first":
            gate.key.is_current = False
            gate.key_has_ended = True

    exchange = await Exchange(gate, on_send=revoke)()
    assert exchange.body == b"first"
    assert exchange.aborted
    [outcome] = gate.outcomes
    assert (outcome.ending, outcome.bytes_sent) == (Ending.REVOKED, 5)


async def test_an_answer_that_broke_off_is_recorded_as_failed_and_does_not_look_late(gate):
    async def breaking(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a defect of the app")

    exchange = await Exchange(gate, breaking)()
    assert exchange.aborted == 1
    [outcome] = gate.outcomes
    assert (outcome.ending, outcome.bytes_sent) == (Ending.FAILED, 4)
    assert len(exchange.sent) == 2
    assert exchange.telemetry.counters["cachegate_defects_total"] == 1


async def test_a_defect_before_the_first_byte_is_a_500_and_no_more(gate):
    async def broken(scope, receive, send):
        raise RuntimeError("secret-looking text")

    exchange = await Exchange(gate, broken)()
    assert exchange.status == 500
    assert b"secret" not in exchange.body
    assert gate.declined[-1].reason is Reason.INTERNAL
    assert [one.ending for one in gate.outcomes] == [Ending.FAILED]


async def test_an_app_that_sends_nothing_has_its_receipt_closed(gate):
    async def silent(scope, receive, send):
        pass

    await Exchange(gate, silent)()
    assert [(one.ending, one.status) for one in gate.outcomes] == [(Ending.FAILED, 0)]


async def test_a_cancelled_request_has_its_receipt_closed(gate):
    started = asyncio.Event()

    async def hanging(scope, receive, send):
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(Exchange(gate, hanging)())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.ending for one in gate.outcomes] == [Ending.FAILED]


async def test_an_outcome_that_cannot_be_recorded_changes_nothing_about_what_was_sent(gate):
    gate.audit_is_full = True
    exchange = await Exchange(gate)()
    assert (exchange.status, exchange.body) == (200, b"firstsecond")
    assert exchange.telemetry.counters[sample("cachegate_dependency_failures_total", "audit")] == 1


async def test_a_refusal_is_answered_and_the_app_never_called(gate):
    gate.answers = [Declined(reason=Reason.NOT_PERMITTED, record_id="d")]
    exchange = await Exchange(gate, app=None)()
    assert exchange.status == 404
    assert exchange.headers[b"cachegate-record"] == b"d"
    assert gate.happened == ["admit", "start", "body"]


async def test_without_a_record_there_is_no_answer_but_503(gate):
    gate.answers = [Unavailable("audit", "full", Reason.NO_AUDIT)]
    exchange = await Exchange(gate, app=None)()
    assert exchange.status == 503


@pytest.mark.parametrize(
    ("method", "raw_path", "status"), [("GET", b"/elsewhere", 404), ("POST", b"/f", 405), ("GET", b"", 404)]
)
async def test_what_is_not_declared_is_refused_by_its_shape_before_any_key_is_looked_at(
    gate, method, raw_path, status
):
    exchange = await Exchange(gate, app=None)(method=method, raw_path=raw_path)
    assert exchange.status == status
    assert "admit" not in gate.happened
    assert exchange.headers.get(b"allow") == (b"GET, HEAD" if status == 405 else None)


async def test_only_the_raw_path_is_looked_at(gate):
    await Exchange(gate)(raw_path=b"/f%2f..", path="/somewhere/else", root_path="")
    assert gate.requests[0].raw_path == b"/f%2f.."
    assert gate.requests[0].route == "/f"


async def test_a_head_request_gets_a_problem_without_its_body(gate):
    gate.answers = [Declined(reason=Reason.NOT_PERMITTED, record_id="d")]
    exchange = await Exchange(gate, app=None)(method="HEAD")
    assert exchange.body == b""
    assert int(exchange.headers[b"content-length"]) > 0


async def test_other_protocols_do_not_pass():
    sent = []

    async def send(message):
        sent.append(message)

    layer = ChokePoint(None, guard=None, routes=[FILES], clock=None, telemetry=Telemetry(), transfers=None)
    await layer({"type": "websocket"}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_a_layer_that_guards_nothing_does_not_start():
    with pytest.raises(Misconfigured):
        ChokePoint(None, guard=None, routes=[], clock=None, telemetry=None, transfers=None)
