"""Questions are answered by the decisions and the disk; what is not decided in time is never a yes."""

from __future__ import annotations

import asyncio
import os

import pytest
from msgspec.structs import replace

from gateway.decisions import Judgement
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Facts, PolicySet
from gateway.model.names import KeyId
from gateway.model.questions import Question, Subject, SubjectKind
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied, ModelListing, OpenFile
from gateway.questions import ANSWER_SECONDS, Questions
from tests import samples

KEY, RULE, DISK = (Stamp(7, (Leaf(name, b""),)) for name in (b"key", b"rule", b"disk"))
FILE = Resource(kind=ResourceKind.FILE, model="acme/cars/1", package="p", file="f")
MODEL = Resource(kind=ResourceKind.MODEL, model="acme/cars/1")
ASKED = Question(
    subject=Subject(kind=SubjectKind.KEY, name=KeyId("key_abcdefghijkl")), action=Action.READ, resource=FILE
)
FACTS = Facts(
    grants=(), requested=None, model=None, requested_standing=None, model_standing=None,
    policy=PolicySet(schema="", policies=(), digest="d"), stamp=RULE,
)  # fmt: skip


class Stages:
    """Subjects, decisions and files in one: what each of them says is set by the test."""

    def __init__(self):
        self.found = ModelListing(model="acme/cars/1", packages=("p",))
        self.is_allowed = self.is_confirmed = True
        self.fails = None
        self.holds_up = None
        self.asked = []

    def questions(self, **more):
        return Questions(subjects=self, decisions=self, authorized_files=self, **more)

    async def find(self, *asked):
        """Of subjects, with a question; of files, with what is allowed."""
        if isinstance(asked[0], Subject):
            self.asked.append("subject")
            return samples.principal(), KEY
        self.asked.append("disk")
        if self.holds_up is not None:
            await self.holds_up
        if self.fails is not None:
            raise self.fails
        return self.found, DISK

    def find_now(self, allowed, looks, *, needs_content, may_open):
        assert not needs_content
        assert not may_open

    def recall(self, access):
        return None

    async def reach(self, access):
        self.asked.append("rules")
        verdict = (
            Allowed(access=access, model="acme/cars/1", policies=("a",), grant="owner", stamp=RULE)
            if self.is_allowed
            else Denied(access=access, reason=Reason.MISSING_SCOPE, model=None, may_discover=True, stamp=RULE)
        )
        return Judgement(verdict, replace(FACTS, is_confirmed=self.is_confirmed))

    def reason_now(self, denied):
        return None

    async def answer_to(self, denied):
        self.asked.append("existence")
        return denied.reason


@pytest.fixture
def stages():
    return Stages()


def answer(questions, question=ASKED):
    return asyncio.run(questions.answer(question, samples.principal(), 1.0))


def test_a_yes_stands_on_the_key_the_rules_and_the_disk(stages):
    answered = answer(stages.questions())
    assert (answered.is_yes, answered.reason) == (True, Reason.PERMITTED)
    assert {leaf.name for leaf in answered.stamp.leaves} == {b"key", b"rule", b"disk"}
    assert (answered.grant, answered.policies) == ("owner", ("a",))


def test_a_no_stands_on_what_was_read_for_it_and_takes_the_work_of_a_refused_read(stages):
    stages.is_allowed = False
    answered = answer(stages.questions())
    assert (answered.is_yes, answered.reason) == (False, Reason.MISSING_SCOPE)
    assert {leaf.name for leaf in answered.stamp.leaves} == {b"key", b"rule"}
    assert stages.asked == ["subject", "rules", "existence"]


@pytest.mark.parametrize("reason", [Reason.ABSENT, Reason.QUARANTINED, Reason.UNATTESTED])
def test_what_a_read_does_not_find_is_no_yes(reason, stages):
    stages.fails = Refusal(reason)
    answered = answer(stages.questions())
    assert (answered.is_yes, answered.is_undecided, answered.reason) == (False, False, reason)


def test_what_does_not_answer_makes_it_undecided(stages):
    stages.fails = Unavailable("cache", "its disk fails", Reason.CACHE_UNAVAILABLE)
    answered = answer(stages.questions())
    assert (answered.is_yes, answered.is_undecided) == (False, True)
    assert answered.reason is Reason.CACHE_UNAVAILABLE


@pytest.mark.parametrize("sha256", [None, "ab" * 32])
def test_a_file_that_was_opened_is_closed_and_a_yes_only_once_it_is_pinned(sha256, stages):
    descriptor = os.open(os.devnull, os.O_RDONLY)
    stages.found = OpenFile(
        descriptor=descriptor, size=0, identity=(0,) * 5, model="m", package="p", handle="f", md5=None,
        sha256=sha256,
    )  # fmt: skip
    answered = answer(stages.questions())
    assert answered.is_yes is (sha256 is not None)
    assert answered.is_undecided is (sha256 is None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_question_that_takes_too_long_is_undecided(stages, run_in_virtual_time):
    async def main():
        loop = asyncio.get_running_loop()
        stages.holds_up = loop.create_future()
        answered = await stages.questions().answer(ASKED, samples.principal(), 1.0)
        return answered, loop.time()

    answered, seconds = run_in_virtual_time(main())
    assert (answered.is_yes, answered.is_undecided) == (False, True)
    assert seconds == pytest.approx(ANSWER_SECONDS)


def test_others_run_after_each_question(stages):
    async def main():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        for _ in range(50):
            await stages.questions().answer(ASKED, samples.principal(), 1.0)
        running.cancel()
        return turns

    assert asyncio.run(main()) >= 50


@pytest.mark.parametrize(("is_asked", "is_undecided"), [(True, True), (False, False)])
def test_a_key_that_the_platform_rules_on_and_was_not_asked_about_is_no_yes(is_asked, is_undecided, stages):
    stages.is_confirmed = False
    answered = answer(stages.questions(is_platform_asked=is_asked))
    assert (answered.is_yes, answered.is_undecided) == (False, is_undecided)


def test_only_models_are_run_and_nothing_on_disk_is_asked_for_it(stages):
    assert answer(stages.questions(), replace(ASKED, action=Action.INFER, resource=MODEL)).is_yes
    assert stages.asked == ["subject", "rules"]
    assert not answer(stages.questions(), replace(ASKED, action=Action.INFER)).is_yes


@pytest.mark.parametrize("missing", ["subject", "action", "resource"])
def test_what_nobody_has_is_a_no_without_a_look_at_anything(missing, stages):
    answered = answer(stages.questions(), replace(ASKED, **{missing: None}))
    assert (answered.is_yes, answered.reason, stages.asked) == (False, Reason.NOT_PERMITTED, [])


def test_a_question_with_an_error_is_not_answered(stages):
    answered = answer(stages.questions(), replace(ASKED, error="wrong"))
    assert (answered.is_yes, answered.reason, stages.asked) == (False, Reason.MALFORMED_BODY, [])
