"""Decisions as the guard asks for them: remembered while nothing they stand on moved, else reached.

This is where the directory and the rules are introduced to each other. A remembered decision is the
decision itself, with the leaves it was computed from; it is used while all of them are current, so
a change of any fact on the way (policy, grants, rules, aliases) reaches it with the fact. There is no
time to live.

What the platform denies a key of its own is denied whatever the rules say, what is public included: a key
that is known here gets no more than one that is not.

What a remembered decision is charged is what it holds: itself, its names, and the records it stands on,
each once for all that stand on it. A record that the near cache has put out is held by nobody else, so a
decision may keep a hundred times its own size alive. One that is not current is let go of when it is
asked for or at the next sweep.

Its key is a tuple of typed values: the whole principal, the action, and what is asked about. Two
callers never share one, and neither do two in flight: one miss, one flight, per caller. Allows and
denials are kept apart, so that a flood of refusals cannot push the allows out. What was not decided
(a rule that failed, a record that did not parse, a store that was silent) is never remembered (I7).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

from gateway.model.access import Access, Action, Principal, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason
from gateway.model.verdicts import Allowed, Denied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.facts import Facts
    from gateway.model.names import Md5, ModelId, PackageId
    from gateway.model.ports import Decide, Directory
    from gateway.model.verdicts import Verdict

    Question = tuple[Principal, Action, ResourceKind, ModelId | None, PackageId | None, Md5 | None]

UNDECIDED = frozenset({Reason.POLICY_ERROR, Reason.UNREADABLE_FACT})
DECIDED_AT_ONCE = 50  # of many: some 10 ms for models of sixteen segments, then other requests get their turn
DECISION_BYTES = 1_600  # a verdict with its access, facts, caller and key, beside texts and records: measured
GROUP_BYTES = 70  # of a place in the set of a model's groups
GRANT_BYTES = 400  # of a grant that was made of a platform's word, for this decision


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the facts it was reached on."""

    verdict: Verdict
    facts: Facts

    @property
    def is_current(self) -> bool:
        """Whether nothing that it stands on has moved."""
        return self.facts.stamp.is_current


@dataclass(slots=True)
class DecisionCounts:
    """For the metrics."""

    hits: int = 0
    misses: int = 0


class Decisions:
    """Decides by the rules, on facts that it has the directory bring, and remembers."""

    def __init__(self, *, directory: Directory, rules: Decide, max_entries: int, max_bytes: int) -> None:
        """`max_entries` and `max_bytes` hold for the allows, and once more for the denials."""
        self.counts = DecisionCounts()
        self._directory = directory
        self._rules = rules
        self._allows = _memory(max_entries, max_bytes)
        self._denials = _memory(max_entries, max_bytes)
        self._flights: dict[Question, asyncio.Task[Judgement]] = {}

    @property
    def memories(self) -> tuple[BoundedMemory[Question, Judgement], ...]:
        """What is remembered, to be swept."""
        return self._allows, self._denials

    def recall(self, access: Access) -> Judgement | None:
        """The remembered decision, if it still stands. Synchronous and without I/O."""
        question = question_of(access)
        judgement = self._allows.find(question) or self._denials.find(question)
        if judgement is None:
            return None
        self.counts.hits += 1
        return _about(judgement, access)

    async def reach(self, access: Access) -> Judgement:
        """The decision, remembered or reached now. One flight for one question of one caller."""
        known = self.recall(access)
        if known is not None:
            return known
        self.counts.misses += 1
        question = question_of(access)
        joined = self._flights.get(question)
        if joined is not None:
            judgement = await asyncio.shield(joined)
            if judgement.is_current:
                return _about(judgement, access)
            # It was overtaken, and it may have read before this question was asked: even a denial
            # would be one of the past then, and nobody confirms denials.
            return (await self._decide([access]))[0]
        flight = self._flights[question] = asyncio.create_task(self._fly(question, access))
        flight.add_done_callback(_retrieve)
        return _about(await asyncio.shield(flight), access)

    async def reach_many(self, accesses: Sequence[Access]) -> list[Judgement]:
        """Many decisions, in order and in turns; what is remembered is not worked out again."""
        known = [self.recall(access) for access in accesses]
        missing = [access for access, judgement in zip(accesses, known, strict=True) if judgement is None]
        self.counts.misses += len(missing)
        if not missing:
            return [judgement for judgement in known if judgement is not None]
        reached: list[Judgement] = []
        for start in range(0, len(missing), DECIDED_AT_ONCE):
            reached += await self._decide(missing[start : start + DECIDED_AT_ONCE])
            await asyncio.sleep(0)
        new = iter(reached)
        return [judgement or next(new) for judgement in known]

    async def _fly(self, question: Question, access: Access) -> Judgement:
        try:
            [judgement] = await self._decide([access])
        finally:
            del self._flights[question]
        return judgement

    async def _decide(self, accesses: Sequence[Access]) -> list[Judgement]:
        facts = await self._directory.bring(accesses[0].principal, [one.resource.model for one in accesses])
        verdicts = self._rules.decide_many(accesses, facts)
        reached = zip(verdicts, facts, strict=True)
        judgements = [Judgement(_ruled(verdict, known), known) for verdict, known in reached]
        for access, judgement in zip(accesses, judgements, strict=True):
            self._remember(question_of(access), judgement)
        return judgements

    def _remember(self, question: Question, judgement: Judgement) -> None:
        """Only what was decided, and only while nothing moved since: no late writer (I6)."""
        if not judgement.is_current:
            return
        if isinstance(judgement.verdict, Allowed):
            self._allows.put(question, judgement)
        elif judgement.verdict.reason not in UNDECIDED:
            self._denials.put(question, judgement)


