"""Cached and uncached answers agree, over random histories of changes, requests, replies and pushes.

The rules are the shipped ones, the facts are written by the real writers, and the caches are a worker's.
Only the server is simulated: it reads its state when it is asked, while its replies arrive late and in any
order, and its pushes late and in their own order. These are all the reorderings that a network permits.
"""

from __future__ import annotations

import asyncio
import copy
import random

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.decision.policyset import digest_of, load_policy_folder
from gateway.decision.rulebook import Rulebook
from gateway.decisions import Decisions
from gateway.directory.edits.changes import change
from gateway.directory.memory import near_facts
from gateway.directory.memory.follower import Follower
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import Reason, Unavailable
from gateway.model.facts import DEFAULT_SCOPES, Alias, Grant, Grants, ModelRule, Visibility
from gateway.model.names import KeyId, ModelId, PackageId, Pattern, TenantId
from gateway.model.stores import Batch, Moment
from gateway.model.verdicts import Allowed
from tests import samples
from tests.examples import examples

HISTORY = "0" * 32
near_facts.ECHO_SECONDS = 60.0  # here a push comes when the history says so
ENTRIES_OF_ONE_ANSWER = 100  # a memory that cannot hold one answer's records never has a current one
TENANTS = [TenantId("acme"), TenantId("globex")]
MODELS = [ModelId("acme/x"), ModelId("acme/deep/y"), ModelId("alias")]
PATTERNS = [Pattern(text) for text in ("acme/*", "acme/x")]


def moment(generation):
    return Moment(history=HISTORY, generation=generation, mark=f"{generation:016x}")


class MemoryStore:
    """A fact store in a dictionary: says what is true when it is asked, answers when it is let."""

    def __init__(self):
        self.facts = {}
        self.counter = 0
        self.replies = []
        self.untold = []  # (names, generation) of each change that no push told of yet
        self.is_held = False

    def frozen(self):
        """The state of this moment, as a store that answers at once."""
        other = MemoryStore()
        other.facts, other.counter = copy.copy(self.facts), self.counter
        return other

    async def read(self, names):
        reply = moment(self.counter), [self.facts.get(name) for name in names]
        if self.is_held:
            arrives = asyncio.get_running_loop().create_future()
            self.replies.append(arrives)
            await arrives
        return reply

    async def transact(self, plan):
        batch = Batch()
        result = await plan(_Snapshot(self), batch)
        self.counter += 1
        for name, value in batch.facts.items():
            self.facts.pop(name, None) if value is None else self.facts.update({name: value})
        self.untold.append((set(batch.facts), self.counter))
        return result, moment(self.counter)

    def move(self):
        pass


class _Snapshot:
    def __init__(self, store):
        self._store = store
        self.next_generation = store.counter + 1

    async def read(self, names):
        return [self._store.facts.get(name) for name in names]

    async def members(self, name):
        return []

    async def hash_field(self, name, key):
        return None


class Memory:
    """An operator's word is not needed here: it is always the same history."""

    def known(self):
        return None

    def note(self, _moment):
        return True


class Clock:
    def monotonic(self):
        return 0.0


class Worker:
    """Everything of a worker between the store and the guard."""

    def __init__(self, store, *, max_entries):
        lease = Lease(1.0)
        self.cache = NearCache(max_entries=max_entries, max_bytes=1 << 20)
        self.facts = NearFacts(store, self.cache, lease, Clock())
        self.follower = Follower(self.facts, lease, Memory())
        self.decisions = Decisions(
            directory=DirectoryReader(store, self.facts),
            rules=RULES,
            max_entries=max_entries,
            max_bytes=1 << 20,
        )


def access(tenant, model):
    principal = samples.principal(key_id=KeyId("key_000000000000"), tenant=tenant, scopes=DEFAULT_SCOPES)
    package = Resource(kind=ResourceKind.PACKAGE, model=model, package=PackageId("pkg"))
    return Access(principal=principal, action=Action.READ, resource=package)


