"""Caches decisions while the facts behind them are current, and computes the others from facts and rules.

A remembered decision is kept with the fact records (leaves) that it was computed from, and used while all of
them are current. So a change of any of these facts (policy, grants, rules, aliases) invalidates it, and no
time to live is needed.

What the platform denies to a key of its own is denied whatever the rules say, even for public models: a key
that is known here gets no more than one that is not.

A remembered decision is charged what it holds: itself, its names, and the records it was computed from, each
once for all decisions that share it. A record that the near cache has evicted is held by nothing else, so one
decision can keep a hundred times its own size alive. One that is no longer current is dropped when it is
asked for or at the next sweep.

The key is a tuple of typed values: the whole principal, the action, and the resource. Two callers never share
an entry, nor a computation in progress (one per caller and question: singleflight). Allows and denials are
kept apart, so that many refusals cannot evict the allows. What was not decided (a rule that failed, a record
that did not parse, a store that did not answer) is never remembered (I7).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.model.access import Access, Action, Principal, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason
from gateway.model.singleflight import Singleflight
from gateway.model.verdicts import Allowed, Denied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.decision.rulebook import Rulebook
    from gateway.model.facts import Facts
    from gateway.model.names import Md5, ModelId, PackageId
    from gateway.model.ports import Directory
    from gateway.model.verdicts import Verdict

    Question = tuple[Principal, Action, ResourceKind, ModelId | None, PackageId | None, Md5 | None]

UNDECIDED = frozenset({Reason.POLICY_ERROR, Reason.UNREADABLE_FACT})
DECIDED_AT_ONCE = 50  # of a batch: some 10 ms for models of sixteen segments, then other requests run
DECISION_BYTES = 1_600  # a verdict with access, facts, caller and key, without texts and records: measured
GROUP_BYTES = 70  # of one entry in the set of a model's groups
GRANT_BYTES = 400  # of a grant that was made from a platform's answer, for this decision only


class Judgement(msgspec.Struct, frozen=True):
    """A verdict and the facts it was computed from."""

    verdict: Verdict
    facts: Facts

    @property
    def is_current(self) -> bool:
        """Whether none of these facts has changed."""
        return self.facts.stamp.is_current


@dataclass(slots=True)
class DecisionCounts:
    """Counters for the metrics."""

    hits: int = 0
    misses: int = 0


class Decisions:
    """Decides by the rules, on facts that the directory provides, and remembers the results."""

    def __init__(self, *, directory: Directory, rules: Rulebook, max_entries: int, max_bytes: int) -> None:
        """`max_entries` and `max_bytes` apply to the allows, and separately to the denials."""
        self.counts = DecisionCounts()
        self._directory = directory
        self._rules = rules
        self._allows = _memory(max_entries, max_bytes)
        self._denials = _memory(max_entries, max_bytes)
        self._in_progress: Singleflight[Question, Judgement] = Singleflight(
            lambda _, judgement: judgement.is_current
        )

    @property
    def memories(self) -> tuple[BoundedMemory[Question, Judgement], ...]:
        """The bounded memories, for the regular sweep."""
        return self._allows, self._denials

    def recall(self, access: Access) -> Judgement | None:
        """The remembered decision, if it is still current. Synchronous and without I/O."""
        question = question_of(access)
        judgement = self._allows.find(question) or self._denials.find(question)
        if judgement is None:
            return None
        self.counts.hits += 1
        return _about(judgement, access)

    async def reach(self, access: Access) -> Judgement:
        """The decision, remembered or computed now, by one task for each question of a caller."""
        known = self.recall(access)
        if known is not None:
            return known
        self.counts.misses += 1
        question = question_of(access)
        return _about(await self._in_progress.run(question, partial(self._compute, access)), access)

    async def reach_many(self, accesses: Sequence[Access]) -> list[Judgement]:
        """Many decisions, in order and in batches; what is remembered is not computed again."""
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

    async def _compute(self, access: Access) -> Judgement:
        return (await self._decide([access]))[0]

    async def _decide(self, accesses: Sequence[Access]) -> list[Judgement]:
        facts = await self._directory.gather(accesses[0].principal, [one.resource.model for one in accesses])
        verdicts = self._rules.decide_many(accesses, facts)
        reached = zip(verdicts, facts, strict=True)
        judgements = [Judgement(_ruled(verdict, known), known) for verdict, known in reached]
        for access, judgement in zip(accesses, judgements, strict=True):
            self._remember(question_of(access), judgement)
        return judgements

    def _remember(self, question: Question, judgement: Judgement) -> None:
        """Remember a decision, unless it is undecided or a fact has changed since: no late writer (I6)."""
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
    """The bytes that only this decision holds: its names and its principal may be in no other object."""
    verdict, facts, principal = judgement.verdict, judgement.facts, question[0]
    texts = sum(
        [
            getsizeof(text)
            for text in (
                *(question[3], facts.requested, facts.model, question[4]),
                *(principal.key_name, principal.token_id, principal.only),
            )
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
    """The inputs of a decision other than facts. A file is decided as its package."""
    resource = access.resource
    kind = ResourceKind.PACKAGE if resource.kind is ResourceKind.FILE else resource.kind
    return access.principal, access.action, kind, resource.model, resource.package, resource.md5


def _about(judgement: Judgement, access: Access) -> Judgement:
    """The same decision for this access: two files of one package share it."""
    if judgement.verdict.access.resource == access.resource:  # everything else in the access is equal anyway
        return judgement
    return Judgement(replace(judgement.verdict, access=access), judgement.facts)


def _ruled(verdict: Verdict, facts: Facts) -> Verdict:
    """The verdict, unless the platform denies what the rules allow."""
    ruling = facts.ruling
    if ruling is None or ruling.is_allow or isinstance(verdict, Denied):
        return verdict
    return Denied(access=verdict.access, reason=ruling.reason, model=verdict.model, stamp=verdict.stamp)