def _memory(max_entries: int, max_bytes: int) -> BoundedMemory[Question, Judgement]:
    return BoundedMemory(
        max_bytes=max_bytes,
        max_entries=max_entries,
        weigh=_held_bytes,
        stands_on=attrgetter("facts.stamp.leaves"),
        other_parts=lambda judgement: (judgement.facts.policy,),
    )


def _held_bytes(question: Question, judgement: Judgement) -> int:
    """What a decision holds alone: names, and who asked, may be nobody else's by now."""
    verdict, facts, principal = judgement.verdict, judgement.facts, question[0]
    texts = sum(
        [
            getsizeof(text)
            for text in (question[3], facts.requested, facts.model, question[4], principal.key_name)
            if text is not None
        ]
    )
    texts += sum(map(getsizeof, (*facts.unreadable, *verdict.policies)))
    if isinstance(verdict, Allowed) and verdict.grant is not None:
        texts += getsizeof(verdict.grant)
    own_grants = len(facts.grants) * GRANT_BYTES if principal.is_of_platform else 0
    standings = (facts.requested_standing, facts.model_standing)
    groups = sum([len(standing.groups) for standing in standings if standing is not None])
    tables = 8 * (len(facts.stamp.leaves) + len(verdict.policies) + len(facts.unreadable))
    return DECISION_BYTES + texts + tables + groups * GROUP_BYTES + own_grants


def question_of(access: Access) -> Question:
    """What a decision depends on besides the facts. A file is decided as its package."""
    resource = access.resource
    kind = ResourceKind.PACKAGE if resource.kind is ResourceKind.FILE else resource.kind
    return access.principal, access.action, kind, resource.model, resource.package, resource.md5


def _about(judgement: Judgement, access: Access) -> Judgement:
    """The same decision for this very access: two files of one package share it."""
    if judgement.verdict.access.resource == access.resource:  # the rest of the question is the same anyway
        return judgement
    return Judgement(replace(judgement.verdict, access=access), judgement.facts)


def _ruled(verdict: Verdict, facts: Facts) -> Verdict:
    """The verdict, unless the platform denies what the rules allow."""
    ruling = facts.ruling
    if ruling is None or ruling.is_allow or isinstance(verdict, Denied):
        return verdict
    return Denied(access=verdict.access, reason=ruling.reason, model=verdict.model, stamp=verdict.stamp)


def _retrieve(task: asyncio.Task[Judgement]) -> None:
    """A flight whose passengers all left may fail without anybody hearing of it."""
    if not task.cancelled():
        task.exception()