SHIPPED = load_policy_folder(CHECKOUT_POLICIES)
HELD = '@id("held") forbid (principal, action, resource in ModelGroup::"pattern:acme/deep/*");\n'
WITH_HELD = tuple(sorted((*SHIPPED.policies, ("held.cedar", HELD))))
POLICIES = (SHIPPED, replace(SHIPPED, policies=WITH_HELD, digest=digest_of(SHIPPED.schema, WITH_HELD)))
RULES = Rulebook()


def writing(drawn):
    """One change, as it is written."""
    kind, value = drawn
    if kind == "rule":
        return lambda changes: changes.put_rule(value)
    if kind == "grants":
        return lambda changes: changes.put_grants(value)
    if kind == "policy":
        return lambda changes: changes.put_policy(POLICIES[value])
    if value is None:
        return lambda changes: changes.delete_alias(MODELS[2])
    return lambda changes: changes.put_alias(Alias(alias=MODELS[2], canonical=value))


class Dice:
    """A history from a seed: Hypothesis' own lists stay short, and what goes wrong goes wrong late."""

    KINDS = ("change", "change", "ask", "ask", "reply", "reply", "replies", "push", "push", "upset")

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.max_entries = self.random.choice([2, 9, 100])

    def history(self):
        for _ in range(self.random.randint(20, 60)):
            kind = self.random.choice(self.KINDS)
            match kind:
                case "change":
                    yield kind, self.change()
                case "ask":
                    # Few of each, so that what is asked is what is changed.
                    yield kind, access(self.random.choice(TENANTS), self.random.choice(MODELS))
                case "reply" | "replies":
                    yield kind, self.random.randint(1, 5)
                case "upset":
                    yield self.random.choice(["reconnect", "flush"]), None
                case _:
                    yield kind, None

    def change(self):
        pick = self.random.choice
        match pick(["rule", "rule", "grants", "alias", "policy"]):
            case "rule":
                rule = ModelRule(
                    pattern=pick(PATTERNS),
                    owner=pick([None, *TENANTS]),
                    visibility=pick([None, Visibility.PUBLIC]),
                )
                return "rule", rule
            case "grants":
                pattern = pick([None, *PATTERNS])
                grant = Grant(grant_id="grant_1", actions=frozenset({"read"}), models=(pattern,))
                return "grants", Grants(tenant_id=pick(TENANTS), grants=() if pattern is None else (grant,))
            case "alias":
                return "alias", pick([None, *MODELS[:2]])
            case _:
                return "policy", pick([0, 1])


async def quiet():
    for _ in range(12):
        await asyncio.sleep(0)


async def uncached(store, asked):
    """The answer of now, by nothing that was ever remembered."""
    reader = DirectoryReader(store, PlainFacts(store))
    [known] = await reader.gather(asked.principal, [asked.resource.model])
    return RULES.decide(asked, known)


def gist(verdict):
    return type(verdict), verdict.model, verdict.policies, getattr(verdict, "reason", None)


