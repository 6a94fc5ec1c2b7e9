"""The provider's answers: asked for once, cached for one key, and used while nothing has changed."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from gateway.adapters.provider import ProviderAnswer
from gateway.decisions import Judgement
from gateway.directory.records import names
from gateway.directory.records.codec import encode
from gateway.engine.questions import parse_question
from gateway.model.access import Access, Action, Credential, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Facts, PolicySet, Scope
from gateway.model.names import KeyId, ModelId
from gateway.model.rulings import EndMark
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied
from gateway.platform.inquiry import ProviderRequest
from gateway.platform.upstream import (
    ATTEMPTS,
    PARSED_HERE_BYTES,
    PATIENCE_SECONDS,
    QUESTIONS_OF_A_KEY,
    REMEMBERED_BYTES,
    Upstream,
)
from tests import samples

PATH, MODEL = "/models/v1/external/weights", ModelId("acme/cars/1")
POLICY = PolicySet(schema="", policies=(), digest="d")


@dataclass
class World:
    """A provider and rules that a test fills in, and a clock that does not run."""

    answers: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    hidden: set = field(default_factory=set)
    now: float = 1000.0
    gate: asyncio.Event | None = None

    async def ask(self, path, query, headers):
        self.asked.append((path, query, dict(headers)))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return ProviderAnswer(status=answer[0], body=answer[1])

    def recall(self, access):
        return None

    async def reach(self, access):
        model = access.resource.model
        facts = Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=None,
            model_standing=None,
            policy=POLICY,
            stamp=stamp(),
        )
        if model in self.hidden:
            return Judgement(Denied(access=access, reason=Reason.NOT_PERMITTED, model=model), facts)
        return Judgement(allowed(access), facts)

    def monotonic(self):
        return self.now


def stamp():
    return Stamp(1, (Leaf(b"fact", b""),))


def allowed(access):
    return Allowed(access=access, model=access.resource.model, policies=(), grant=None, stamp=stamp())


def inquiry(key_id="key_0123456789ab", query=b"modelId=acme%2Fcars%2F1", headers=()):
    principal = samples.principal(key_id=KeyId(key_id), scopes=frozenset({Scope.READ}))
    resource = Resource(kind=ResourceKind.MODEL, model=MODEL)
    request = samples.wire_request(raw_path=PATH.encode(), query=query, headers=headers, route=PATH)
    return ProviderRequest(
        request=request,
        allowed=allowed(Access(principal=principal, action=Action.DISCOVER, resource=resource)),
        question=parse_question(query),
        credential=Credential("cg_test_secret"),
    )


def parse(body):
    return body, ModelId(body.decode()) if body.startswith(b"globex") else None


@pytest.fixture
def world():
    return World(answers=[(200, b"said")])


@pytest.fixture
def upstream(world):
    return Upstream(provider=world, decisions=world, authority=None, clock=world, remembered_seconds=60.0)


def told(upstream, *inquiries):
    async def ask():
        return [(await upstream.reply_to(PATH, one, parse)).what for one in inquiries]

    return asyncio.run(ask())


def test_the_key_goes_in_one_header_and_the_question_is_written_anew(world, upstream):
    headers = ((b"authorization", b"Bearer other"), (b"user-agent", b"engine"), (b"cookie", b"c"))
    told(upstream, inquiry(headers=headers))
    [(path, query, sent)] = world.asked
    assert (path, query) == (PATH, "modelId=acme%2Fcars%2F1")
    assert sent == {b"user-agent": b"engine", b"authorization": b"Bearer cg_test_secret"}


def test_one_key_asks_once_for_a_while(world, upstream):
    same = inquiry()
    assert told(upstream, same, same, inquiry()) == [b"said"] * 3
    assert len(world.asked) == 1
    world.now += 60.0
    told(upstream, same)
    assert len(world.asked) == 2


def test_what_is_remembered_is_told_without_waiting_and_nothing_else_is(world, upstream):
    assert upstream.reply_now(PATH, inquiry()) is None
    told(upstream, inquiry())
    known = upstream.reply_now(PATH, inquiry())
    assert (known.what, known.is_local, known.is_remembered) == (b"said", False, True)
    assert upstream.reply_now("/another", inquiry()) is None
    assert upstream.reply_now(PATH, inquiry(key_id="key_0123456789ac")) is None
    world.now += 60.0
    assert upstream.reply_now(PATH, inquiry()) is None
    assert len(world.asked) == 1


def test_an_answer_about_another_name_is_not_told_without_a_decision_about_that_name(world, upstream):
    world.answers = [(200, b"globex/cars/1")]
    told(upstream, inquiry())
    assert upstream.reply_now(PATH, inquiry()) is None


@pytest.mark.parametrize(
    "other",
    [
        inquiry(key_id="key_0123456789ac"),
        inquiry(query=b"modelId=acme%2Fcars%2F1&a=1"),
        inquiry(query=b"modelId=acme%2Fcars%2F1&startAfter=2"),
        inquiry(headers=((b"x-allow-chunked", b"true"),)),
    ],
)
def test_nothing_is_shared_with_another_key_or_question(world, upstream, other):
    told(upstream, inquiry(), other)
    assert len(world.asked) == 2


@pytest.mark.parametrize("answer", [(401, b""), (403, b""), (500, b""), Unavailable("upstream", "gone")])
def test_what_is_no_answer_is_not_remembered(world, upstream, answer):
    world.answers = [answer, (200, b"later")]
    with pytest.raises((Refusal, Unavailable)):
        told(upstream, inquiry())
    assert told(upstream, inquiry()) == [b"later"]


def test_another_name_is_authorised_before_anything_is_used(world, upstream):
    world.answers = [(200, b"globex/secret/1")]
    assert told(upstream, inquiry()) == [b"globex/secret/1"]
    world.hidden.add("globex/secret/1")  # what is cached is authorised anew as well
    with pytest.raises(Refusal) as refusal:
        told(upstream, inquiry())
    assert refusal.value.reason is Reason.NOT_PERMITTED
    assert len(world.asked) == 1


def on_an_allow_of_the_platform(leaf):
    """A platform's key asks, under an allow that depends on this leaf."""
    asking = inquiry()
    access = asking.allowed.access
    principal = replace(access.principal, is_of_platform=True)
    allow = replace(asking.allowed, access=replace(access, principal=principal), stamp=Stamp(1, (leaf,)))
    return replace(asking, allowed=allow)


