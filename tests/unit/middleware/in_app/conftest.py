"""A guard that decides as a test says, with an app of the test's behind it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.credential.client import TrustedNetworks
from gateway.delivery.file_answer import Means
from gateway.middleware import GuardMiddleware, caller_route, model_route, unguarded_route
from gateway.middleware.in_app.running import Running
from gateway.model.errors import Reason, Refusal, WithdrawnError
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import WITHDRAWN, Declined, Receipt
from gateway.telemetry import Telemetry
from gateway.transfers import Transfers
from tests import samples

PRINCIPAL = samples.principal()


@dataclass
class Gate:
    """Guard, identity, directory and clock in one; keeps what happened."""

    refusals: list = field(default_factory=list)  # of each decision in order: a reason, or None to admit
    confirmations: list = field(default_factory=list)  # what the last check raises, in order; then nothing
    has_ended: bool = False  # the key, for transfers
    key: Leaf = field(default_factory=lambda: Leaf(b"key", b"1"))
    requests: list = field(default_factory=list)
    rejections: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)

    async def admit(self, request, route):
        self.requests.append(request)
        route.locate(request)
        reason = self.refusals.pop(0) if self.refusals else None
        if reason is not None:
            return Declined(reason=reason, record_id="declined")
        admission = samples.admission(PRINCIPAL, request=request, stamp=Stamp(1, (self.key,)))
        return Receipt(
            record_id=f"record-{len(self.requests)}", admission=admission, on_close=self.outcomes.append
        )

    def confirm(self, receipt, now):
        fault = self.confirmations.pop(0) if self.confirmations else None
        if fault is not None:
            receipt.close(WITHDRAWN)
            raise fault

    async def find_refusal(self, request, credential, action):
        return None

    def is_degraded(self):
        return False

    async def decline(self, rejection):
        self.rejections.append(rejection)
        return Declined(reason=rejection.reason, record_id="declined")

    async def give_up(self, request):
        return Declined(reason=Reason.FACTS_MOVED, record_id="given-up")

    async def reauthenticate(self, stamp, client, now):
        if self.has_ended:
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


@dataclass
class Process:
    """What the middleware asks for its guard."""

    gate: Gate
    now_running: Running | None = None
    fault: Exception | None = None
    happened: list = field(default_factory=list)

    def begin(self):
        transfers = Transfers(identity=self.gate, directory=self.gate, clock=self.gate)
        self.telemetry = Telemetry()
        self.now_running = Running(
            guard=self.gate,
            clock=self.gate,
            telemetry=self.telemetry,
            transfers=transfers,
            trusted_proxies=TrustedNetworks(),
            means=Means(),
        )
        return self

    @asynccontextmanager
    async def running(self):
        if self.fault is not None:
            raise self.fault
        self.happened.append("guard starts")
        self.begin()
        yield
        self.now_running = None
        self.happened.append("guard ends")


ROUTES = [
    unguarded_route("/open"),
    model_route("/m/{model:path}", methods=["GET", "HEAD", "POST"], max_body_bytes=10),
    model_route("/body", model=lambda request: request.body.decode(), max_body_bytes=20),
    caller_route("/me"),
]


class World:
    """One middleware, and what comes out of it."""

    def __init__(self, app, gate=None, **more):
        self.gate = gate or Gate()
        self.process = Process(self.gate).begin()
        self.middleware = GuardMiddleware(app, process=self.process, routes=ROUTES, **more)
        self.sent = []

    async def ask(self, raw_path=b"/m/acme/cars/1", *, method="GET", body=(), **more):
        pieces = list(body)
        headers = [(b"authorization", b"Bearer a-key")]
        if pieces:
            headers.append((b"transfer-encoding", b"chunked"))
        scope = {
            "type": "http",
            "method": method,
            "path": raw_path.decode(),
            "raw_path": raw_path,
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            **more,
        }

        async def receive():
            if not pieces:
                await asyncio.Event().wait()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message):
            self.sent.append(message)

        self.scope = scope
        await self.middleware(scope, receive, send)
        return self

    @property
    def status(self):
        [start] = [one for one in self.sent if one["type"] == "http.response.start"]
        return start["status"]

    @property
    def headers(self):
        return [pair for one in self.sent if one["type"] == "http.response.start" for pair in one["headers"]]

    @property
    def body(self):
        return b"".join(one.get("body", b"") for one in self.sent)


@pytest.fixture
def world():
    return World


@pytest.fixture
def gate():
    return Gate


@pytest.fixture
def process():
    return Process


@pytest.fixture
def withdrawn():
    return WithdrawnError


@pytest.fixture
def anyio_backend():
    return "asyncio"
