"""The guard's decisions about a request to an inference server: about all of its models, or about none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache

import pytest

from gateway.decisions import Judgement
from gateway.guard import MAX_MODELS, Guard
from gateway.model.access import Action, Credential, Principal, ResourceKind, WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.facts import Facts, KeyKind, PolicySet, Scope
from gateway.model.names import KeyId, ModelId, TenantId
from gateway.model.routes import Asked
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import (
    WITHDRAWN,
    Admission,
    Allowed,
    Declined,
    Denied,
    Forwarded,
    Receipt,
    Rejection,
)

PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset({Scope.INFER}),
    expires_at=100.0,
)
CREDENTIAL = Credential("opaque-key-of-somebody")
REQUEST = WireRequest(
    method="POST",
    raw_path=b"/inference/ocr/pp-ocr",
    query=b"",
    headers=(),
    client="127.0.0.1",
    route="{mount}/ocr/pp-ocr",
    trace_id=None,
    received_at=1.0,
)
KEY_STAMP = Stamp(7, (Leaf(b"key", b"1"),))
ONE, TWO, THREE = (ModelId(f"acme/{number}") for number in (1, 2, 3))


@cache  # leaves are compared by what they are, not by what they say
def stamp_of(model):
    return Stamp(8, (Leaf(b"of " + str(model).encode(), None),))


@dataclass
class World:
    """All stages in one: denies what it is told to, and keeps what was judged and recorded, in order."""

    denied: dict[str, Reason] = field(default_factory=dict)
    brings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refusal: Exception | None = None
    audit_fault: Exception | None = None
    gone: ModelId | None = None  # whose facts have changed
    leased: bool = True
    events: list[str] = field(default_factory=list)
    written: list[list[Admission | Rejection]] = field(default_factory=list)
    closed: list[tuple[str, object]] = field(default_factory=list)

    def recall(self, *asked):
        return None

    async def authenticate(self, credential, client, now):
        self.events.append("authenticate")
        if self.refusal:
            raise self.refusal
        return PRINCIPAL, KEY_STAMP

    def is_leased(self):
        return self.leased

    def verify_fresh(self, degraded_seconds):
        pass

    async def reach(self, access):
        model = access.resource.model
        self.events.append(f"decide {model}")
        facts = Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=None,
            model_standing=None,
            policy=PolicySet(schema="", policies=(), digest="d"),
            stamp=stamp_of(model),
        )
        reason = self.denied.get(model)
        if reason is not None:
            denied = Denied(access=access, reason=reason, model=model, stamp=facts.stamp)
            return Judgement(denied, facts)
        allowed = Allowed(access=access, model=model, policies=("owners",), grant="owner", stamp=facts.stamp)
        return Judgement(allowed, facts)

    async def find_dependencies(self, principal, model):
        self.events.append(f"brings of {model}?")
        return self.brings.get(model, ())

    def record_all(self, weighed):
        self.events.append("record")
        if self.audit_fault:
            raise self.audit_fault
        self.written.append(list(weighed))
        return [
            Receipt(record_id=f"r{index}", admission=one, on_close=self._closer(index))
            if isinstance(one, Admission)
            else f"r{index}"
            for index, one in enumerate(weighed)
        ]

    def _closer(self, index):
        return lambda outcome: self.closed.append((f"r{index}", outcome))

    def still_true(self, stamp, degraded_seconds):
        if not self.leased:
            raise Unavailable("redis", "no lease", Reason.NO_LEASE)
        return self.gone is None or not set(stamp_of(self.gone).leaves) & set(stamp.leaves)

    def guard(self):
        return Guard(identity=self, directory=self, decisions=self, authorized_files=self, recorder=self)

    async def answer(self, receipt):
        raise AssertionError("nothing is sent by the guard")

    def admit(self, *models):
        asked = Asked(
            credential=CREDENTIAL, models=models, find_dependencies=self.find_dependencies, answer=self.answer
        )
        return asyncio.run(self.guard().admit_all(REQUEST, asked))


@pytest.fixture
def world():
    return World()


def models_of(written):
    return [one.allowed.access.resource.model if isinstance(one, Admission) else one.model for one in written]


# admit_all


def test_every_model_has_its_decision_and_all_are_recorded_in_one_write(world):
    receipts = world.admit(ONE, TWO)
    assert [one.record_id for one in receipts] == ["r0", "r1"]
    [written] = world.written
    assert models_of(written) == [ONE, TWO]
    assert {one.allowed.access.action for one in written} == {Action.INFER}
    assert {one.found for one in written} == {Forwarded(answer=world.answer)}
    assert world.events.count("authenticate") == 1
    assert world.events[-1] == "record"


def test_an_answer_stands_on_the_key_and_on_the_facts_of_its_model(world):
    for receipt, model in zip(world.admit(ONE, TWO), (ONE, TWO), strict=True):
        assert set(receipt.admission.stamp.leaves) == {*KEY_STAMP.leaves, *stamp_of(model).leaves}
        assert receipt.admission.key_stamp == KEY_STAMP


@pytest.mark.parametrize("refused", [ONE, TWO, THREE])
def test_one_refused_model_refuses_all_and_the_refusal_alone_is_recorded(world, refused):
    world.denied = {refused: Reason.NOT_PERMITTED}
    declined = world.admit(ONE, TWO, THREE)
    assert isinstance(declined, Declined)
    assert (declined.reason, declined.record_id) == (Reason.NOT_PERMITTED, "r0")
    [written] = world.written
    assert [(type(one), one.model, one.action) for one in written] == [(Rejection, refused, Action.INFER)]


def test_the_first_refusal_is_answered_and_every_one_is_recorded(world):
    world.denied = {TWO: Reason.MISSING_SCOPE, THREE: Reason.NOT_PERMITTED}
    assert world.admit(ONE, TWO, THREE).reason is Reason.MISSING_SCOPE
    assert models_of(world.written[0]) == [TWO, THREE]


def test_every_model_is_decided_whatever_the_first_came_to(world):
    """The work, and so the time, is the same for each of them (I3)."""
    world.denied = {ONE: Reason.NOT_PERMITTED}
    world.admit(ONE, TWO, THREE)
    assert [one for one in world.events if one.startswith("decide")] == [
        f"decide {model}" for model in (ONE, TWO, THREE)
    ]


def test_what_models_bring_is_decided_and_recorded_with_them(world):
    world.brings = {ONE: (TWO,), TWO: (THREE, ONE)}
    assert len(world.admit(ONE)) == 3
    assert models_of(world.written[0]) == [ONE, TWO, THREE]


def test_nothing_is_asked_about_what_the_caller_may_not_have(world):
    world.denied = {TWO: Reason.NOT_PERMITTED}
    world.admit(ONE, TWO)
    assert not [one for one in world.events if one.startswith("brings")]


def test_a_refused_model_among_what_is_brought_refuses_all(world):
    world.brings, world.denied = {ONE: (TWO,), TWO: (THREE,)}, {THREE: Reason.NOT_PERMITTED}
    assert world.admit(ONE).reason is Reason.NOT_PERMITTED
    assert models_of(world.written[0]) == [THREE]


def test_a_model_that_brings_too_many_is_undecided(world):
    world.brings = {ONE: tuple(ModelId(f"other/{number}") for number in range(MAX_MODELS))}
    declined = world.admit(ONE)
    assert declined.reason is Reason.UPSTREAM_UNDECIDED
    assert [type(one) for one in world.written[0]] == [Rejection]


def test_a_ring_of_models_ends(world):
    world.brings = {ONE: (TWO,), TWO: (ONE, TWO)}
    assert len(world.admit(ONE)) == 2


def test_a_request_without_a_model_needs_a_valid_key_and_is_no_infer(world):
    [receipt] = world.admit()
    access = receipt.admission.allowed.access
    assert (access.action, access.resource.kind) == (Action.IDENTIFY, ResourceKind.SELF)
    world.refusal = Refusal(Reason.REVOKED_KEY, key_id=KeyId("key_abcdefghijkl"))
    assert world.admit().reason is Reason.REVOKED_KEY


def test_a_refused_key_is_recorded_with_what_was_asked_for_and_nothing_is_decided(world):
    world.refusal = Refusal(Reason.REVOKED_KEY, key_id=KeyId("key_abcdefghijkl"))
    assert world.admit(ONE, TWO).reason is Reason.REVOKED_KEY
    [[rejection]] = world.written
    assert (rejection.resource.model, rejection.claimed_key_id) == (ONE, "key_abcdefghijkl")
    assert not [one for one in world.events if one.startswith(("decide", "brings"))]


def test_without_a_lease_nobody_is_refused_on_facts(world):
    world.leased, world.refusal = False, Refusal(Reason.REVOKED_KEY)
    assert world.admit(ONE).reason is Reason.NO_LEASE


def test_without_the_record_nothing_is_handed_out(world):
    world.audit_fault = Unavailable("audit", "no space", Reason.NO_AUDIT)
    with pytest.raises(Unavailable):
        world.admit(ONE)


# confirm_all


def confirm(world, receipts, *, beside=None, now=2.0):
    world.guard().confirm_all(receipts, beside, now)


def test_what_is_still_true_may_be_sent(world):
    confirm(world, world.admit(ONE, TWO), beside=stamp_of(THREE))
    assert world.closed == []


@pytest.mark.parametrize("changed", [ONE, TWO, THREE])
def test_a_changed_fact_of_any_model_or_of_the_list_withdraws_all(world, changed):
    receipts = world.admit(ONE, TWO)
    world.gone = changed
    with pytest.raises(WithdrawnError):
        confirm(world, receipts, beside=stamp_of(THREE))
    assert world.closed == [("r0", WITHDRAWN), ("r1", WITHDRAWN)]


@pytest.mark.parametrize(("now", "is_sent"), [(99.9, True), (100.0, False), (101.0, False)])
def test_a_key_that_has_expired_since_starts_nothing(world, now, is_sent):
    receipts = world.admit(ONE, TWO)
    if is_sent:
        confirm(world, receipts, now=now)
    else:
        with pytest.raises(WithdrawnError):
            confirm(world, receipts, now=now)
    assert [record for record, _ in world.closed] == ([] if is_sent else ["r0", "r1"])


def test_a_last_check_without_a_lease_withdraws_all_and_is_a_failure(world):
    receipts = world.admit(ONE, TWO)
    world.leased = False
    with pytest.raises(Unavailable):
        confirm(world, receipts)
    assert [record for record, _ in world.closed] == ["r0", "r1"]


# inferable


def test_of_a_list_those_are_left_that_the_caller_may_infer_and_all_of_it_can_change(world):
    world.denied = {TWO: Reason.NOT_PERMITTED}
    [receipt] = world.admit()
    allowed, stamp = asyncio.run(world.guard().inferable(receipt, CREDENTIAL, (ONE, TWO, THREE)))
    assert allowed == {ONE, THREE}
    stands_on = (KEY_STAMP, *map(stamp_of, (ONE, TWO, THREE)))
    assert set(stamp.leaves) == {leaf for one in stands_on for leaf in one.leaves}
