"""Answers without waiting: the real guard over stages in memory, and connections that keep their answers."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway.credential.client import TrustedNetworks, parse_trusted_networks
from gateway.decisions import Judgement
from gateway.delivery.steps import INLINE_BYTES
from gateway.delivery.unchanged import CutError
from gateway.faces.route import FaceRoute
from gateway.guard import Guard
from gateway.middleware.at_once import SynchronousCore
from gateway.middleware.guard import ChokePoint
from gateway.model.access import Action, Principal, Resource, ResourceKind
from gateway.model.answers import Answer, FileParts, Span, Streamed
from gateway.model.at_once import Request
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Facts, KeyKind, PolicySet, Scope
from gateway.model.header_block import Headers
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.pins import identity_of
from gateway.model.routes import GuardedRoute, HookRoute
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied, Ending, HeldFile, OpenFile, Receipt, Rejection
from gateway.problems import problem_of
from gateway.request_times import LABELS
from gateway.telemetry import Telemetry, sample
from gateway.transfers import Transfers

MODEL = ModelId("acme/cars/1")
FILE = Resource(kind=ResourceKind.FILE, model=MODEL, package=PackageId("p"), file=FileHandle("f.bin"))
PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset({Scope.READ}),
    expires_at=None,
)
POLICY = PolicySet(schema="", policies=(), digest="d")
KEY = (b"authorization", b"Bearer opaque-key-of-somebody")
HELD = HeldFile(
    descriptor=-1,
    size=7,
    identity=(1, 2, 3, 4, 5),
    model=MODEL,
    package=PackageId("p"),
    handle=FileHandle("f.bin"),
    md5=None,
    sha256="1" * 64,
    content=b"weights",
    headers=Headers.of((b"content-length", b"7"), (b"etag", b'"e"')),
)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def locate(request):
    if request.raw_path.endswith(b"/bad"):
        raise Refusal(Reason.MALFORMED_PATH)
    return FILE


def answer_held(receipt):
    return Answer(200, receipt.admission.found.headers, receipt.admission.found.content)


async def take(request, body):
    raise AssertionError("no hook is called at once")


FILES = GuardedRoute(
    template="/f/{file}",
    methods=("GET", "HEAD"),
    action=Action.READ,
    matches=lambda raw: raw.startswith(b"/f/"),
    locate=locate,
    answer=answer_held,
)
ONLY_GET = replace(FILES, template="/get", methods=("GET",), matches=lambda raw: raw == b"/get")
UNANSWERED = replace(FILES, template="/foreign", matches=lambda raw: raw == b"/foreign", answer=None)
HOOK = HookRoute(
    template="/hook", methods=("GET",), max_body_bytes=9, matches=lambda raw: raw == b"/hook", take=take
)


@dataclass
class World:
    """All stages of the guard in one, and what happened, in order."""

    knows_caller: bool = True
    knows_decision: bool = True
    found: HeldFile | None = HELD
    verdict: object = None
    is_leased_now: bool = True
    principal: Principal = PRINCIPAL
    caller_error: Exception | None = None
    fresh_error: Exception | None = None
    audit_error: Exception | None = None
    outcome_error: Exception | None = None
    leaf: Leaf = field(default_factory=lambda: Leaf(b"key", b"1"))
    happened: list = field(default_factory=list)
    recorded: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)
    clients: list = field(default_factory=list)
    on_record: object = None
    check_errors: list = field(default_factory=list)
    time: float = 1.0

    def guard(self):
        return Guard(identity=self, directory=self, decisions=self, authorized_files=self, recorder=self)

    # identity and decisions, in memory and with waiting

    def recall(self, *asked):
        if len(asked) == 3:
            self.clients.append(asked[1])
            self.happened.append("weigh")
            if self.caller_error:
                raise self.caller_error
            return (self.principal, self.stamp) if self.knows_caller else None
        return self.judge(*asked) if self.knows_decision else None

    async def authenticate(self, credential, client, now):
        return self.principal, self.stamp

    async def reach(self, access):
        return self.judge(access)

    def judge(self, access):
        stamp = self.stamp
        facts = Facts(
            grants=(),
            requested=MODEL,
            model=MODEL,
            requested_standing=None,
            model_standing=None,
            policy=POLICY,
            stamp=stamp,
        )
        allowed = Allowed(access=access, model=MODEL, policies=("p",), grant="owner", stamp=stamp)
        return Judgement(self.verdict or allowed, facts)

    @property
    def stamp(self):
        return Stamp(1, (self.leaf,))

    def is_in_time(self, principal, now):
        return True

    # the directory

    def is_leased(self):
        return self.is_leased_now

    def is_fresh(self, degraded_seconds):
        return True

    def verify_fresh(self, degraded_seconds):
        if self.fresh_error:
            raise self.fresh_error

    def still_true(self, stamp, degraded_seconds):
        self.happened.append("check")
        if self.check_errors and (error := self.check_errors.pop(0)):
            raise error
        return stamp.is_current

    # the caches

    def reason_now(self, denied):
        return denied.reason

    def find_now(self, allowed, looks, *, needs_content, may_open=False):
        return None if self.found is None else (self.found, allowed.stamp)

    async def find(self, allowed):
        if self.found is None:
            raise Refusal(Reason.ABSENT)
        return self.found, allowed.stamp

    # the recorder

    def record_all(self, weighed):
        self.happened.append(f"record {len(weighed)}")
        if self.audit_error:
            raise self.audit_error
        recorded = [self._record(one) for one in weighed]
        if self.on_record:
            self.on_record()
        return recorded

    def _record(self, one):
        self.recorded.append(one)
        record_id = f"{len(self.recorded):036d}"
        return record_id if isinstance(one, Rejection) else self._receipt(record_id, one)

    def _receipt(self, record_id, admission):
        def close(outcome):
            self.outcomes.append(outcome)
            if self.outcome_error:
                raise self.outcome_error

        return Receipt(record_id=record_id, admission=admission, on_close=close)

    def admit(self, admission):
        return self._record(admission)

    def reject(self, rejection):
        return self._record(rejection)

    # the clock

    def now(self):
        return self.time

    def monotonic(self):
        self.time += 0.25
        return self.time


@dataclass
class Client:
    """A connection as the server offers it."""

    happened: list
    peer: str | None = "192.0.2.1"
    memo: object = None
    may_answer: bool = True
    sends_files: bool = False
    answers: list = field(default_factory=list)
    passed_on: int = 0

    def answer(self, status, head, body):
        assert self.may_answer
        self.happened.append("write")
        self.answers.append((status, head, body))

    def answer_with_file(self, status, head, body):
        assert self.may_answer
        self.happened.append("send")
        self.answers.append((status, head, body))

    def abort(self):
        self.happened.append("abort")

    def pass_on(self):
        self.happened.append("pass on")
        self.passed_on += 1


def request(target=b"/f/x", *headers, method=b"GET"):
    return Request(method, target, [KEY, *headers])


class Core:
    """What is tested, over a world; `soon` is called by the test."""

    def __init__(self, world, *, routes=(FILES, ONLY_GET, UNANSWERED, HOOK), **options):
        self.world = world
        self.telemetry = Telemetry()
        self.scheduled = []
        self.transfers = Transfers(identity=world, directory=world, clock=world)
        self.routes = routes
        self.at_once = SynchronousCore(
            guard=world.guard(),
            routes=routes,
            clock=world,
            seconds=world.monotonic,
            soon=self.scheduled.append,
            telemetry=self.telemetry,
            transfers=self.transfers,
            **options,
        )

    def client(self, **how):
        return Client(self.world.happened, **how)

    def answer(self, *requests, clients=None):
        """Take all of these requests in one iteration, and finish it; the connections."""
        clients = clients or [self.client() for _ in requests]
        for one, client in zip(requests, clients, strict=True):
            self.at_once.take(one, client)
        [finish] = self.scheduled
        self.scheduled.clear()
        finish()
        return clients

    @property
    def defects(self):
        return self.telemetry.counters["cachegate_defects_total"]

    def over_asgi(self, one):
        """The same request through the application: status, headers and body."""
        transfers = Transfers(identity=self.world, directory=self.world, clock=self.world)
        guarded = [one for one in self.routes if isinstance(one, GuardedRoute) and one.answer]
        layer = Middleware(
            ChokePoint,
            guard=self.world.guard(),
            routes=guarded,
            clock=self.world,
            telemetry=Telemetry(),
            transfers=transfers,
        )
        app = Starlette(routes=[FaceRoute(route) for route in guarded], middleware=[layer])
        path, _, query = one.target.partition(b"?")
        scope = {
            "type": "http",
            "method": one.method.decode(),
            "path": path.decode(),
            "raw_path": path,
            "query_string": query,
            "headers": one.headers,
            "client": ("192.0.2.1", 1),
        }
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            await asyncio.Event().wait()

        asyncio.run(app(scope, receive, send))
        head = b"".join(b"%b: %b\r\n" % pair for pair in sent[0]["headers"]) + b"\r\n"
        return sent[0]["status"], head, b"".join(one["body"] for one in sent[1:])


@pytest.fixture
def world():
    return World()


@pytest.fixture
def core(world):
    return Core(world)


def fields(head):
    lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


def comparable(answer):
    """An answer without what is never the same twice."""
    status, head, body = answer
    assert head.endswith(b"\r\n\r\n")
    record = fields(head)["cachegate-record"].encode()
    varying = b"traceparent: " + fields(head)["traceparent"].encode()
    return status, head.replace(varying, b"T").replace(record, b"R"), body.replace(record, b"R")


def test_all_are_weighed_then_recorded_in_one_write_then_checked_and_written_one_after_the_other(core, world):
    clients = core.answer(*[request()] * 3)
    assert world.happened == ["weigh"] * 3 + ["record 3"] + ["check", "write"] * 3
    assert [[answer[0] for answer in client.answers] for client in clients] == [[200]] * 3


def test_each_answer_names_its_own_record(core, world):
    clients = core.answer(request(), request(b"/nowhere"), request())
    named = [fields(client.answers[0][1])["cachegate-record"] for client in clients]
    assert named == [f"{number:036d}" for number in (1, 2, 3)]
    assert [isinstance(one, Rejection) for one in world.recorded] == [False, True, False]


def test_requests_of_one_iteration_schedule_one_finish_and_those_of_the_next_another(core):
    core.answer(request(), request())
    core.answer(request())
    core.at_once.finish()  # nothing is taken: nothing happens
    assert core.world.happened.count("write") == 3


def test_a_server_that_stops_has_everything_answered_once(core):
    client = core.client()
    core.at_once.take(request(), client)
    core.at_once.finish()
    core.scheduled[0]()
    assert (len(client.answers), client.passed_on) == (1, 0)


def test_what_a_connection_asks_next_while_it_is_answered_waits_for_the_next_iteration(core, world):
    class Eager(Client):
        def answer(self, status, head, body):
            super().answer(status, head, body)
            if len(self.answers) == 1:
                core.at_once.take(request(), self)

    client = Eager(world.happened)
    core.answer(request(), clients=[client])
    assert len(client.answers) == 1
    [finish] = core.scheduled
    finish()
    assert world.happened == ["weigh", "record 1", "check", "write"] * 2


@pytest.mark.parametrize(
    "missing", [{"knows_caller": False}, {"knows_decision": False}, {"found": None}], ids=str
)
def test_what_is_not_in_memory_is_passed_on_and_nothing_recorded(missing, world):
    core = Core(replace_world(world, missing))
    [client] = core.answer(request())
    assert (client.passed_on, client.answers, world.recorded) == (1, [], [])
    assert core.defects == 0
    assert not [name for name in core.telemetry.counters if "decisions" in name]
    gc.collect()  # nothing was begun that is left: it would warn


def replace_world(world, changes):
    for name, value in changes.items():
        setattr(world, name, value)
    return world


def test_one_that_is_passed_on_takes_no_other_with_it(core, world):
    others = core.answer(request(), request(b"/hook"), request())
    assert [client.passed_on for client in others] == [0, 1, 0]
    assert world.happened.count("record 2") == 1


def test_without_a_lease_all_are_passed_on_and_nothing_is_weighed(core, world):
    world.is_leased_now = False
    clients = core.answer(request(), request(b"/nowhere"))
    assert world.happened == ["pass on"] * 2
    assert [client.passed_on for client in clients] == [1, 1]
    assert world.recorded == []


@pytest.mark.parametrize("reason", [Reason.NO_LEASE, Reason.NO_FACTS, Reason.NO_POLICY])
def test_what_could_not_be_decided_is_passed_on_and_not_recorded(reason, core, world):
    world.fresh_error = Unavailable("redis", "gone", reason)
    [client] = core.answer(request())
    assert (client.passed_on, client.answers, world.recorded) == (1, [], [])


def test_without_a_record_nothing_is_sent_and_all_are_passed_on(core, world):
    world.audit_error = Unavailable("audit", "full", Reason.NO_AUDIT)
    clients = core.answer(request(), request(b"/nowhere"))
    assert [(client.passed_on, client.answers) for client in clients] == [(1, []), (1, [])]
    assert core.defects == 0


def test_a_defect_of_the_recorder_sends_nothing_and_is_logged(core, world):
    world.audit_error = RuntimeError("a defect")
    clients = core.answer(request(), request())
    assert [(client.passed_on, client.answers) for client in clients] == [(1, []), (1, [])]
    assert core.defects == 1


def test_what_changes_between_its_record_and_the_last_check_is_withdrawn_and_passed_on(core, world):
    world.on_record = lambda: setattr(world.leaf, "is_current", False)
    [client] = core.answer(request())
    assert (client.passed_on, client.answers) == (1, [])
    assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]
    assert core.telemetry.counters["cachegate_withdrawn_total"] == 1
    assert core.telemetry.counters["cachegate_answers_at_once_total"] == 0


def test_a_key_that_expires_between_its_record_and_the_last_check_gets_nothing(core, world):
    world.principal = replace(PRINCIPAL, expires_at=5.0)
    world.on_record = lambda: setattr(world, "time", 5.0)
    [client] = core.answer(request())
    assert (client.passed_on, client.answers) == (1, [])
    assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]


def test_a_lease_that_is_lost_before_the_last_check_sends_nothing(core, world):
    world.check_errors = [Unavailable("redis", "no lease", Reason.NO_LEASE)]
    first, second = core.answer(request(), request())
    assert (first.passed_on, first.answers) == (1, [])
    assert len(second.answers) == 1  # each has a check of its own
    assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN, Ending.COMPLETE]


def test_a_client_that_left_or_takes_nothing_is_passed_on_and_nothing_recorded(core, world):
    [client] = core.answer(request(), clients=[core.client(may_answer=False)])
    assert (client.passed_on, world.recorded) == (1, [])


def faulty_answer(receipt):
    raise RuntimeError("a defect of a face")


def answer_stream(receipt):
    return Answer(200, HELD.headers, Streamed(pieces=None, length=7, close=None, ending=Ending.RELAYED))


async def answer_later(receipt):
    raise AssertionError("nothing is awaited at once")


def answer_awaitable(receipt):
    later = answer_later(receipt)
    later.close()
    return later


@pytest.mark.parametrize("face", [faulty_answer, answer_stream, answer_awaitable])
def test_a_defect_of_a_face_is_logged_and_passed_on_and_gets_no_further(face, world):
    core = Core(world, routes=[replace(FILES, answer=face)])
    [client] = core.answer(request())
    assert (client.passed_on, client.answers) == (1, [])
    assert [(one.ending, one.bytes_sent) for one in world.outcomes] == [(Ending.FAILED, 0)]
    assert core.defects == 1


def test_a_face_that_cannot_answer_now_sends_nothing_and_is_no_defect(world):
    def unavailable(receipt):
        raise Unavailable("cache", "changed", Reason.CHANGED_ON_DISK)

    core = Core(world, routes=[replace(FILES, answer=unavailable)])
    [client] = core.answer(request())
    assert (client.passed_on, client.answers, core.defects) == (1, [], 0)
    assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]


def test_a_defect_takes_no_other_request_with_it(world):
    faulty = replace(ONLY_GET, answer=faulty_answer)
    core = Core(world, routes=[FILES, faulty])
    clients = core.answer(request(), request(b"/get"), request())
    assert [len(client.answers) for client in clients] == [1, 0, 1]


def test_a_defect_of_the_guard_is_logged_and_passed_on_and_nothing_recorded(core, world):
    world.caller_error = RuntimeError("a defect")
    [client] = core.answer(request())
    assert (client.passed_on, world.recorded) == (1, [])
    assert core.defects == 1


SIGNED = b"/f/x?se=1&sig=signature-of-somebody"


@pytest.mark.parametrize("where", ["guard", "face", "outcome", "recorder"])
def test_what_a_defect_says_of_a_credential_is_not_logged(where, world):
    """Whether it came in a header or in the query."""
    error = RuntimeError(f"a defect about {KEY[1].decode()} and {SIGNED.decode()}")

    def faulty(receipt):
        raise error

    core = Core(world, routes=[replace(FILES, answer=faulty if where == "face" else answer_held)])
    world.caller_error = error if where == "guard" else None
    world.outcome_error = error if where == "outcome" else None
    world.audit_error = error if where == "recorder" else None
    said = []
    core.telemetry.lines.say = lambda *_, **named: said.append(named["exception"])
    core.answer(*[request(SIGNED)] if where != "recorder" else [request(), request(SIGNED), request()])
    [exception] = said
    assert "a defect about" in exception
    assert "of-somebody" not in exception


def test_an_outcome_that_cannot_be_recorded_causes_no_second_answer(core, world):
    for number, error in enumerate([Unavailable("audit", "full", Reason.NO_AUDIT), RuntimeError("a defect")]):
        world.outcome_error = error
        [client] = core.answer(request())
        assert (len(client.answers), client.passed_on) == (1, 0)
        assert core.defects == number
    assert core.telemetry.counters[sample("cachegate_dependency_failures_total", "audit")] == 1


def test_the_outcome_says_what_was_sent_and_how_long_it_took(core, world):
    core.answer(request())
    [outcome] = world.outcomes
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 200, 7)
    assert outcome.milliseconds == 250.0


def test_an_answer_that_somebody_else_sends_is_recorded_as_such(world):
    handed = replace(FILES, answer=lambda _: Answer(200, HELD.headers, b"", Ending.HANDED_OFF))
    core = Core(world, routes=[handed])
    core.answer(request())
    assert [one.ending for one in world.outcomes] == [Ending.HANDED_OFF]


def test_what_is_answered_at_once_is_counted_like_everything_else(core):
    core.answer(request(), request(method=b"HEAD"), request(b"/nowhere"))
    counted = core.telemetry.counters
    body = len(problem_of(Reason.NO_ROUTE, "-").body("0" * 36))
    assert counted[sample("cachegate_decisions_total", "/f/{file}", "permitted")] == 2
    assert counted[sample("cachegate_decisions_total", "-", "no-route")] == 1
    assert counted[sample("cachegate_responses_total", "200")] == 2
    assert counted[sample("cachegate_responses_total", "404")] == 1
    assert counted["cachegate_sent_bytes_total"] == 7 + body
    assert counted["cachegate_answers_at_once_total"] == 3
    times = core.telemetry.times.values()
    assert sum(times["other", label] for label in LABELS) == 2
    assert sum(times["none", label] for label in LABELS) == 1


def test_head_has_the_headers_of_get_and_no_body(core, world):
    got, head = core.answer(request(), request(method=b"HEAD"))
    assert comparable(head.answers[0])[:2] == comparable(got.answers[0])[:2]
    assert (got.answers[0][2], head.answers[0][2]) == (b"weights", b"")
    assert [one.bytes_sent for one in world.outcomes] == [7, 0]


def test_head_of_a_refusal_has_the_headers_of_get_and_no_body(core):
    got, head = core.answer(request(b"/nowhere"), request(b"/nowhere", method=b"HEAD"))
    assert comparable(head.answers[0])[:2] == comparable(got.answers[0])[:2]
    assert (bool(got.answers[0][2]), head.answers[0][2]) == (True, b"")


def denied(reason):
    return Denied(access=None, reason=reason, model=MODEL)


REFUSED = {
    "no route": (request(b"/nowhere"), {}, Reason.NO_ROUTE),
    "malformed path": (request(b"/f/bad"), {}, Reason.MALFORMED_PATH),
    "method": (request(b"/get", method=b"HEAD"), {}, Reason.METHOD_NOT_ALLOWED),
    "query": (request(b"/f/x?" + b"a&" * 200), {}, Reason.MALFORMED_QUERY),
    "no credential": (Request(b"GET", b"/f/x", []), {}, Reason.NO_CREDENTIAL),
    "two credentials": (request(b"/f/x", (b"x-api-key", b"another")), {}, Reason.CONFLICTING_CREDENTIALS),
    "scheme": (Request(b"GET", b"/f/x", [(b"authorization", b"Basic YTpi")]), {}, Reason.UNSUPPORTED_SCHEME),
    "hidden": (request(), {"verdict": denied(Reason.NOT_PERMITTED)}, Reason.NOT_PERMITTED),
    "scope": (request(), {"verdict": denied(Reason.MISSING_SCOPE)}, Reason.MISSING_SCOPE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_recorded_and_has_the_same_bytes_as_through_the_application(name, world):
    asked, changes, reason = REFUSED[name]
    core = Core(replace_world(world, changes), routes=[FILES, ONLY_GET])
    [client] = core.answer(asked)
    assert [one.reason for one in world.recorded] == [reason]
    assert client.passed_on == 0
    assert comparable(client.answers[0]) == comparable(core.over_asgi(asked))
    assert client.answers[0][0] == problem_of(reason, "-").status
    assert [one.reason for one in world.recorded] == [reason] * 2
    at_once, over_asgi = (one.request for one in world.recorded)
    # The clock of this world goes on at each look, and the time of the first answer was taken as well.
    assert at_once == replace(over_asgi, received_at=at_once.received_at)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("headers", [(), ((b"traceparent", TRACE),)])
def test_an_answer_has_the_same_bytes_as_through_the_application(method, headers, core, world):
    asked = request(b"/f/x?a=b", *headers, method=method)
    [client] = core.answer(asked)
    assert comparable(client.answers[0]) == comparable(core.over_asgi(asked))
    at_once, over_asgi = (one.request for one in world.recorded)
    assert replace(at_once, received_at=over_asgi.received_at) == over_asgi


def test_a_method_that_is_not_allowed_is_told_which_are(core):
    [client] = core.answer(request(b"/get", method=b"HEAD"))
    status, head, _ = client.answers[0]
    assert (status, fields(head)["allow"]) == (405, "GET")


def test_a_refusal_of_a_wrapped_request_has_the_form_of_the_route_that_was_meant(world):
    def extract(one):
        raise Refusal(Reason.INVALID_LINK)

    meant = replace(FILES, template="/d/{model}/-/{package}/{file}", extract=extract)
    wrapping = replace(
        FILES, template="/proxy", matches=lambda raw: raw == b"/proxy", unwrap=lambda one: (one, meant)
    )
    core = Core(world, routes=[wrapping])
    [client] = core.answer(request(b"/proxy"))
    assert client.answers[0][2] == problem_of(Reason.INVALID_LINK, meant.template).body(f"{1:036d}")
    assert comparable(client.answers[0]) == comparable(core.over_asgi(request(b"/proxy")))


@pytest.mark.parametrize("target", [b"/hook", b"/hook?a=b", b"/foreign", b"/healthz", b"/healthz?x"])
def test_hooks_and_foreign_and_unguarded_paths_are_the_applications(target, world):
    core = Core(world, unguarded=frozenset({b"/healthz"}))
    [client] = core.answer(request(target))
    assert (client.passed_on, client.answers, world.happened) == (1, [], ["pass on"])
    assert core.defects == 0


def test_a_path_that_only_begins_like_an_unguarded_one_is_guarded(world):
    core = Core(world, unguarded=frozenset({b"/healthz"}))
    [client] = core.answer(request(b"/healthz/x"))
    assert [one.reason for one in world.recorded] == [Reason.NO_ROUTE]
    assert client.passed_on == 0


PROXY = parse_trusted_networks(["192.0.2.0/24"])


def forwarded(*lists):
    return request(b"/f/x", *[(b"x-forwarded-for", one) for one in lists])


@pytest.mark.parametrize(
    ("trusted", "peer", "named"),
    [
        (PROXY, "192.0.2.1", "198.51.100.7"),
        (PROXY, "203.0.113.1", "203.0.113.1"),
        (PROXY, None, "local"),
        (TrustedNetworks(), "192.0.2.1", "192.0.2.1"),
        (TrustedNetworks(is_unix_trusted=True), None, "198.51.100.7"),
    ],
)
def test_only_a_trusted_proxy_says_who_its_client_is(trusted, peer, named, world):
    core = Core(world, trusted_proxies=trusted)
    client = core.client(peer=peer)
    for _ in range(2):
        core.answer(forwarded(b"198.51.100.7"), clients=[client])
    assert world.clients == [named] * 2
    assert [one.request.client for one in world.recorded] == [named] * 2


def test_whom_a_proxy_names_is_remembered_for_the_same_list_and_its_connection_alone(world):
    core = Core(world, trusted_proxies=PROXY)
    first, second = core.client(), core.client(peer="192.0.2.9")
    a, b = b"198.51.100.7", b"198.51.100.8"
    asked = [
        (forwarded(a), first, "198.51.100.7"),
        (forwarded(b), first, "198.51.100.8"),
        (request(), first, "192.0.2.1"),
        (forwarded(b, a), first, "198.51.100.7"),
        (forwarded(a, b), first, "198.51.100.8"),
        (request(), second, "192.0.2.9"),
        (forwarded(b"unreadable"), second, "192.0.2.9"),
        (forwarded(a), first, "198.51.100.7"),
    ]
    for one, client, _ in asked:
        core.answer(one, clients=[client])
    assert world.clients == [named for _, _, named in asked]


def test_of_several_traces_the_first_counts_and_the_answer_is_in_it(core, world):
    other = TRACE.replace(b"0af7", b"ffff")
    [client] = core.answer(request(b"/f/x", (b"traceparent", TRACE), (b"traceparent", other)))
    named = fields(client.answers[0][1])["traceparent"]
    assert named.startswith(TRACE[:35].decode())
    assert named != TRACE.decode()  # a span of our own
    assert world.recorded[0].request.trace_id == TRACE[3:35].decode()


LARGE = INLINE_BYTES + 1


@pytest.fixture
def opened(world, tmp_path):
    """A file that is not in memory; its descriptor is open while an admission holds it."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * 2 * LARGE)
    descriptor = os.open(path, os.O_RDONLY)
    world.found = OpenFile(
        descriptor=descriptor,
        size=2 * LARGE,
        identity=identity_of(os.fstat(descriptor)),
        model=MODEL,
        package=PackageId("p"),
        handle=FileHandle("f.bin"),
        md5="1" * 32,
        sha256="1" * 64,
    )
    yield world.found
    with suppress(OSError):
        os.close(descriptor)


