"""Which decisions are remembered and which never are. Rules and directory answer as the test says."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.decisions import DECIDED_AT_ONCE, DECISION_BYTES, UNDECIDED, Decisions, Judgement, question_of
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import Reason, Unavailable
from gateway.model.facts import Facts, PolicySet, Scope
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.rulings import Ruling
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied
from tests import samples

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


MODEL = ModelId("acme/cars/1")
PRINCIPAL = samples.principal(scopes=frozenset({Scope.READ}))


def access(model=MODEL, package="p1", file=None, principal=PRINCIPAL, action=Action.READ):
    resource = Resource(
        kind=ResourceKind.PACKAGE if file is None else ResourceKind.FILE,
        model=ModelId(model),
        package=PackageId(package),
        file=None if file is None else FileHandle(file),
    )
    return Access(principal=principal, action=action, resource=resource)


class Pipeline:
    """A directory whose facts depend on one leaf that the test changes, and rules that obey the test."""

    def __init__(self):
        self.leaf = Leaf(b"fact", b"1")
        self.reason = None  # None: allowed
        self.brought = []
        self.decided = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = None

    def move(self):
        self.leaf.is_current = False
        self.leaf = Leaf(b"fact", b"2")

    async def gather(self, principal, models):
        self.brought.append((principal, list(models)))
        facts = [self.facts(model) for model in models]
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return facts

    def facts(self, model):
        return Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=None,
            model_standing=None,
            policy=PolicySet(schema="", policies=(), digest="d"),
            stamp=Stamp(1, (self.leaf,)),
        )

    def decide_many(self, accesses, facts):
        self.decided += accesses
        return [self.decide(asked, known) for asked, known in zip(accesses, facts, strict=True)]

    def decide(self, asked, known):
        if self.reason is not None:
            return Denied(access=asked, reason=self.reason, model=known.model, stamp=known.stamp)
        return Allowed(access=asked, model=known.model, policies=("p",), grant="owner", stamp=known.stamp)


@pytest.fixture
def pipeline():
    return Pipeline()


@pytest.fixture
def decisions(pipeline):
    return Decisions(directory=pipeline, rules=pipeline, max_entries=3, max_bytes=1 << 20)


async def begin(coroutine):
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("reason", [None, Reason.NOT_PERMITTED, Reason.MISSING_SCOPE])
async def test_a_decision_is_remembered_until_a_fact_on_its_way_moves(decisions, pipeline, reason):
    pipeline.reason = reason
    asked = access()
    assert decisions.recall(asked) is None
    first = await decisions.reach(asked)
    assert decisions.recall(asked).verdict == first.verdict
    assert (await decisions.reach(asked)).verdict == first.verdict
    assert len(pipeline.decided) == 1
    pipeline.move()
    assert decisions.recall(asked) is None
    await decisions.reach(asked)
    assert len(pipeline.decided) == 2


async def test_a_grant_drops_a_denial_as_a_revocation_drops_an_allow(decisions, pipeline):
    for reason, kind in ((Reason.NOT_PERMITTED, Denied), (None, Allowed), (Reason.NOT_PERMITTED, Denied)):
        pipeline.reason = reason
        assert isinstance((await decisions.reach(access())).verdict, kind)
        assert isinstance(decisions.recall(access()).verdict, kind)
        pipeline.move()


@pytest.mark.parametrize("reason", sorted(UNDECIDED))
async def test_what_was_not_decided_is_never_remembered(decisions, pipeline, reason):
    pipeline.reason = Reason(reason)
    await decisions.reach(access())
    assert decisions.recall(access()) is None


async def test_a_store_that_was_silent_is_asked_again(decisions, pipeline):
    pipeline.fault = Unavailable("redis", "gone")
    with pytest.raises(Unavailable):
        await decisions.reach(access())
    pipeline.fault = None
    assert isinstance((await decisions.reach(access())).verdict, Allowed)


async def test_what_moved_while_it_was_decided_is_not_remembered(decisions, pipeline):
    pipeline.gate.clear()
    asking = await begin(decisions.reach(access()))
    pipeline.move()
    pipeline.gate.set()
    assert not (await asking).is_current
    assert decisions.recall(access()) is None


async def test_concurrent_requests_of_one_caller_for_one_decision_compute_it_once(decisions, pipeline):
    pipeline.gate.clear()
    asking = [await begin(decisions.reach(access(file=f"f{number}"))) for number in range(20)]
    pipeline.gate.set()
    judgements = await asyncio.gather(*asking)
    assert len(pipeline.brought) == 1
    # Files of one package share the decision, and each gets it for its own resource.
    assert [one.verdict.access.resource.file for one in judgements] == [f"f{number}" for number in range(20)]


@pytest.mark.parametrize(
    "other",
    [
        access(principal=replace(PRINCIPAL, key_id=KeyId("key_000000000000"))),
        access(principal=replace(PRINCIPAL, tenant=TenantId("globex"))),
        access(principal=replace(PRINCIPAL, scopes=frozenset({Scope.DISCOVER}))),
        access(principal=replace(PRINCIPAL, expires_at=5.0)),
        access(model="acme/cars/2"),
        access(package="p2"),
        access(action=Action.INFER),
    ],
)
async def test_another_caller_or_question_flies_alone(decisions, pipeline, other):
    pipeline.gate.clear()
    asking = [await begin(decisions.reach(access())), await begin(decisions.reach(other))]
    pipeline.gate.set()
    await asyncio.gather(*asking)
    assert len(pipeline.brought) == 2


async def test_a_request_after_a_change_gets_no_decision_that_was_begun_before_it(decisions, pipeline):
    # There is no last check for a denial, so an old one must not reach a later request.
    pipeline.reason = Reason.NOT_PERMITTED
    pipeline.gate.clear()
    early = await begin(decisions.reach(access()))
    pipeline.move()
    late = await begin(decisions.reach(access()))
    pipeline.gate.set()
    early, late = await asyncio.gather(early, late)
    assert (early.is_current, late.is_current) == (False, True)
    assert len(pipeline.decided) == 2


async def test_a_passenger_who_leaves_does_not_take_the_others_along(decisions, pipeline):
    pipeline.gate.clear()
    leaving, staying = await begin(decisions.reach(access())), await begin(decisions.reach(access()))
    leaving.cancel()
    pipeline.gate.set()
    assert isinstance((await staying).verdict, Allowed)
    assert len(pipeline.brought) == 1


async def test_a_decision_whose_waiters_were_all_cancelled_is_remembered_and_over(decisions, pipeline):
    pipeline.gate.clear()
    leaving = await begin(decisions.reach(access()))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    pipeline.gate.set()
    await asyncio.sleep(0.01)
    assert decisions.recall(access()) is not None
    assert len(decisions._in_progress) == 0


async def test_many_questions_are_answered_in_order_and_only_new_ones_are_worked_out(decisions, pipeline):
    asked = [access(package=f"p{number}") for number in range(3)]
    await decisions.reach(asked[1])
    pipeline.decided.clear()
    judgements = await decisions.reach_many(asked)
    assert [one.verdict.access for one in judgements] == asked
    assert pipeline.decided == [asked[0], asked[2]]
    pipeline.decided.clear()
    await decisions.reach_many(asked)
    assert pipeline.decided == []
    assert await decisions.reach_many([]) == []


async def test_many_denials_evict_no_allow(decisions, pipeline):
    await decisions.reach(access())
    pipeline.reason = Reason.NOT_PERMITTED
    for number in range(10):
        await decisions.reach(access(model=f"m{number}"))
    assert isinstance(decisions.recall(access()).verdict, Allowed)
    assert len(decisions._denials) == 3


async def test_many_decisions_are_made_in_turns_that_leave_the_loop_to_others(decisions, pipeline):
    sizes, decide_many = [], pipeline.decide_many

    def decide_noting(accesses, facts):
        sizes.append(len(accesses))
        return decide_many(accesses, facts)

    pipeline.decide_many = decide_noting
    asked = [access(package=f"p{number}") for number in range(2 * DECIDED_AT_ONCE + 1)]
    reaching, turns = asyncio.create_task(decisions.reach_many(asked)), 0
    while not reaching.done():
        turns += 1
        await asyncio.sleep(0)
    assert [one.verdict.access for one in await reaching] == asked
    assert sizes == [DECIDED_AT_ONCE, DECIDED_AT_ONCE, 1]
    assert turns > len(sizes)


async def test_a_decision_holds_what_its_records_are_though_nobody_else_has_them(pipeline):
    """A record that the near cache has evicted is charged here, once for all decisions that hold it."""
    decisions = Decisions(directory=pipeline, rules=pipeline, max_entries=1000, max_bytes=1 << 20)
    leaf = Leaf(b"n" * 10_000, b"v" * 10_000)
    facts = replace(pipeline.facts(MODEL), stamp=Stamp(1, (leaf,)))
    held = []
    for number in range(3):
        asked = access(package=f"p{number}")
        decisions._remember(question_of(asked), Judgement(pipeline.decide(asked, facts), facts))
        held.append(decisions._allows.held_bytes)
    assert held[0] > leaf.held_bytes
    assert held[2] - held[1] == held[1] - held[0] < DECISION_BYTES * 2


async def test_the_least_recently_used_goes_first(decisions):
    for number in range(3):
        await decisions.reach(access(package=f"p{number}"))
    decisions.recall(access(package="p0"))
    await decisions.reach(access(package="p3"))
    kept = [decisions.recall(access(package=f"p{number}")) is not None for number in range(4)]
    assert kept == [True, False, True, True]


@pytest.mark.parametrize(("max_bytes", "limit"), [(3 * DECISION_BYTES, 1), (0, 0), (1 << 30, 3)])
def test_bytes_are_a_bound_of_their_own(pipeline, max_bytes, limit):
    decisions = Decisions(directory=pipeline, rules=pipeline, max_entries=3, max_bytes=max_bytes)
    for number in range(5):
        asked = access(package=f"p{number}")
        facts = pipeline.facts(MODEL)
        decisions._remember(question_of(asked), Judgement(pipeline.decide(asked, facts), facts))
    assert len(decisions._allows) == limit


async def test_hits_and_misses_are_counted(decisions):
    await decisions.reach(access())
    await decisions.reach(access())
    await decisions.reach_many([access(), access(package="p2")])
    assert (decisions.counts.hits, decisions.counts.misses) == (2, 2)


@pytest.mark.parametrize("said", [Reason.UPSTREAM_REFUSED, Reason.USAGE_PAUSED, Reason.PERMITTED])
async def test_what_the_platform_denies_is_denied_whatever_the_rules_say(
    decisions, pipeline, monkeypatch, said
):
    ruling = Ruling(key_id=PRINCIPAL.key_id, model=MODEL, reason=said, until=1.0, asked=1)
    facts = pipeline.facts(MODEL)
    monkeypatch.setattr(pipeline, "facts", lambda _model: replace(facts, ruling=ruling))
    for judgement in (await decisions.reach(access()), *await decisions.reach_many([access()])):
        if said is Reason.PERMITTED:
            assert isinstance(judgement.verdict, Allowed)
        else:
            assert judgement.verdict.reason is said
