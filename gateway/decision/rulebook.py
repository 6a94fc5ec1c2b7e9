"""`decide`: an access and its facts in, Allowed or Denied out, evaluated by Cedar without I/O.

Cedar always decides. This module builds the query (`cedar_query.py`), batches many of them into one call,
and chooses the reason of a denial. Everything unclear denies (I1): a record that did not parse, a policy set
that does not parse, a rule that fails, no rule at all. A denial is a value, never an exception; an exception
is a defect of the caller.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from gateway.decision import cedar
from gateway.decision.cedar_query import CONTENT_KINDS, CedarQuery, denied, question_of, request_of
from gateway.decision.entities import model_covers, principal_entity
from gateway.decision.grant_index import GrantIndex
from gateway.model.access import (
    ADMINISTRATIVE,
    ADMINISTRATIVE_CHANGES,
    ADMINISTRATIVE_READS,
    ALLOWABLE,
    Action,
    ResourceKind,
)
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import covers
from gateway.model.periods import PeriodState
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.decision.cedar import CedarAnswer, PreparedSet, Rule
    from gateway.decision.entities import Entity, Uid
    from gateway.model.access import Access, Principal
    from gateway.model.facts import Facts, Grant, PolicySet
    from gateway.model.names import TenantId
    from gateway.model.verdicts import Verdict

MAX_PREPARED_SETS = 8  # the one in force, the one before it, and those of `policy check` and tests
MAX_GRANT_INDEXES = 1024  # tenants whose grants stay indexed
GRANT_INDEXES_BYTES = 64 << 20
INDEX_BYTES = 700  # of one tenant's index, beside its grants
MAX_NAMED = 100  # rules, and grants, that a verdict names: all are written into the record of each such read
MAX_BATCH = 100  # a larger batch costs no less per query, and would block the event loop longer

_WITHOUT_MODEL = frozenset({ResourceKind.TENANT, ResourceKind.ADMINISTRATION})
"""What a token that is narrowed to a model cannot be used for."""

VIA_OWNER = "owner"
VIA_PUBLIC = "public"
VIA_GRANT = "grant"
_NAMING = frozenset({VIA_OWNER, VIA_PUBLIC, VIA_GRANT})

_SCOPES_THAT_ALLOW: Mapping[Action, frozenset[Scope]] = {
    Action.DISCOVER: frozenset({Scope.DISCOVER, Scope.READ}),
    Action.READ: frozenset({Scope.READ}),
    Action.INFER: frozenset({Scope.INFER}),
    **dict.fromkeys(ALLOWABLE, frozenset({Scope.INFER})),
    **dict.fromkeys(ADMINISTRATIVE_READS, frozenset({Scope.AUDIT_READ, Scope.KEYS_MANAGE})),
    **dict.fromkeys(ADMINISTRATIVE_CHANGES, frozenset({Scope.KEYS_MANAGE})),
}

_REQUIRED_SCOPES: Mapping[Action, Scope] = {
    Action.INTROSPECT: Scope.TOKENS_INTROSPECT,
    Action.ASK: Scope.DECISIONS_ASK,
    Action.AUDIT_READ: Scope.AUDIT_READ,
}
"""Of actions that the rules know as another one (`cedar_query.py`)."""


class _Put(msgspec.Struct, frozen=True, kw_only=True):
    """A query with its access and facts, and the position of its verdict in the result."""

    position: int
    access: Access
    facts: Facts
    question: CedarQuery


class Held(Enum):
    """The grants of a tenant by their state."""

    IN_FORCE = "in-force"
    ENDED = "ended"
    AHEAD = "ahead"


_NO_GRANTS = GrantIndex(())

Answers = list[list["CedarAnswer"]]
"""Cedar's answers to one query: for each of its actions, one for each of its resources."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """One query with Cedar's answers to it, and the resulting verdict."""

    put: _Put
    answers: Answers
    verdict: Verdict


class Rulebook:
    """Decides by Cedar. Caches what costs milliseconds: parsed policy sets, and grant indexes."""

    def __init__(self) -> None:
        self._prepare = lru_cache(maxsize=MAX_PREPARED_SETS)(_prepare)
        self.memory: BoundedMemory[tuple[TenantId | None, Held], tuple[tuple[Grant, ...], GrantIndex]]
        self.memory = BoundedMemory(
            max_bytes=GRANT_INDEXES_BYTES,
            max_entries=MAX_GRANT_INDEXES,
            weigh=lambda _, arranged: INDEX_BYTES + arranged[1].held_bytes,
        )
        self._prepare_permits = lru_cache(maxsize=MAX_PREPARED_SETS)(_prepare_permits)

    def decide(self, access: Access, facts: Facts) -> Verdict:
        """Whether this principal may do this with this resource. No I/O; a denial is a value.

        A rule that cannot be evaluated and a fact that cannot be read deny (I1).
        """
        return self.decide_many((access,), (facts,))[0]

    def decide_many(self, accesses: Sequence[Access], facts: Sequence[Facts]) -> list[Verdict]:
        """Decide every access by its own facts, in order: as `decide` for each, at a fraction of the cost.

        Consecutive accesses with the same caller, grants and policy set share one call to Cedar.
        """
        verdicts: dict[int, Verdict] = {}
        batch: list[_Put] = []
        shared: dict[Uid, Entity] = {}
        for position, (access, known) in enumerate(zip(accesses, facts, strict=True)):
            question = question_of(access, known)
            if not isinstance(question, CedarQuery):
                verdicts[position] = question
                continue
            if batch and not _fits(batch, shared, access, known, question):
                verdicts.update(self._answer(batch, shared))
                batch, shared = [], {}
            batch.append(_Put(position=position, access=access, facts=known, question=question))
            shared |= question.entities
        if batch:
            verdicts.update(self._answer(batch, shared))
        return [verdicts[position] for position in range(len(verdicts))]

    def matching_grants(self, access: Access, facts: Facts) -> tuple[tuple[Grant, str], ...]:
        """The grants that give this, each with the ModelGroup it matched by. Explains, does not decide."""
        if access.principal.tenant is None or access.resource.kind not in CONTENT_KINDS:
            return ()
        package = None if access.resource.kind is ResourceKind.MODEL else access.resource.package
        index = self._index_of(access.principal, facts)
        return tuple(index.matching(access.action, model_covers(facts), package))

    def lapsed_grants(self, access: Access, facts: Facts, held: Held) -> tuple[Grant, ...]:
        """The grants that would give this, and have ended or not begun. They explain a denial only."""
        if access.principal.tenant is None or access.resource.kind not in CONTENT_KINDS:
            return ()
        package = None if access.resource.kind is ResourceKind.MODEL else access.resource.package
        index = self._index_of(access.principal, facts, held)
        return tuple(grant for grant, _ in index.matching(access.action, model_covers(facts), package))

    def rules(self, policy_set: PolicySet) -> tuple[Rule, ...]:
        """The rules of a set, in order; none when it does not parse."""
        prepared = self._prepare(policy_set.digest, policy_set.schema, policy_set.policies)
        return tuple(prepared.rules.values()) if prepared else ()

    def weigh(self, access: Access, facts: Facts) -> Weighed | None:
        """As `decide`, with Cedar's answers; None where Cedar is not asked. For coverage and `explain`."""
        question = question_of(access, facts)
        if not isinstance(question, CedarQuery):
            return None
        put = _Put(position=0, access=access, facts=facts, question=question)
        policy = facts.policy
        prepared = self._prepare(policy.digest, policy.schema, policy.policies)
        [answers] = self._ask([put], question.entities, prepared)
        return Weighed(put=put, answers=answers, verdict=self._verdict(put, answers))

    def answers_of_permits(self, weighed: Weighed) -> Answers:
        """Cedar's answers to a weighed query with every forbid left out of the set."""
        put, policy = weighed.put, weighed.put.facts.policy
        permits = self._prepare_permits(policy.digest, policy.schema, policy.policies)
        [answers] = self._ask([put], put.question.entities, permits)
        return answers

    def verdict_of(self, weighed: Weighed, answers: Answers) -> Verdict:
        """The verdict on a weighed query if Cedar had given these answers."""
        return self._verdict(weighed.put, answers)

    def _answer(self, batch: list[_Put], shared: Mapping[Uid, Entity]) -> dict[int, Verdict]:
        """One call to Cedar for queries that share a caller, grants and rules."""
        policy = batch[0].facts.policy
        prepared = self._prepare(policy.digest, policy.schema, policy.policies)
        answered = zip(batch, self._ask(batch, shared, prepared), strict=True)
        return {put.position: self._verdict(put, answers) for put, answers in answered}

    def _ask(
        self, batch: list[_Put], shared: Mapping[Uid, Entity], prepared: PreparedSet | None
    ) -> list[Answers]:
        """Cedar's answers to a batch, query by query; failed ones where the set does not parse."""
        requests = [
            request_of(put.question, action, resource)
            for put in batch
            for action in put.question.actions
            for resource in put.question.resources
        ]
        if prepared is None:
            answers = [cedar.FAILED] * len(requests)
        else:
            answers = cedar.ask(prepared, requests, self._slice(batch, shared))
        remaining = iter(answers)
        return [
            [[next(remaining) for _ in put.question.resources] for _ in put.question.actions] for put in batch
        ]

    def _slice(self, batch: list[_Put], shared: Mapping[Uid, Entity]) -> str:
        """The entities of a batch in Cedar's JSON: the caller with its grants, and the resources."""
        first = batch[0]
        covers = dict.fromkeys(cover for put in batch for cover in put.question.covers)
        packages = {put.question.package for put in batch if put.question.package is not None}
        grants = self._index_of(first.access.principal, first.facts).slice(covers, packages)
        names_role = first.question.names_role
        caller = principal_entity(first.access.principal, grants, with_role=names_role)
        return msgspec.json.encode([caller, *shared.values()]).decode()

    def _verdict(self, put: _Put, by_action: Answers) -> Verdict:
        """The verdict on one query: every name of the resource must be permitted, and no answer failed."""
        access, facts = put.access, put.facts
        everything = [answer for answers in by_action for answer in answers]
        wanted = by_action[0]
        if _is_beyond_token(access, facts):  # found out only now: it takes the same work as the rest (I3)
            return denied(access, facts, Reason.NOT_PERMITTED)
        if access.principal.only is not None and access.resource.kind in _WITHOUT_MODEL:
            # Administration is about more than a model, and so is what a workflow does beside running one.
            return denied(access, facts, Reason.MISSING_ACTION, may_discover=True)
        if any(answer.has_failed for answer in everything):
            failed = [answer for answer in everything if answer.has_failed]
            return denied(access, facts, Reason.POLICY_ERROR, policies=_names(failed))
        required = _REQUIRED_SCOPES.get(access.action)
        if required is not None and required not in access.principal.scopes:
            return denied(access, facts, Reason.MISSING_SCOPE, may_discover=True)
        if all(answer.is_allowed for answer in wanted):
            return Allowed(
                access=access,
                model=facts.model,
                policies=_names(wanted),
                grant=self._ground(put, wanted[0]),
                stamp=facts.stamp,
            )
        refusing = _names([answer for answer in wanted if not answer.is_allowed])
        may_discover = access.resource.kind not in CONTENT_KINDS or (
            access.action is not Action.DISCOVER and all(answer.is_allowed for answer in by_action[-1])
        )
        reason = _why_not(access) if may_discover else Reason.NOT_PERMITTED
        lapsed, grants = self._find_lapsed(access, facts) if not refusing else (None, ())
        if lapsed is not None and not may_discover:
            reason = lapsed
        names = ",".join(grant.grant_id for grant in grants[:MAX_NAMED]) or None
        return denied(access, facts, reason, policies=refusing, may_discover=may_discover, grant=names)

    def _find_lapsed(self, access: Access, facts: Facts) -> tuple[Reason | None, tuple[Grant, ...]]:
        """Why a right that nobody took away does not count now, and the grants that it is; None: no right.

        What would have allowed it is looked up for every denial without a rule that forbids, by the same
        steps whether there is something or not (I3).
        """
        ended = self.lapsed_grants(access, facts, Held.ENDED)
        ahead = self.lapsed_grants(access, facts, Held.AHEAD)
        state = None if facts.model_standing is None else facts.model_standing.lapsed
        if ended or state is PeriodState.ENDED:
            return Reason.EXPIRED_GRANT, (*ended, *ahead)
        return Reason.GRANT_NOT_YET_VALID if ahead or state is not None else None, ahead

    def _ground(self, put: _Put, answer: CedarAnswer) -> str | None:
        """The right that an allow is recorded under, from the `@via` of its rules; None for other rules."""
        grounds = {rule.via for rule in answer.rules} & _NAMING
        for ground in (VIA_OWNER, VIA_PUBLIC):
            if ground in grounds:
                return ground
        if VIA_GRANT not in grounds:
            return None
        matching = self.matching_grants(put.access, put.facts)
        return ",".join(grant.grant_id for grant, _ in matching[:MAX_NAMED]) or None

    def _index_of(self, principal: Principal, facts: Facts, held: Held = Held.IN_FORCE) -> GrantIndex:
        """The index of the tenant's grants, cached while the directory returns the same tuple of grants."""
        grants = {Held.IN_FORCE: facts.grants, Held.ENDED: facts.ended, Held.AHEAD: facts.ahead}[held]
        if not grants and held is not Held.IN_FORCE:
            return _NO_GRANTS
        kept = self.memory.find((principal.tenant, held))
        if kept is not None and kept[0] is grants:
            return kept[1]
        arranged = GrantIndex(grants if principal.kind is KeyKind.TENANT else ())
        self.memory.put((principal.tenant, held), (grants, arranged))
        return arranged