def is_open(file):
    try:
        os.fstat(file.descriptor)
    except OSError:
        return False
    return True


def parts_of(count):
    def answer(receipt):
        span = Span(offset=0, count=count)
        parts = FileParts(file=receipt.admission.found, pieces=(span,), length=count, on_hashed=None)
        return Answer(206, HELD.headers, parts)

    return [replace(FILES, answer=answer)]


def test_a_large_file_is_sent_after_the_record_and_the_last_check_and_closed_at_its_end(world, opened):
    core = Core(world, routes=parts_of(LARGE))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    assert world.happened == ["weigh", "record 1", "check", "send"]
    [(status, head, body)] = client.answers
    assert (status, fields(head)["cachegate-record"]) == (206, f"{1:036d}")
    assert (body.file, body.pieces) == (opened.descriptor, (Span(offset=0, count=LARGE),))
    assert (world.outcomes, is_open(opened)) == ([], True)
    body.verify()
    body.on_end(LARGE, None)
    [outcome] = world.outcomes
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 206, LARGE)
    assert not is_open(opened)
    assert core.telemetry.counters["cachegate_sent_bytes_total"] == LARGE


def test_a_part_that_is_short_is_read_and_written_like_an_answer_from_memory(world, opened):
    core = Core(world, routes=parts_of(1000))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    assert world.happened == ["weigh", "record 1", "check", "write"]
    assert client.answers[0][2] == b"x" * 1000
    assert ([one.ending for one in world.outcomes], is_open(opened)) == ([Ending.COMPLETE], False)


