"""The pipeline, with rooms that are small and real: what comes before what, and what is written down."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.guard import MAX_ATTEMPTS, Guard
from gateway.model.access import Action, GuardedRoute, Principal, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Facts, KeyKind, PolicySet, Scope, Stamp
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.verdicts import Allowed, Declined, Denied, Ending, OpenFile, Receipt

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
KEY_STAMP = Stamp(7, ((b"key", b"1"),))
FACT_STAMP = Stamp(8, ((b"rule", None),))
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
    """All the rooms in one: says what it was asked, and answers as the test wants."""

    verdict: object = None
    found: OpenFile | None = None
    still: list[bool | Exception] = field(default_factory=lambda: [True])
    identity_refusal: Exception | None = None
    audit_fault: Unavailable | None = None
    asked: list[str] = field(default_factory=list)
    rejections: list = field(default_factory=list)
    admissions: list = field(default_factory=list)
    endings: list = field(default_factory=list)

    async def authenticate(self, credential, client, now):
        self.asked.append("authenticate")
        if self.identity_refusal:
            raise self.identity_refusal
        return PRINCIPAL, KEY_STAMP

    async def resolve(self, access):
        return access

    async def bring(self, principal, models):
        self.asked.append("bring")
        return [FACTS for _ in models]

    def decide(self, access, facts):
        self.asked.append("decide")
        if self.verdict is not None:
            return self.verdict
        return Allowed(access=access, model=MODEL, policies=("owners",), grant="owner", stamp=facts.stamp)

    def answer_to(self, denied):
        return denied.reason

    async def find(self, allowed, facts):
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

    async def still_true(self, stamp):
        self.asked.append("still_true")
        answer = self.still.pop(0) if len(self.still) > 1 else self.still[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def guard(self) -> Guard:
        return Guard(identity=self, directory=self, rules=self, holdings=self, recorder=self)


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


def test_a_receipt_is_handed_out_only_after_the_record_and_the_last_check(world):
    receipt = admit(world)
    assert isinstance(receipt, Receipt)
    receipt.admission.let_go()
    assert world.asked == ["authenticate", "bring", "decide", "find", "record", "still_true"]


def test_the_disk_is_never_asked_about_something_denied(world):
    access = None
    world.verdict = Denied(access=access, reason=Reason.NOT_PERMITTED, model=MODEL)
    answer = admit(world)
    assert answer == Declined(reason=Reason.NOT_PERMITTED, record_id="r")
    assert "find" not in world.asked


def test_an_answer_stands_on_the_key_as_well_as_on_the_facts(world):
    receipt = admit(world)
    receipt.admission.let_go()
    assert receipt.admission.stamp == Stamp(7, ((b"key", b"1"), (b"rule", None)))


def test_an_answer_whose_facts_moved_is_withdrawn_and_worked_out_anew(world):
    world.still = [False, True]
    admit(world).admission.let_go()
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]
    assert world.asked.count("decide") == 2


def test_facts_that_never_hold_still_end_in_a_recorded_503(world):
    world.still = [False]
    answer = admit(world)
    assert answer == Declined(reason=Reason.FACTS_MOVED, record_id="r")
    assert len(world.endings) == MAX_ATTEMPTS
    assert world.rejections[-1].reason is Reason.FACTS_MOVED


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


def test_a_last_check_that_cannot_be_made_withdraws(world):
    before = open_descriptors()
    world.still = [Unavailable("redis", "gone")]
    assert admit(world) == Declined(reason=Reason.NO_FACTS, record_id="r")
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]
    assert open_descriptors() == before


def test_a_request_that_is_cancelled_at_the_last_check_closes_its_record_and_file(world):
    before = open_descriptors()

    async def cancelled():
        started = asyncio.Event()

        async def hang(stamp):
            started.set()
            await asyncio.sleep(60)

        world.still_true = hang
        task = asyncio.ensure_future(world.guard().admit(REQUEST, ROUTE))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert [one.ending for one in world.endings] == [Ending.WITHDRAWN]
    assert open_descriptors() == before
