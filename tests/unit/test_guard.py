"""The guard's pipeline with small real stages: their order, and what is recorded."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.decisions import Judgement
from gateway.guard import Guard
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, SignedLink, WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.facts import Facts, KeyKind, PolicySet, Scope
from gateway.model.header_block import Headers
from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId
from gateway.model.routes import GuardedRoute
from gateway.model.rulings import Ruling
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import (
    Admission,
    Allowed,
    Declined,
    Denied,
    Ending,
    HeldFile,
    OpenFile,
    Receipt,
    Rejection,
)
from gateway.resource.disk_checks import SeenOnDisk

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL, PACKAGE, HANDLE = ModelId("acme/cars/1"), PackageId("pkgA1"), FileHandle("weights.onnx")
FILE = Resource(kind=ResourceKind.FILE, model=MODEL, package=PACKAGE, file=HANDLE)
PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset({Scope.READ}),
    expires_at=None,
)
KEY_LEAF, RULE_LEAF = Leaf(b"key", b"1"), Leaf(b"rule", None)
KEY_STAMP = Stamp(7, (KEY_LEAF,))
FACT_STAMP = Stamp(8, (RULE_LEAF,))
POLICY = PolicySet(schema="", policies=(), digest="d")
FACTS = Facts(
    grants=(),
    requested=MODEL,
    model=MODEL,
    requested_standing=None,
    model_standing=None,
    policy=POLICY,
    stamp=FACT_STAMP,
)


@dataclass
class World:
    """All the stages in one: keeps what it was asked, and answers as the test says."""

    principal: Principal = PRINCIPAL
    verdict: object = None
    found: OpenFile | None = None
    is_true: bool | Exception = True
    leased: bool = True
    is_fresh: bool = True
    remembers_caller: bool = False
    remembers_decision: bool = False
    identity_refusal: Exception | None = None
    audit_fault: Unavailable | None = None
    on_authenticate: Callable = lambda credential: None
    asked: list[str] = field(default_factory=list)
    rejections: list = field(default_factory=list)
    admissions: list = field(default_factory=list)
    endings: list = field(default_factory=list)

    def recall(self, *asked):
        """Both memories: of callers, by three values, and of decisions, by one."""
        if len(asked) == 3:
            return (self.principal, KEY_STAMP) if self.remembers_caller else None
        return self.judge(*asked) if self.remembers_decision else None

    async def authenticate(self, credential, client, now):
        self.asked.append("authenticate")
        self.on_authenticate(credential)
        if self.identity_refusal:
            raise self.identity_refusal
        return self.principal, KEY_STAMP

    def is_valid_still(self, principal, since, now):
        return since <= now < (principal.expires_at or now + 1)

    def is_leased(self):
        return self.leased

    def verify_fresh(self, degraded_seconds):
        self.asked.append("fresh")
        if not self.is_fresh:
            raise Unavailable("redis", "no lease", Reason.NO_LEASE)

    async def resolve(self, access):
        self.asked.append("resolve")
        return access

    async def reach(self, access):
        self.asked.append("decide")
        return self.judge(access)

    def judge(self, access):
        allowed = Allowed(access=access, model=MODEL, policies=("owners",), grant="owner", stamp=FACTS.stamp)
        return Judgement(self.verdict or allowed, FACTS)

    def reason_now(self, denied):
        return None

    def resolve_now(self, access, looks):
        return None

    def find_now(self, allowed, looks, *, needs_content, may_open=False):
        return None

    async def answer_to(self, denied):
        return denied.reason

    async def find(self, allowed):
        self.asked.append("find")
        if self.found is None:
            raise Refusal(Reason.ABSENT)
        return replace(self.found, descriptor=os.dup(self.found.descriptor)), allowed.stamp

    def admit(self, admission):
        self.asked.append("record")
        if self.audit_fault:
            raise self.audit_fault
        self.admissions.append(admission)
        return Receipt(record_id="r", admission=admission, on_close=self.endings.append)

    def reject(self, rejection):
        self.asked.append("record")
        if self.audit_fault:
            raise self.audit_fault
        self.rejections.append(rejection)
        return "r"

    def still_true(self, stamp, degraded_seconds):
        self.asked.append("still_true")
        if isinstance(self.is_true, Exception):
            raise self.is_true
        return self.is_true

    def guard(self) -> Guard:
        return Guard(
            identity=self,
            directory=self,
            decisions=self,
            authorized_files=self,
            recorder=self,
        )


ROUTE = GuardedRoute(
    template="/f", methods=("GET",), action=Action.READ, matches=lambda raw: True, locate=lambda request: FILE
)
REQUEST = WireRequest(
    method="GET",
    raw_path=b"/f",
    query=b"",
    headers=((b"authorization", b"Bearer opaque-key-of-somebody"),),
    client="127.0.0.1",
    route="/f",
    trace_id=None,
    received_at=1.0,
)


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(b"weights")
    descriptor = os.open(path, os.O_RDONLY)
    found = OpenFile(
        descriptor=descriptor,
        size=7,
        identity=(0, 0, 0, 0, 0),
        model=MODEL,
        package=PACKAGE,
        handle=HANDLE,
        md5=None,
    )
    yield World(found=found)
    os.close(descriptor)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def admit(world: World):
    return asyncio.run(world.guard().admit(REQUEST, ROUTE))


def test_a_receipt_is_handed_out_only_after_the_record(world):
    receipt = admit(world)
    assert isinstance(receipt, Receipt)
    receipt.admission.release()
    assert world.asked == ["authenticate", "fresh", "decide", "find", "record"]


def test_what_is_remembered_is_recorded_and_looked_for_on_the_disk_all_the_same(world):
    world.remembers_caller = world.remembers_decision = True
    admit(world).admission.release()
    assert world.asked == ["fresh", "find", "record"]


def test_without_a_lease_nothing_is_decided(world):
    world.is_fresh = False
    assert admit(world) == Declined(reason=Reason.NO_LEASE, record_id="r")
    assert not {"decide", "find"} & set(world.asked)


def test_the_disk_is_never_asked_about_something_denied(world):
    access = None
    world.verdict = Denied(access=access, reason=Reason.NOT_PERMITTED, model=MODEL)
    answer = admit(world)
    assert answer == Declined(reason=Reason.NOT_PERMITTED, record_id="r")
    assert "find" not in world.asked


def test_an_answer_stands_on_the_key_as_well_as_on_the_facts(world):
    receipt = admit(world)
    receipt.admission.release()
    stamp = receipt.admission.stamp
    assert (stamp.generation, stamp.leaves) == (7, (KEY_LEAF, RULE_LEAF))
    # Once begun, a transfer depends on the key alone.
    assert receipt.admission.key_stamp is KEY_STAMP


def test_what_is_still_true_before_its_first_byte_may_be_delivered(world):
    receipt = admit(world)
    world.guard().confirm(receipt, now=2.0)
    assert world.endings == []
    receipt.admission.release()


def test_what_moved_before_its_first_byte_is_withdrawn_and_its_file_closed(world):
    before = open_descriptors()
    receipt = admit(world)
    world.is_true = False
    with pytest.raises(WithdrawnError):
        world.guard().confirm(receipt, now=2.0)
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]
    assert open_descriptors() == before


def test_a_last_check_without_a_lease_withdraws_and_is_a_failure(world):
    before = open_descriptors()
    receipt = admit(world)
    world.is_true = Unavailable("redis", "no lease", Reason.NO_LEASE)
    with pytest.raises(Unavailable):
        world.guard().confirm(receipt, now=2.0)
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]
    assert open_descriptors() == before


@pytest.mark.parametrize(("now", "is_sent"), [(9.999, True), (10.0, False), (11.0, False)])
def test_a_key_that_expired_since_it_was_looked_at_starts_nothing(world, now, is_sent):
    world.principal = replace(PRINCIPAL, expires_at=10.0)
    receipt = admit(world)
    if is_sent:
        world.guard().confirm(receipt, now=now)
        receipt.admission.release()
        return
    with pytest.raises(WithdrawnError):
        world.guard().confirm(receipt, now=now)
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]


def test_facts_that_never_hold_still_end_in_a_recorded_refusal(world):
    assert asyncio.run(world.guard().give_up(REQUEST)) == Declined(reason=Reason.FACTS_MOVED, record_id="r")
    assert world.rejections[-1].reason is Reason.FACTS_MOVED


@pytest.mark.parametrize("is_leased", [True, False])
def test_what_is_served_without_a_lease_is_served_on_what_was_last_known(world, is_leased):
    world.leased = is_leased
    assert world.guard().is_degraded() is not is_leased


@pytest.mark.parametrize(
    ("reason", "is_leased", "answered"),
    [
        (Reason.REVOKED_KEY, True, Reason.REVOKED_KEY),
        # An old denial is as wrong as an old allow; a refusal that needs no fact is given all the same.
        (Reason.REVOKED_KEY, False, Reason.NO_LEASE),
        (Reason.UNKNOWN_KEY, False, Reason.NO_LEASE),
        (Reason.UNKNOWN_SIGNING_KEY, True, Reason.UNKNOWN_SIGNING_KEY),
        (Reason.UNKNOWN_SIGNING_KEY, False, Reason.NO_LEASE),
        (Reason.INVALID_TOKEN, False, Reason.INVALID_TOKEN),
        (Reason.MISTYPED_KEY, False, Reason.MISTYPED_KEY),
        (Reason.INVALID_LINK, False, Reason.INVALID_LINK),
        (Reason.EXPIRED_LINK, False, Reason.EXPIRED_LINK),
    ],
)
def test_without_a_lease_nobody_is_refused_on_facts(world, reason, is_leased, answered):
    world.identity_refusal = Refusal(reason)
    world.leased = is_leased
    assert admit(world) == Declined(reason=answered, record_id="r")


def test_a_refused_credential_is_recorded_with_the_key_it_claimed(world):
    world.identity_refusal = Refusal(Reason.REVOKED_KEY, key_id="key_abcdefghijkl")
    assert admit(world) == Declined(reason=Reason.REVOKED_KEY, record_id="r")
    [rejection] = world.rejections
    assert (rejection.claimed_key_id, rejection.principal) == ("key_abcdefghijkl", None)


def test_what_was_known_at_the_refusal_is_in_its_record(world):
    world.found = None
    admit(world)
    [rejection] = world.rejections
    assert rejection.reason is Reason.ABSENT
    assert (rejection.principal, rejection.resource, rejection.model) == (PRINCIPAL, FILE, MODEL)
    assert rejection.policies == ("owners",)


@pytest.mark.parametrize("reason", [Reason.NO_FACTS, Reason.NO_POLICY])
def test_a_dependency_that_is_gone_is_recorded_and_never_an_allow(world, reason):
    world.identity_refusal = Unavailable("redis", "gone", reason)
    assert admit(world) == Declined(reason=reason, record_id="r")


def test_without_the_record_nothing_is_handed_out_and_the_file_is_closed(world):
    before = open_descriptors()
    world.audit_fault = Unavailable("audit", "disk full", Reason.NO_AUDIT)
    with pytest.raises(Unavailable):
        admit(world)
    assert open_descriptors() == before


LINK = SignedLink(key_id=PRINCIPAL.key_id, expires_at=9, signed=b"/f", mac=b"m")


def test_a_route_that_knows_where_its_credential_stands_is_asked_for_it(world):
    seen = []
    world.on_authenticate = seen.append
    receipt = asyncio.run(world.guard().admit(REQUEST, replace(ROUTE, extract=lambda request: LINK)))
    receipt.admission.release()
    assert seen == [LINK]


def test_a_route_that_finds_no_credential_lets_nobody_in(world):
    def extract(request):
        raise Refusal(Reason.INVALID_LINK)

    answer = asyncio.run(world.guard().admit(REQUEST, replace(ROUTE, extract=extract)))
    assert answer == Declined(reason=Reason.INVALID_LINK, record_id="r")
    assert world.asked == ["record"]


# Without waiting

BLOB = Resource(kind=ResourceKind.BLOB, md5=Md5("0" * 32))
HELD = HeldFile(
    descriptor=-1,
    size=7,
    identity=(0, 0, 0, 0, 0),
    model=MODEL,
    package=PACKAGE,
    handle=HANDLE,
    md5=None,
    content=b"weights",
    headers=Headers.of(),
)
STAGES = ("caller", "resolution", "decision", "reason", "found")


@dataclass
class Remembering(World):
    """What is true of each stage, and of which stages it is in memory. Memory knows no failures."""

    errors: dict = field(default_factory=dict)  # by stage: what it raises
    memory: frozenset = frozenset(STAGES)
    is_confirmed: bool = True
    is_on_disk: bool = True
    waited: list = field(default_factory=list)
    content_needed: list = field(default_factory=list)
    looks: list = field(default_factory=list)  # of each stage that looks at the disk

    def _wait(self, stage):
        self.waited.append(stage)
        if stage in self.errors:
            raise self.errors[stage]

    def _knows(self, stage):
        return stage in self.memory and stage not in self.errors

    def recall(self, *asked):
        if len(asked) == 1:
            return self.judge(*asked) if self._knows("decision") else None
        return (self.principal, KEY_STAMP) if self._knows("caller") else None

    async def authenticate(self, credential, client, now):
        self._wait("caller")
        return self.principal, KEY_STAMP

    def resolve_now(self, access, looks):
        self.looks.append(looks)
        return replace(access, resource=FILE) if self._knows("resolution") else None

    async def resolve(self, access):
        self._wait("resolution")
        return replace(access, resource=FILE)

    async def reach(self, access):
        self._wait("decision")
        return self.judge(access)

    def judge(self, access):
        made = super().judge(access)
        return Judgement(made.verdict, replace(made.facts, is_confirmed=self.is_confirmed))

    def reason_now(self, denied):
        return denied.reason if self._knows("reason") else None

    async def answer_to(self, denied):
        self._wait("reason")
        return denied.reason if self.is_on_disk else Reason.ABSENT

    def find_now(self, allowed, looks, *, needs_content, may_open=False):
        self.content_needed.append(needs_content)
        self.looks.append(looks)
        return (HELD, allowed.stamp) if self._knows("found") else None

    async def find(self, allowed):
        self._wait("found")
        return HELD, allowed.stamp

    async def find_by_route(self, request, allowed):
        return await self.find(allowed)

    def find_now_by_route(self, request, allowed, looks):
        return self.find_now(allowed, looks, needs_content=True)

    def reject(self, rejection):
        self.rejections.append(rejection)
        return "r"


FAILURES = [
    Refusal(Reason.REVOKED_KEY, key_id="key_abcdefghijkl", tenant="acme"),
    Refusal(Reason.ABSENT),
    Unavailable("redis", "gone", Reason.NO_FACTS),
]
DENIALS = [
    Denied(access=None, reason=one, model=MODEL) for one in (Reason.NOT_PERMITTED, Reason.MISSING_SCOPE)
]


@st.composite
def generated_worlds(draw):
    """How to make a world, a route and a request."""
    made = {
        "verdict": draw(st.sampled_from([None, *DENIALS])),
        "is_fresh": draw(st.sampled_from([True, True, False])),
        "leased": draw(st.booleans()),
        "errors": draw(st.dictionaries(st.sampled_from(STAGES), st.sampled_from(FAILURES), max_size=2)),
        "memory": frozenset(draw(st.sets(st.sampled_from(STAGES)) | st.just(frozenset(STAGES)))),
    }
    resource = draw(st.sampled_from([FILE, BLOB, None]))

    def locate(request):
        if resource is None:
            raise Refusal(Reason.MALFORMED_PATH)
        return resource

    def unwrap(request):
        return replace(request, query=b"inner"), replace(ROUTE, template="/inner", locate=locate)

    route = replace(
        ROUTE,
        locate=locate,
        extract=draw(st.sampled_from([None, lambda _: LINK])),
        unwrap=draw(st.sampled_from([None, None, unwrap])),
    )
    headers = draw(st.sampled_from([REQUEST.headers, REQUEST.headers, ()]))
    request = replace(REQUEST, headers=headers, method=draw(st.sampled_from(["GET", "HEAD"])))
    return made, route, draw(st.sampled_from([None, "waits", "now"])), request


def weigh_now(world, route, request=REQUEST):
    return world.guard().weigh_now(request, route, SeenOnDisk(), may_open=False)


@given(generated_worlds())
def test_without_waiting_it_comes_to_what_it_comes_to_with_waiting_or_to_nothing(generated):
    made, route, how, request = generated
    world, waiting = Remembering(**made), Remembering(**made)
    weighed = weigh_now(world, with_find(route, world, how), request)
    asyncio.run(waiting.guard().admit(request, with_find(route, waiting, how)))
    [recorded] = waiting.admissions + waiting.rejections
    assert world.waited == []
    assert (world.admissions, world.rejections) == ([], [])  # nothing is recorded yet
    if waiting.waited:
        assert weighed is None
    else:
        assert contents(weighed) == contents(recorded)


def contents(weighed):
    """All that it says. Stamps are compared by what they stand on."""
    said = {name: getattr(weighed, name) for name in weighed.__struct_fields__}
    stamps = {name: (one.generation, one.leaves) for name, one in said.items() if isinstance(one, Stamp)}
    verdict = said.pop("allowed", None)
    of_verdict = verdict and (verdict.access, verdict.model, verdict.policies, verdict.grant)
    return type(weighed), said | stamps, of_verdict


def with_find(route, world, how):
    """The route with a search of its own, which may know the answer without waiting."""
    if how is None:
        return route
    return replace(
        route, find=world.find_by_route, find_now=world.find_now_by_route if how == "now" else None
    )


@pytest.mark.parametrize("stage", STAGES)
def test_where_a_stage_would_wait_nothing_is_begun(stage):
    """A coroutine that was made and never awaited would warn, and warnings are errors."""
    world = Remembering(memory=frozenset(STAGES) - {stage})
    if stage == "reason":
        world.verdict = DENIALS[0]
    route = replace(ROUTE, locate=lambda _: BLOB)
    assert weigh_now(world, route) is None
    gc.collect()
    assert (world.waited, world.admissions, world.rejections) == ([], [], [])


def test_a_route_that_can_only_wait_for_what_it_searches_is_never_answered_without_waiting():
    world = Remembering()
    assert weigh_now(world, with_find(ROUTE, world, "waits")) is None
    assert world.waited == world.content_needed == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_route_that_knows_what_it_searches_for_is_answered_without_waiting(is_known):
    world = Remembering(memory=frozenset(STAGES) - (frozenset() if is_known else {"found"}))
    looks = SeenOnDisk()
    weighed = world.guard().weigh_now(REQUEST, with_find(ROUTE, world, "now"), looks, may_open=False)
    assert isinstance(weighed, Admission) is is_known
    assert (world.looks, world.waited) == ([looks], [])


def test_a_route_searches_for_nothing_that_was_denied():
    world = Remembering(verdict=DENIALS[0])
    assert isinstance(weigh_now(world, with_find(ROUTE, world, "now")), Rejection)
    assert world.looks == []


@pytest.mark.parametrize(("method", "needs_content"), [("GET", True), ("HEAD", False)])
def test_head_needs_no_content_in_memory(method, needs_content):
    world = Remembering()
    assert isinstance(weigh_now(world, ROUTE, replace(REQUEST, method=method)), Admission)
    assert world.content_needed == [needs_content]


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_raises_while_it_is_awaited_is_recorded_with_what_was_known_by_then(stage, error):
    world = Remembering(errors={stage: error}, memory=frozenset(), leased=True)
    if stage == "reason":
        world.verdict = DENIALS[0]
    answer = asyncio.run(world.guard().admit(REQUEST, replace(ROUTE, locate=lambda _: BLOB)))
    assert answer == Declined(reason=error.reason, record_id="r")
    [rejection] = world.rejections
    known = STAGES.index(stage)
    assert (rejection.principal is None) == (known == 0)
    assert (rejection.resource is None) == (known == 0)
    assert (rejection.model is None) == (known < STAGES.index("reason"))
    assert rejection.claimed_key_id == getattr(error, "key_id", None)


def test_a_defect_of_a_stage_that_is_awaited_is_no_refusal():
    world = Remembering(errors={"found": RuntimeError("a defect")}, memory=frozenset())
    with pytest.raises(RuntimeError):
        asyncio.run(world.guard().admit(REQUEST, ROUTE))
    assert (world.admissions, world.rejections) == ([], [])


@pytest.mark.parametrize("waits_for", ["resolution", "decision", None])
def test_what_was_seen_on_disk_before_a_wait_is_not_used_after_it(waits_for):
    world = Remembering(memory=frozenset(STAGES) - {waits_for})
    asyncio.run(world.guard().admit(REQUEST, replace(ROUTE, locate=lambda _: BLOB)))
    before, after = world.looks
    assert (before is after) == (waits_for is None)


def test_a_decision_that_the_platform_has_not_confirmed_waits_for_it():
    world = Remembering(is_confirmed=False)
    assert weigh_now(world, ROUTE) is None
    world.principal = replace(PRINCIPAL, is_link=True)  # there is no key to ask with
    assert isinstance(weigh_now(world, ROUTE), Admission)


def test_what_is_weighed_without_waiting_is_recorded_in_one_write():
    written = []

    class Recorder(Remembering):
        def record_all(self, weighed):
            written.append(list(weighed))
            return [
                "id" if isinstance(one, Rejection) else Receipt(record_id="r", admission=one, on_close=None)
                for one in weighed
            ]

    world = Recorder()
    allow = weigh_now(world, ROUTE)
    refusal = replace(weigh_now(world, replace(ROUTE, extract=refuse_link)), meant="/inner")
    first, second = world.guard().record_all([allow, refusal])
    assert written == [[allow, refusal]]
    assert first.admission is allow
    assert second == Declined(reason=Reason.INVALID_LINK, record_id="id", meant="/inner")


def refuse_link(request):
    raise Refusal(Reason.INVALID_LINK)


def test_an_allow_without_a_receipt_is_no_answer():
    class Recorder(Remembering):
        def record_all(self, weighed):
            return ["id"]

    world = Recorder()
    with pytest.raises(TypeError):
        world.guard().record_all([weigh_now(world, ROUTE)])


@pytest.mark.parametrize("is_remembered", [False, True])
def test_a_platforms_denial_has_the_platforms_reason_each_time(is_remembered, world):
    ruling = Ruling(
        key_id=PRINCIPAL.key_id, model=MODEL, reason=Reason.PAYMENT_REQUIRED, until=9.0, asked=1, generation=1
    )
    access = Access(principal=PRINCIPAL, action=Action.READ, resource=FILE)
    denied = Denied(access=access, reason=Reason.NOT_PERMITTED, model=MODEL, stamp=FACT_STAMP)
    world.judge = lambda access: Judgement(denied, replace(FACTS, ruling=ruling))
    world.remembers_caller = world.remembers_decision = is_remembered
    assert admit(world).reason is Reason.PAYMENT_REQUIRED