def _prepare(_digest: str, schema: str, policies: tuple[tuple[str, str], ...]) -> PreparedSet | None:
    """Parse a set, or return None, which is cached too. Its texts are part of the key beside its digest.

    So a record whose digest does not belong to its texts cannot replace the set that it names.
    """
    try:
        return cedar.prepare(schema, policies)
    except cedar.CedarError:
        return None


def _prepare_permits(digest: str, schema: str, policies: tuple[tuple[str, str], ...]) -> PreparedSet | None:
    """The permits of a set, prepared once for all the queries that are weighed under it."""
    prepared = _prepare(digest, schema, policies)
    return cedar.permits_alone(prepared, policies) if prepared else None


def _fits(
    batch: list[_Put], shared: Mapping[Uid, Entity], access: Access, facts: Facts, question: CedarQuery
) -> bool:
    """Whether a query can share the batch's entities: same caller, and no entity described in two ways.

    A model may be asked about as itself and as the alias of another; these are two entities with one name.
    """
    first = batch[0]
    return (
        len(batch) < MAX_BATCH
        and facts.policy is first.facts.policy
        and facts.grants is first.facts.grants
        and question.names_role == first.question.names_role
        and access.principal == first.access.principal
        and all(shared.get(uid, entity) == entity for uid, entity in question.entities.items())
    )


def _is_beyond_token(access: Access, facts: Facts) -> bool:
    """Whether the caller's token is narrowed to other models. The canonical id counts, as for all rights."""
    only = access.principal.only
    if only is None or access.resource.kind not in CONTENT_KINDS:
        return False
    return facts.model is None or not covers(only, facts.model)


def _why_not(access: Access) -> Reason:
    """The reason for a caller that may discover the resource: a missing scope, or a missing right."""
    allowing = _SCOPES_THAT_ALLOW.get(access.action)
    may_have_scope = access.principal.kind is KeyKind.TENANT or access.action in ADMINISTRATIVE
    if allowing is not None and not (may_have_scope and allowing & access.principal.scopes):
        return Reason.MISSING_SCOPE
    return Reason.MISSING_ACTION


def _names(answers: Sequence[CedarAnswer]) -> tuple[str, ...]:
    """The names of the determining rules, each once, in the order of the set; at most `MAX_NAMED`."""
    names = tuple(dict.fromkeys(rule.name for answer in answers for rule in answer.rules))
    if len(names) <= MAX_NAMED:
        return names
    return (*names[:MAX_NAMED], f"{len(names) - MAX_NAMED} more")