@pytest.mark.parametrize("count", [1000, LARGE])
def test_the_last_check_stands_before_the_first_byte_of_a_file_and_closes_it(count, world, opened):
    world.on_record = lambda: setattr(world.leaf, "is_current", False)
    core = Core(world, routes=parts_of(count))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    assert (client.answers, client.passed_on, is_open(opened)) == ([], 1, False)
    assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]


@pytest.mark.parametrize("count", [1000, LARGE])
def test_a_file_that_is_no_longer_what_was_opened_is_not_begun_or_cut(count, world, opened):
    world.found = replace(opened, identity=(1, 2, 3, 4, 5))
    core = Core(world, routes=parts_of(count))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    if count == LARGE:
        [(_, _, body)] = client.answers
        with pytest.raises(CutError):
            body.verify()
    else:
        assert (client.answers, client.passed_on) == ([], 1)
        assert [one.ending for one in world.outcomes] == [Ending.WITHDRAWN]


def test_a_file_whose_decision_cannot_be_recorded_is_closed(world, opened):
    world.audit_error = Unavailable("audit", "no space", Reason.NO_AUDIT)
    core = Core(world, routes=parts_of(LARGE))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    assert (client.passed_on, is_open(opened)) == (1, False)


def test_a_file_for_a_client_that_takes_nothing_is_closed_again(world, opened):
    core = Core(world, routes=parts_of(LARGE))
    [client] = core.answer(request(), clients=[core.client(sends_files=True, may_answer=False)])
    assert (client.passed_on, is_open(opened), world.recorded) == (1, False, [])


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ConnectionResetError(), Ending.CLIENT_GONE),
        (EOFError(), Ending.CHANGED_ON_DISK),
        (CutError.changed(), Ending.CHANGED_ON_DISK),
        (OSError(5, "of the disk"), Ending.FAILED),
        (RuntimeError("a defect"), Ending.FAILED),
        (asyncio.CancelledError(), Ending.FAILED),
    ],
)
def test_the_outcome_says_how_a_transfer_ended_and_what_was_sent(error, ending, world, opened):
    core = Core(world, routes=parts_of(LARGE))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    client.answers[0][2].on_end(77, error)
    assert [(one.ending, one.bytes_sent) for one in world.outcomes] == [(ending, 77)]
    assert not is_open(opened)
    assert core.defects == isinstance(error, RuntimeError)


def test_a_transfer_that_takes_longer_is_watched_until_its_end_and_a_cut_is_its_outcome(world, opened):
    core = Core(world, routes=parts_of(LARGE))
    [client] = core.answer(request(), clients=[core.client(sends_files=True)])
    body = client.answers[0][2]
    assert len(core.transfers) == 0

    async def send():
        transfer = body.watch()
        assert (len(core.transfers), transfer.is_certain) == (1, True)
        world.leaf.is_current = False
        assert not transfer.is_certain
        transfer.cut = Ending.REVOKED
        transfer.break_off()
        assert world.happened[-1] == "abort"
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        body.on_end(5, asyncio.CancelledError())

    with suppress(asyncio.CancelledError):
        asyncio.run(send())
    assert ([one.ending for one in world.outcomes], len(core.transfers)) == ([Ending.REVOKED], 0)