class Play:
    """One history, step by step."""

    def __init__(self, max_entries):
        self.store = MemoryStore()
        self.worker = Worker(self.store, max_entries=max_entries)
        self.asked = []
        self.questions = set()
        self.applied_policies = 0
        self.asked_at = {}  # the state at which each question was asked, where all of it had been told
        self.known, self.known_at = {}, None

    async def begin(self):
        await change(self.store, lambda one: one.put_policy(POLICIES[0]))
        self.store.untold.clear()
        self.worker.follower.connected(moment(self.store.counter), 1)
        self.store.is_held = True

    async def step(self, kind, value):
        store, follower = self.store, self.worker.follower
        if kind == "change":
            await change(store, writing(value))
            self.applied_policies += value[0] == "policy"
        elif kind == "ask":
            self.questions.add(value)
            task = asyncio.create_task(self.worker.decisions.reach(value))
            self.asked.append((value, task))
            self.asked_at[task] = None if store.untold else store.counter
        elif kind == "reply" and store.replies:
            store.replies.pop(value % len(store.replies)).set_result(None)
        elif kind == "replies":  # several round trips of everybody
            for _ in range(value):
                while store.replies:
                    store.replies.pop().set_result(None)
                await quiet()
        elif kind == "push" and store.untold:
            names, generation = store.untold.pop(0)
            follower.changed(names)
            follower.applied([(generation, moment(generation).mark)])
        elif kind == "reconnect":
            follower.disconnected()
            store.untold.clear()
            follower.connected(moment(store.counter), 1)
        elif kind == "flush":
            follower.changed(None)
        await quiet()

    async def finish(self):
        while self.store.replies or self.store.untold:
            await self.step("reply", 0)
            await self.step("push", None)

    async def verify(self):
        """What would still pass the last check is what would be said now."""
        moving = {name for names, _ in self.store.untold for name in names}
        for asked, task in [one for one in self.asked if one[1].done()]:
            if isinstance(task.exception(), Unavailable):
                self.asked.remove((asked, task))
                self.verify_undecided(task)
                continue
            judgement = task.result()
            assert judgement.verdict.access == asked
            if self.asked_at.pop(task, None) == self.store.counter:
                # All was told when it was asked, and nothing changed since: even what may not be sent
                # any more, and even a denial, which nobody confirms, is the answer of now.
                assert gist(judgement.verdict) == gist(await self.of_now(asked))
            if not judgement.is_current:
                self.asked.remove((asked, task))
            elif not any(leaf.name in moving for leaf in judgement.facts.stamp.leaves):
                assert gist(judgement.verdict) == gist(await self.of_now(asked))

    def verify_undecided(self, task):
        """Only rules that were replaced again and again under a question leave it undecided."""
        assert task.exception().reason is Reason.NO_POLICY
        assert self.applied_policies >= 2

    async def of_now(self, asked):
        """The answer of now, by nothing that was ever remembered; worked out once a state."""
        if self.known_at != self.store.counter:
            self.known, self.known_at = {}, self.store.counter
        if asked not in self.known:
            self.known[asked] = await uncached(self.store.frozen(), asked)
        return self.known[asked]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=examples(250))
@given(st.integers(0, 2**32 - 1))
@example(12246)  # a denial on what was read before a change that had been told
def test_an_answer_that_may_be_sent_is_the_answer_of_now(seed):
    dice = Dice(seed)

    async def play():
        one = Play(dice.max_entries)
        await one.begin()
        for kind, value in dice.history():
            await one.step(kind, value)
            await one.verify()
        await one.finish()
        await one.verify()
        assert all(task.done() for _, task in one.asked)
        one.store.is_held = False
        # Everything was told: whoever asks now gets the answer of now, allowed or not, by memory too.
        for asked in one.questions:
            for _ in range(2):
                reached = await one.worker.decisions.reach(asked)
                assert gist(reached.verdict) == gist(await one.of_now(asked))
                assert reached.is_current or dice.max_entries < ENTRIES_OF_ONE_ANSWER

    asyncio.run(play())


def test_the_histories_are_rich_enough_to_find_both_answers_and_answers_that_were_overtaken():
    # A law about nothing holds: this is one such history, with each of the three in it.
    mine = access(TENANTS[0], MODELS[0])
    owned = ModelRule(pattern=Pattern("acme/*"), owner=TENANTS[0])

    async def play():
        one = Play(100)
        await one.begin()
        await one.step("ask", mine)
        while one.store.replies:
            await one.step("reply", 0)
        await one.step("change", ("rule", owned))
        await one.step("ask", mine)
        await one.step("push", None)
        await one.step("ask", mine)
        await one.finish()
        return [task.result() for _, task in one.asked]

    denied, remembered, allowed = asyncio.run(play())
    assert [isinstance(one.verdict, Allowed) for one in (denied, remembered, allowed)] == [False, False, True]
    assert [one.is_current for one in (denied, remembered, allowed)] == [False, False, True]
