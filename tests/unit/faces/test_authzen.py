"""The AuthZEN face: early ends, undecided answers, how many are under way, and what comes back."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.faces import authzen
from gateway.faces.authzen import MAX_UNDER_WAY, AuthzenFace, answer_evaluated, public_routes, request_id
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.questions import Answered, Evaluated, Question
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed
from tests import samples

SHARED = Leaf(b"policy", b"")
ONE = {"subject": {"type": "tenant", "id": "acme"}, "action": {"name": "read"}}
MODEL = {"type": "model", "id": "acme/cars/1"}


def allowed(**caller):
    access = Access(
        principal=samples.principal(**caller), action=Action.ASK, resource=Resource(kind=ResourceKind.SELF)
    )
    return Allowed(access=access, model=None, policies=(), grant=None, stamp=Stamp(9, (SHARED,)))


def request(body, *headers):
    kind = (b"content-type", b"application/json")
    return samples.wire_request(method="POST", headers=(kind, *headers), body=json.dumps(body).encode())


class Answering:
    """Answers questions by the name of their model: yes, no or undecided; or when it is let."""

    def __init__(self):
        self.asked = []
        self.gate = None
        self.counted = []

    async def answer(self, question, asking, now, seconds):
        if self.gate is not None:
            await self.gate.wait()
        name = "no" if question.resource is None else question.resource.model
        self.asked.append((name, seconds > 0))
        stamp = None if name == "undecided" else Stamp(7, (SHARED, Leaf(name.encode(), b"")))
        is_yes = name == "yes"
        reason = Reason.PERMITTED if is_yes else Reason.NO_FACTS
        return Answered(
            question=question, is_yes=is_yes, reason=reason, stamp=stamp, is_undecided=name == "undecided"
        )


@pytest.fixture
def questions():
    return Answering()


def batch(*names, semantic="execute_all"):
    items = [{"resource": {"type": "model", "id": name}} for name in names]
    return {**ONE, "options": {"evaluations_semantic": semantic}, "evaluations": items}


@pytest.mark.parametrize(
    ("semantic", "names", "answered"),
    [
        ("execute_all", ("yes", "no", "undecided", "yes"), 4),
        ("deny_on_first_deny", ("yes", "no", "yes"), 2),
        ("deny_on_first_deny", ("undecided", "yes"), 1),
        ("permit_on_first_permit", ("no", "undecided", "yes", "no"), 3),
        ("permit_on_first_permit", ("no", "no"), 2),
    ],
)
def test_nothing_is_asked_behind_an_early_end(semantic, names, answered, questions):
    face = AuthzenFace(questions, questions.counted.append)
    asked = request(batch(*names, semantic=semantic))
    found, _ = asyncio.run(face.evaluate_all(asked, allowed()))
    assert [name for name, _ in questions.asked] == list(names[:answered])
    assert len(found.answers) == answered
    assert questions.counted == list(names[:answered])


def test_the_answer_stands_on_everything_once_and_on_the_oldest_generation(questions):
    _, stamp = asyncio.run(
        AuthzenFace(questions, questions.counted.append).evaluate_all(request(batch("yes", "no")), allowed())
    )
    assert [leaf.name for leaf in stamp.leaves] == [b"policy", b"yes", b"no"]
    assert stamp.generation == 7


def test_one_question_that_is_not_decided_is_no_answer_and_in_a_batch_it_is_a_no(questions):
    face = AuthzenFace(questions, questions.counted.append)
    undecided = {"type": "model", "id": "undecided"}
    with pytest.raises(Unavailable) as caught:
        asyncio.run(face.evaluate(request({**ONE, "resource": undecided}), allowed()))
    assert caught.value.reason is Reason.NO_FACTS
    found, _ = asyncio.run(face.evaluate_all(request(batch("undecided", "yes")), allowed()))
    assert decisions(found) == [
        {"decision": False, "context": {"error": {"status": 503, "message": "not decided; ask again"}}},
        {"decision": True},
    ]


def decisions(found):
    class Receipt:
        admission = samples.admission(samples.principal(), found=found)

    document = json.loads(answer_evaluated(Receipt).body)
    return document["evaluations"] if found.is_batch else document


@pytest.mark.parametrize(
    "reason", [Reason.NOT_PERMITTED, Reason.UNKNOWN_KEY, Reason.ABSENT, Reason.MISSING_SCOPE]
)
def test_a_no_says_nothing_of_its_reason(reason):
    answered = Answered(question=Question(), is_yes=False, reason=reason)
    assert decisions(Evaluated(answers=(answered,), is_batch=False)) == {"decision": False}


def test_a_key_has_so_many_questions_under_way_and_others_have_their_own(questions):
    async def main():
        face = AuthzenFace(questions, questions.counted.append)
        questions.gate = asyncio.Event()
        full = request(batch(*["yes"] * 100))
        under_way = [
            asyncio.create_task(face.evaluate_all(full, allowed())) for _ in range(MAX_UNDER_WAY // 100)
        ]
        await asyncio.sleep(0)
        one = request({**ONE, "resource": MODEL})
        with pytest.raises(Refusal) as caught:
            await face.evaluate(one, allowed())
        assert caught.value.reason is Reason.BUSY
        other = asyncio.create_task(face.evaluate(one, allowed(key_id="key_000000000001")))
        under_way[0].cancel()
        await asyncio.gather(under_way[0], return_exceptions=True)
        again = asyncio.create_task(face.evaluate(one, allowed()))  # there is room once more
        questions.gate.set()
        await asyncio.gather(*under_way[1:], other, again)
        assert not face._under_way

    asyncio.run(main())


@pytest.mark.parametrize("url", [None, "http://models.example", "http://https://x"])
def test_there_is_no_metadata_without_an_https_url(url):
    assert public_routes(url) == []


def test_a_slash_behind_the_url_is_not_doubled():
    [route] = public_routes("https://models.example/gw/")
    assert json.loads(route.answer().body)["policy_decision_point"] == "https://models.example/gw"
    assert not route.matches(authzen.METADATA_PATH + b"/")


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("https://models.example", {b""}),
        ("https://models.example/gw", {b"", b"/gw"}),
        ("https://models.example/a/b/", {b"", b"/a/b"}),
    ],
)
def test_the_metadata_is_where_clients_of_a_url_with_a_path_ask_for_it(url, places):
    [route] = public_routes(url)
    found = {
        tail for tail in (b"", b"/gw", b"/a/b", b"/a", b"/x") if route.matches(authzen.METADATA_PATH + tail)
    }
    assert found == places


@given(st.lists(st.binary(max_size=140), max_size=3))
def test_what_comes_back_as_a_request_id_is_one_plain_id(values):
    sent = samples.wire_request(headers=tuple((b"x-request-id", value) for value in values))
    back = request_id(sent)
    if back:
        assert back == ((b"x-request-id", values[0]),)
        assert len(values) == 1
        assert values[0].decode("ascii").isprintable()
        assert len(values[0]) <= 128
        assert b" " not in values[0]
