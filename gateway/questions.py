"""Answers questions about access as the subject's own request would be answered, and delivers nothing.

    subject ─find, judge─▶ Principal ─┐
                                      ├─ decide ─ find ─▶ yes, or no with the reason for the record
    action, resource ─────────────────┘

The same decisions and the same look at the disk as the guard's: a yes to `read` of a file means that its
content could be sent now, one to `discover` or `read` of a model or a package that its listing would be.
`infer` is decided for the model that is named, as the front door does; what that brings is decided when it is
run. A file that is not pinned yet is undecided: whoever serves it after a yes does not check its content.

Every question is decided by itself, with a pause behind it, so that a batch holds up nobody.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from gateway.model.access import Access, Action, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.questions import Answered
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Allowed, HeldFile, OpenFile
from gateway.platform.confirmation import with_platform_reason
from gateway.resource.disk_checks import SeenOnDisk

if TYPE_CHECKING:
    from gateway.authorized_files import AuthorizedFiles
    from gateway.decisions import Decisions
    from gateway.identity.subjects import Subjects
    from gateway.model.access import Principal
    from gateway.model.questions import Question
    from gateway.model.verdicts import Verdict

ANSWER_SECONDS = 4.0
"""For all questions of one request, as long as a read waits for its file to be pinned. What is not answered
by then is undecided."""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """Answers over the stages that the guard uses."""

    subjects: Subjects
    decisions: Decisions
    authorized_files: AuthorizedFiles
    is_platform_asked: bool = False

    async def answer(
        self, question: Question, asking: Principal, now: float, seconds: float = ANSWER_SECONDS
    ) -> Answered:
        """The answer. It never raises for what is not decided in time: that is an answer, and never a yes."""
        try:
            async with asyncio.timeout(seconds):
                answered = await self._answer(question, asking, now)
        except TimeoutError:
            return _undecided(question, Reason.NOT_PINNED)
        except Unavailable as failure:
            return _undecided(question, failure.reason)
        await asyncio.sleep(0)
        return answered

    async def _answer(self, question: Question, asking: Principal, now: float) -> Answered:
        subject, action, resource = question.subject, question.action, question.resource
        if question.error is not None:
            return Answered(question=question, is_yes=False, reason=Reason.MALFORMED_BODY)
        if subject is None or action is None or resource is None:
            return Answered(question=question, is_yes=False, reason=Reason.NOT_PERMITTED)
        stamp, verdict = Stamp(0, ()), None
        try:
            principal, stamp = await self.subjects.find(subject, question, asking, now)
            access = Access(principal=principal, action=action, resource=resource)
            verdict = await self._decide(access)
            stamp = stamp if verdict.stamp is None else stamp.joined(verdict.stamp)
            if not isinstance(verdict, Allowed):
                reason = self.authorized_files.reason_now(verdict)
                return _no(question, reason or await self.authorized_files.answer_to(verdict), stamp, verdict)
            if action is not Action.INFER:
                stamp = stamp.joined(await self._find(verdict))
        except Refusal as refusal:
            return _no(question, refusal.reason, stamp, verdict)
        return Answered(
            question=question,
            is_yes=True,
            reason=Reason.PERMITTED,
            model=verdict.model,
            grant=verdict.grant,
            policies=verdict.policies,
            stamp=stamp,
        )

    async def _decide(self, access: Access) -> Verdict:
        """The decision, by the rules and what the platform has said already.

        Raises `Refusal` as the guard does, and `Unavailable` where the platform had to be asked: that takes
        the key itself, and who asks does not have it.
        """
        if access.action is Action.INFER and access.resource.kind is not ResourceKind.MODEL:
            raise Refusal(Reason.NOT_PERMITTED)  # nothing but a model is run
        judgement = self.decisions.recall(access) or await self.decisions.reach(access)
        if not judgement.facts.is_confirmed:
            if not self.is_platform_asked:
                raise Refusal(Reason.UNKNOWN_KEY)
            why = "it has to be asked with the key itself"
            raise Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED)
        return with_platform_reason(judgement).verdict

    async def _find(self, allowed: Allowed) -> Stamp:
        """What the resource on disk stands on. Raises `Refusal` where a request would find none."""
        looked = self.authorized_files.find_now(allowed, SeenOnDisk(), needs_content=False, may_open=False)
        found, stamp = looked or await self.authorized_files.find(allowed)
        if isinstance(found, OpenFile):
            if not isinstance(found, HeldFile):
                os.close(found.descriptor)
            if found.sha256 is None:
                raise Unavailable("cache", "the file is still being hashed", Reason.NOT_PINNED)
        return stamp


def _no(question: Question, reason: Reason, stamp: Stamp, verdict: Verdict | None) -> Answered:
    return Answered(
        question=question,
        is_yes=False,
        reason=reason,
        model=None if verdict is None else verdict.model,
        policies=() if verdict is None else verdict.policies,
        stamp=stamp,
    )


def _undecided(question: Question, reason: Reason) -> Answered:
    return Answered(question=question, is_yes=False, reason=reason, is_undecided=True)