@pytest.mark.parametrize("is_of_platform", [True, False])
def test_a_remembered_word_ends_with_the_allow_that_it_was_asked_on(world, upstream, is_of_platform):
    leaf = Leaf(b"ruling", b"")
    asking = on_an_allow_of_the_platform(leaf)
    if not is_of_platform:  # an operator's own key: a change of its facts says nothing of the provider
        access = asking.allowed.access
        principal = replace(access.principal, is_of_platform=False)
        asking = replace(asking, allowed=replace(asking.allowed, access=replace(access, principal=principal)))
    told(upstream, asking, asking)
    assert len(world.asked) == 1
    leaf.is_current = False  # the allow ended, or was ended; the next one is another
    told(upstream, replace(asking, allowed=replace(asking.allowed, stamp=stamp())))
    assert len(world.asked) == (2 if is_of_platform else 1)


@dataclass
class Endings:
    """An authority that knows of endings and nothing else; also its own source."""

    applied: int = 5
    records: dict = field(default_factory=dict)
    are_in_memory: bool = True

    @property
    def source(self):
        return self

    async def moment(self):
        return self.applied, 0.0

    async def read(self, wanted):
        return self.applied, [Leaf(one, self.records.get(one)) for one in wanted]

    def find(self, wanted):
        leaves = [Leaf(one, self.records.get(one)) for one in wanted]
        return leaves if self.are_in_memory else None

    def end(self, about):
        self.applied += 1
        self.records[about] = encode(EndMark(generation=self.applied))


