"""What a caller may see: computed once for all concurrent requests, and never older than the request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from gateway.caller_views import DECISIONS_PER_TURN, REMEMBERED_CALLERS, CallerViews
from gateway.decisions import Decisions
from gateway.model.errors import Reason, Unavailable
from gateway.model.facts import Facts, PolicySet, Scope
from gateway.model.listings import ListedPackage
from gateway.model.names import ModelId, PackageId
from gateway.model.periods import PeriodClock, PeriodLeaf, Span
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied
from tests import samples

CALLER = samples.principal(scopes=frozenset({Scope.READ}))
POLICY = PolicySet(schema="", policies=(), digest="d")


@dataclass
class World:
    """Facts with leaves, rules that are a set, and a catalogue that is a tuple."""

    names: tuple = ("m/1", "m/2", "m/3")
    rights: set = field(default_factory=set)
    generation: int = 1
    leaves: dict = field(default_factory=dict)
    decided: int = 0
    is_gone: bool = False

    def __post_init__(self):
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.scan()

    def scan(self):
        self.scanned_models = tuple(ModelId(one) for one in self.names)
        self.scanned = tuple(
            ListedPackage(model=one, package=PackageId("p"), marks=b"") for one in self.scanned_models
        )

    def change(self, *models):
        self.generation += 1
        for model in models:
            self.leaves.pop(model).is_current = False

    def caller_views(self):
        decisions = Decisions(directory=self, rules=self, max_entries=1000, max_bytes=1 << 20)
        return CallerViews(directory=self, decisions=decisions, catalogue=self, max_bytes=1 << 22)

    def models(self):
        return self.scanned_models

    def listed(self):
        return self.scanned

    @property
    def epoch(self):
        return self.generation

    async def gather(self, principal, models):
        facts = [
            Facts(
                grants=(),
                requested=model,
                model=model,
                requested_standing=None,
                model_standing=None,
                policy=POLICY,
                stamp=Stamp(
                    self.generation, (self.leaves.setdefault(model, Leaf(str(model).encode(), b"")),)
                ),
            )
            for model in models
        ]
        if models != [None]:
            self.reached.set()
            await self.gate.wait()
            if self.is_gone:
                raise Unavailable("redis", "gone")
        return facts

    def decide_many(self, accesses, facts):
        self.decided += len(accesses)
        return [
            Allowed(access=one, model=known.model, policies=(), grant=None, stamp=known.stamp)
            if (one.action.value, one.resource.model) in self.rights
            else Denied(access=one, reason=Reason.NOT_PERMITTED, model=known.model)
            for one, known in zip(accesses, facts, strict=True)
        ]


def may(action, *models):
    return {(action, model) for model in models}


def test_many_requests_of_one_caller_work_it_out_once():
    async def scenario():
        world = World(rights=may("discover", "m/1", "m/3"))
        caller_views = world.caller_views()
        answers = await asyncio.gather(*(caller_views.models(CALLER) for _ in range(50)))
        assert set(answers) == {("m/1", "m/3")}
        assert world.decided == 3

    asyncio.run(scenario())


def test_two_callers_share_nothing():
    async def scenario():
        world = World(rights=may("discover", "m/1"))
        caller_views = world.caller_views()
        first = await caller_views.models(CALLER)
        world.rights = may("discover", "m/2")
        assert (first, await caller_views.models(replace(CALLER, key_name="other"))) == (("m/1",), ("m/2",))

    asyncio.run(scenario())


def test_tokens_that_are_limited_alike_share_a_view_and_others_do_not():
    async def scenario():
        world = World(rights=may("discover", "m/1") | may("read", "m/1"))
        caller_views = world.caller_views()
        first = replace(CALLER, token_id="a", expires_at=1.0)
        await caller_views.packages(first)
        decided = world.decided
        assert await caller_views.packages(replace(first, token_id="b", expires_at=2.0))
        assert caller_views.recall_models(replace(first, token_id="c")) == ("m/1",)
        assert world.decided == decided
        assert caller_views.recall_models(replace(first, only="m/2")) is None
        assert caller_views.recall_packages(replace(first, scopes=frozenset())) is None
        bound = replace(CALLER, issuer="https://ci.example", expires_at=1.0)
        await caller_views.packages(bound)
        assert caller_views.recall_packages(replace(bound, expires_at=2.0)) is not None
        assert caller_views.recall_packages(replace(bound, only="m/1")) is None

    asyncio.run(scenario())


def test_a_change_of_something_else_works_nothing_out_anew():
    async def scenario():
        world = World(rights=may("discover", "m/1"))
        caller_views = world.caller_views()
        await caller_views.models(CALLER)
        world.leaves["elsewhere"] = Leaf(b"elsewhere", b"")
        world.change("elsewhere")
        views = (
            caller_views._models.memory
        )  # a decision may be remembered; only the view must be computed anew
        view = views.peek(CALLER)
        assert await caller_views.models(CALLER) == ("m/1",)
        assert views.peek(CALLER) is view

    asyncio.run(scenario())


@pytest.mark.parametrize("view", ["models", "packages"])
def test_a_right_that_came_or_went_is_seen_by_the_next_request(view):
    async def scenario():
        both = may("discover", "m/1", "m/2") | may("read", "m/1", "m/2")
        world = World(rights=both - {("discover", "m/2")})
        ask = getattr(world.caller_views(), view)
        counts = [len(await ask(CALLER))]
        for rights in (both, both - may("discover", "m/1")):
            world.rights = rights
            world.change("m/1", "m/2")
            counts.append(len(await ask(CALLER)))
        assert counts == [1, 2, 1]

    asyncio.run(scenario())


def test_who_asks_after_a_change_does_not_get_what_was_worked_out_before_it():
    async def scenario():
        world = World()
        caller_views = world.caller_views()
        world.gate.clear()
        early = asyncio.create_task(caller_views.models(CALLER))
        await world.reached.wait()
        world.rights = may("discover", "m/2")
        world.change("m/2")
        late = asyncio.create_task(caller_views.models(CALLER))
        await asyncio.sleep(0)
        world.gate.set()
        await early
        assert await late == ("m/2",)

    asyncio.run(scenario())


@pytest.mark.parametrize("view", ["models", "packages"])
def test_a_view_that_was_joined_and_overtaken_is_not_used(view, monkeypatch):
    # Its first decision has changed since, and that change had returned before this request.
    monkeypatch.setattr("gateway.caller_views.DECISIONS_PER_TURN", 1)

    async def scenario():
        world = World(rights=may("discover", "m/1", "m/2") | may("read", "m/1", "m/2"))
        caller_views = world.caller_views()
        ask = getattr(caller_views, view)
        if view == "packages":
            await caller_views.models(CALLER)
        decide, decided = world.decide_many, asyncio.Event()

        def decide_many(accesses, facts):
            world.gate.clear()
            decided.set()
            return decide(accesses, facts)

        world.decide_many = decide_many
        early = asyncio.create_task(ask(CALLER))
        await decided.wait()
        world.reached.clear()
        await world.reached.wait()  # the first model is decided, and the second one is being read
        world.rights -= may("discover", "m/1") | may("read", "m/1")
        world.change("m/1")
        world.decide_many = decide
        late = asyncio.create_task(ask(CALLER))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not late.done()
        world.gate.set()
        await early
        assert [getattr(one, "model", one) for one in await late] == ["m/2"]

    asyncio.run(scenario())


def test_a_package_needs_the_right_to_read_it_and_to_discover_its_model():
    async def scenario():
        world = World(rights=may("discover", "m/1", "m/2") | may("read", "m/2", "m/3"))
        assert [one.model for one in await world.caller_views().packages(CALLER)] == ["m/2"]

    asyncio.run(scenario())


def test_a_package_that_came_is_seen_though_no_fact_moved():
    async def scenario():
        world = World(names=("m/1",), rights=may("discover", "m/1", "m/2") | may("read", "m/1", "m/2"))
        caller_views = world.caller_views()
        assert len(await caller_views.packages(CALLER)) == 1
        world.names = ("m/1", "m/2")
        world.scan()
        assert len(await caller_views.packages(CALLER)) == 2

    asyncio.run(scenario())


def test_who_leaves_takes_nobody_with_it():
    async def scenario():
        world = World(rights=may("discover", "m/1"))
        caller_views = world.caller_views()
        world.gate.clear()
        first, second = (asyncio.create_task(caller_views.models(CALLER)) for _ in range(2))
        await world.reached.wait()
        first.cancel()
        world.gate.set()
        assert await second == ("m/1",)
        assert world.decided == 3

    asyncio.run(scenario())


def test_a_failure_is_told_to_all_who_wait_and_not_kept():
    async def scenario():
        world = World(rights=may("discover", "m/1"), is_gone=True)
        caller_views = world.caller_views()
        told = await asyncio.gather(*(caller_views.models(CALLER) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in told] == [Unavailable] * 3
        world.is_gone = False
        assert await caller_views.models(CALLER) == ("m/1",)

    asyncio.run(scenario())


def test_only_so_many_callers_are_remembered():
    async def scenario():
        caller_views = World().caller_views()
        for number in range(REMEMBERED_CALLERS + 5):
            await caller_views.models(replace(CALLER, key_name=str(number)))
        assert len(caller_views._models.memory) == REMEMBERED_CALLERS
        assert not len(caller_views._models._computing)

    asyncio.run(scenario())


def test_no_more_is_made_at_once_than_is_decided_at_once():
    """Making all questions of a large cache before the first decision would block the event loop."""
    made = []

    class Many(tuple):
        __slots__ = ()

        def __iter__(self):
            for one in super().__iter__():
                made.append(one)
                yield one

    async def scenario():
        world = World(names=tuple(f"m/{number:05}" for number in range(5 * DECISIONS_PER_TURN)))
        world.scanned_models = Many(world.scanned_models)
        world.gate.clear()
        working = asyncio.create_task(world.caller_views().models(CALLER))
        await world.reached.wait()
        assert len(made) == DECISIONS_PER_TURN
        world.gate.set()
        await working
        assert world.decided == 5 * DECISIONS_PER_TURN

    asyncio.run(scenario())


# From memory, and when a view ends


@pytest.mark.parametrize("view", ["models", "packages"])
def test_what_is_in_memory_is_what_waiting_finds_and_else_nothing(view):
    async def scenario():
        world = World(rights=may("discover", "m/1", "m/2") | may("read", "m/1", "m/2"))
        views = world.caller_views()
        ask, recall = getattr(views, view), getattr(views, f"recall_{view}")
        assert recall(CALLER) is None
        found = await ask(CALLER)
        assert recall(CALLER) is found
        assert recall(replace(CALLER, key_name="another")) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("view", ["models", "packages"])
@pytest.mark.parametrize("reason", ["a fact", "a scan"])
def test_a_view_ends_with_a_fact_of_its_own_and_with_the_scan(view, reason):
    async def scenario():
        world = World(rights=may("discover", "m/1", "m/2") | may("read", "m/1", "m/2"))
        views = world.caller_views()
        ask, recall = getattr(views, view), getattr(views, f"recall_{view}")
        await ask(CALLER)
        world.rights -= may("discover", "m/1")
        if reason == "a fact":
            world.change("m/1")
        else:
            world.names = ("m/2",)
            world.scan()
        assert recall(CALLER) is None
        assert [getattr(one, "model", one) for one in await ask(CALLER)] == ["m/2"]
        assert recall(CALLER) is not None

    asyncio.run(scenario())


class CountedLeaf(Leaf):
    """A record that counts how often it is asked whether it is current."""

    asked = 0

    def __getattribute__(self, name):
        if name == "is_current":
            CountedLeaf.asked += 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("view", ["models", "packages"])
def test_within_one_epoch_no_record_is_looked_at_and_in_the_next_each_once(view):
    async def scenario():
        world = World(rights=may("discover", "m/1", "m/2") | may("read", "m/1", "m/2"))
        world.leaves = {name: CountedLeaf(name.encode(), b"") for name in world.names}
        views = world.caller_views()
        recall = getattr(views, f"recall_{view}")
        found = await getattr(views, view)(CALLER)
        counts = []
        for epoch in (1, 2, 2, 3):
            world.generation = epoch
            CountedLeaf.asked = 0
            assert recall(CALLER) is found
            counts.append(CountedLeaf.asked)
        assert counts[0] == counts[2] == 0
        assert counts[1] == counts[3] >= 2

    asyncio.run(scenario())


def test_a_change_while_a_view_is_computed_is_not_lost_with_the_epoch():
    """The epoch of a view is the one in which its first record was read."""

    async def scenario():
        world = World(rights=may("discover", "m/1"))
        views = world.caller_views()
        world.gate.clear()
        computing = asyncio.create_task(views.models(CALLER))
        await world.reached.wait()
        world.rights = may("discover", "m/2")
        world.change("m/1")  # its record was read, and is not what it was by the time that this ends
        world.gate.set()
        await computing
        assert views.recall_models(CALLER) is None
        assert await views.models(CALLER) == ("m/2",)

    asyncio.run(scenario())


def test_what_ends_by_time_is_looked_at_in_the_same_epoch_too():
    """Nothing changes the facts when a grant begins or ends, so no epoch tells of it."""

    class Clock:
        time = 1.0

        def now(self):
            return self.time

    world, clock = World(), Clock()
    periods = PeriodClock(clock)
    span = Span.around([], [5.0], periods.now(), periods.latest)
    for model in world.scanned_models:
        world.leaves[model] = PeriodLeaf(Leaf(model.encode(), b""), None, span, periods)

    async def look():
        views = world.caller_views()
        await views.models(CALLER)
        decided = world.decided
        await views.models(CALLER)
        assert world.decided == decided
        clock.time = 5.0
        assert views.recall_models(CALLER) is None

    asyncio.run(look())
