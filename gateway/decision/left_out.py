"""What a verdict would be with a rule left out: for coverage by cases, and for `explain`.

Cedar says which rules determined an answer: every permit that holds for an allow, every forbid that
holds for a denial. So leaving out one permit closes an answer exactly if it is the only one named.
Leaving out one forbid opens it exactly if it is the only one named and some permit holds, which the
same question put to the permits alone tells. A set of any size is therefore asked twice per
question, and not once per rule (`tests/property/test_decide.py` compares the two).

Not here: rules that failed. What a set would say without them is not known from its answers, so a
question that any rule fails on relies on none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.decision.cedar import CedarAnswer
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from gateway.decision.cedar import Rule
    from gateway.decision.rulebook import Answers, Rulebook, Weighed
    from gateway.model.errors import Reason
    from gateway.model.verdicts import Verdict


def rules_relied_on(weighed: Weighed, rulebook: Rulebook) -> frozenset[Rule]:
    """The rules without any one of which the verdict would be another, or a denial have another reason."""
    everything = [answer for answers in weighed.answers for answer in answers]
    if any(answer.has_failed for answer in everything):
        return frozenset()
    alone = [answer for answer in everything if len(answer.rules) == 1]
    if all(answer.is_allowed for answer in alone):
        permitted = (
            weighed.answers
        )  # no answer opens by leaving a rule out, so what would open it is not asked
    else:
        permitted = rulebook.answers_of_permits(weighed)
    verdict = _outcome(weighed.verdict)
    return frozenset(
        rule
        for rule in {answer.rules[0] for answer in alone}
        if _outcome(rulebook.verdict_of(weighed, _without(rule, weighed.answers, permitted))) != verdict
    )


def _without(rule: Rule, answers: Answers, permitted: Answers) -> Answers:
    """What Cedar would answer if this one rule were not in the set. `permitted`: were there no forbid."""
    return [
        [_answer_without(rule, answer, permit) for answer, permit in zip(*both, strict=True)]
        for both in zip(answers, permitted, strict=True)
    ]


def _answer_without(rule: Rule, answer: CedarAnswer, permitted: CedarAnswer) -> CedarAnswer:
    if rule not in answer.rules:
        return answer
    others = tuple(one for one in answer.rules if one != rule)
    if others:
        return replace(answer, rules=others)
    return CedarAnswer(is_allowed=False, has_failed=False) if answer.is_allowed else permitted


def _outcome(verdict: Verdict) -> tuple[bool, Reason | None]:
    """What a client can tell apart: allowed or not, and by which reason not."""
    return isinstance(verdict, Allowed), None if isinstance(verdict, Allowed) else verdict.reason