ENDED = {
    "everything": names.ending_fact(None),
    "the key": names.ending_fact(KeyId("key_0123456789ab"), is_key=True),
    "the model": names.ending_fact(MODEL),
    "its name there": names.ending_fact(ModelId("globex/vans/2")),
}


@pytest.mark.parametrize("ended", ENDED)
def test_a_remembered_word_is_not_used_once_it_was_ended(world, ended):
    authority = Endings()
    upstream = Upstream(
        provider=world, decisions=world, authority=authority, clock=world, remembered_seconds=60.0
    )
    world.answers = [(200, b"globex/vans/2")]
    told(upstream, inquiry(), inquiry())
    assert len(world.asked) == 1
    authority.end(names.ending_fact(ModelId("acme/others/1")))
    told(upstream, inquiry())
    assert len(world.asked) == 1
    authority.end(ENDED[ended])
    told(upstream, inquiry(), inquiry())
    assert len(world.asked) == 2


@pytest.mark.parametrize("ended", [name for name in ENDED if name != "its name there"])
def test_what_was_ended_or_may_have_been_is_not_told_without_waiting(world, ended):
    authority = Endings()
    upstream = Upstream(
        provider=world, decisions=world, authority=authority, clock=world, remembered_seconds=60.0
    )
    told(upstream, inquiry())
    assert upstream.reply_now(PATH, inquiry()) is not None
    authority.are_in_memory = False
    assert upstream.reply_now(PATH, inquiry()) is None
    authority.are_in_memory = True
    authority.end(names.ending_fact(ModelId("acme/others/1")))
    assert upstream.reply_now(PATH, inquiry()) is not None
    authority.end(ENDED[ended])
    assert upstream.reply_now(PATH, inquiry()) is None


def test_a_word_that_is_ended_each_time_while_it_is_said_is_not_used(world):
    authority = Endings()
    upstream = Upstream(
        provider=world, decisions=world, authority=authority, clock=world, remembered_seconds=60.0
    )
    ask = world.ask

    async def ask_and_end(*question):
        authority.end(ENDED["the key"])
        return await ask(*question)

    world.ask = ask_and_end
    with pytest.raises(Unavailable):
        told(upstream, inquiry())
    assert len(world.asked) == ATTEMPTS


def test_all_who_ask_the_same_at_once_share_one_flight(world, upstream):
    async def crowd():
        world.gate = asyncio.Event()
        waiting = [asyncio.create_task(upstream.reply_to(PATH, inquiry(), parse)) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # a cancelled caller leaves the others waiting
        await asyncio.sleep(0)
        world.gate.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(crowd())
    assert isinstance(results[0], asyncio.CancelledError)
    assert {one.what for one in results[1:]} == {b"said"}
    assert len(world.asked) == 1


@pytest.mark.parametrize("first", [(200, b"early"), (403, b"")])
def test_who_joined_an_overtaken_question_gets_a_later_answer(world, upstream, first):
    """A denial counts no more than an answer: the right may have been granted meanwhile."""
    world.answers = [first, (200, b"late")]
    leaf = Leaf(b"ruling", b"")

    async def crowd():
        world.gate = asyncio.Event()
        askers = [
            on_an_allow_of_the_platform(one) for one in (leaf, Leaf(b"ruling", b""), Leaf(b"ruling", b""))
        ]
        waiting = [asyncio.create_task(upstream.reply_to(PATH, one, parse)) for one in askers]
        await asyncio.sleep(0)
        leaf.is_current = False
        world.gate.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    asked_first, *joined = asyncio.run(crowd())
    assert isinstance(asked_first, Refusal) if first[0] == 403 else asked_first.what == b"early"
    assert [one.what for one in joined] == [b"late"] * 2
    assert len(world.asked) == 2


@pytest.mark.parametrize("size", [PARSED_HERE_BYTES, PARSED_HERE_BYTES + 1])
def test_a_large_answer_is_parsed_off_the_loop(world, upstream, size):
    threads = []

    def parse_noting(body):
        threads.append(threading.current_thread() is threading.main_thread())
        return body, None

    world.answers = [(200, b"x" * size)]
    asyncio.run(upstream.reply_to(PATH, inquiry(), parse_noting))
    assert threads == [size <= PARSED_HERE_BYTES]


def test_what_is_wrong_with_a_large_answer_is_told_as_of_a_small_one(world, upstream):
    def refuse(_body):
        raise Unavailable("upstream", "no answer")

    world.answers = [(200, b"x" * (PARSED_HERE_BYTES + 1))]
    with pytest.raises(Unavailable):
        asyncio.run(upstream.reply_to(PATH, inquiry(), refuse))
    assert len(upstream.memory) == 0


def test_memory_is_bounded(world, upstream):
    world.answers = [(200, b"x" * (REMEMBERED_BYTES // 2 + 1))]
    first, second = inquiry(), inquiry(query=b"modelId=acme%2Fcars%2F1&a=1")
    told(upstream, first, second, first)
    assert len(world.asked) == 3


def test_questions_count_as_well_as_answers(world, upstream):
    """A small answer to a large request must not fill the memory."""
    world.answers = [(200, b"x")]
    padding = b"".join(b"&x%d=" % number + b"a" * 200 for number in range(20))
    told(upstream, *(inquiry(query=b"modelId=acme%%2Fcars%%2F1&n=%d" % n + padding) for n in range(8)))
    assert upstream.memory.held_bytes > 8 * len(padding)


def test_there_are_only_so_many_answers(world, upstream):
    upstream.memory._max_entries = 2
    first, *others = (inquiry(query=b"modelId=acme%%2Fcars%%2F1&n=%d" % n) for n in range(3))
    told(upstream, first, *others, first)
    assert len(world.asked) == 4


def test_what_is_over_is_let_go_of_though_nobody_asks_for_it_again(world, upstream):
    for number in range(3):
        told(upstream, inquiry(query=b"modelId=acme%%2Fcars%%2F1&n=%d" % number))
        world.now += 20.0
    assert len(upstream.memory) == 3
    list(upstream.memory.sweep())
    assert len(upstream.memory) == 2


def test_one_key_asks_only_so_much_at_once_and_nobody_else_waits_for_it(world, upstream, run_in_virtual_time):
    queries = [b"modelId=acme%%2Fcars%%2F1&n=%d" % n for n in range(QUESTIONS_OF_A_KEY + 3)]

    async def crowd():
        world.gate = asyncio.Event()
        limiter = [asyncio.create_task(upstream.reply_to(PATH, inquiry(query=one), parse)) for one in queries]
        await asyncio.sleep(PATIENCE_SECONDS / 2)  # all requests of the share are under way, the others wait
        assert len(world.asked) == QUESTIONS_OF_A_KEY
        other = asyncio.create_task(upstream.reply_to(PATH, inquiry(key_id="key_0123456789ac"), parse))
        await asyncio.sleep(PATIENCE_SECONDS)  # the timeout of the waiting requests is over by then
        assert len(world.asked) == QUESTIONS_OF_A_KEY + 1
        world.gate.set()
        assert (await other).what == b"said"
        return await asyncio.gather(*limiter, return_exceptions=True)

    results = run_in_virtual_time(crowd())
    assert [type(one) for one in results[QUESTIONS_OF_A_KEY:]] == [Unavailable] * 3
    assert {one.what for one in results[:QUESTIONS_OF_A_KEY]} == {b"said"}


def test_nothing_is_under_way_any_more_once_it_is_closed(world, upstream, run_in_virtual_time):
    async def leave():
        world.gate = asyncio.Event()
        waiting = asyncio.create_task(upstream.reply_to(PATH, inquiry(), parse))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await upstream.close()
        return asyncio.all_tasks() - {asyncio.current_task(), waiting}

    assert run_in_virtual_time(leave()) == set()
    assert len(upstream._tasks) == 0


def test_no_key_is_printed():
    assert "cg_test_secret" not in repr(inquiry())
    assert "cg_test_secret" not in repr(replace(inquiry(), question=inquiry().question))
