"""Compute what a verdict would be without one rule, for coverage by cases.

Cedar says which rules determined an answer: every permit that holds for an allow, every forbid that
holds for a denial. So leaving out one permit turns an allow into a denial exactly if it is the only one
named. Leaving out one forbid turns a denial into an allow exactly if it is the only one named and some
permit holds, which the same query asked of the permits alone tells. A set of any size is therefore asked
twice per query, and not once per rule (`tests/property/test_decide.py` compares the two).

Not here: rules that failed. What a set would answer without them cannot be told from its answers, so a query
on which any rule fails relies on none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.decision.cedar import CedarAnswer
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from gateway.decision.cedar import Rule
    from gateway.decision.rulebook import Answers, Rulebook, Weighed
    from gateway.model.errors import Reason
    from gateway.model.verdicts import Verdict


def rules_relied_on(weighed: Weighed, rulebook: Rulebook) -> frozenset[Rule]:
    """The rules without any one of which the verdict, or the reason of a denial, would be different."""
    everything = [answer for answers in weighed.answers for answer in answers]
    if any(answer.has_failed for answer in everything):
        return frozenset()
    alone = [answer for answer in everything if len(answer.rules) == 1]
    if all(answer.is_allowed for answer in alone):
        permitted = (
            weighed.answers
        )  # only denials need the permits' answers: with none, they are not asked for
    else:
        permitted = rulebook.answers_of_permits(weighed)
    verdict = _outcome(weighed.verdict)
    return frozenset(
        rule
        for rule in {answer.rules[0] for answer in alone}
        if _outcome(rulebook.verdict_of(weighed, _without(rule, weighed.answers, permitted))) != verdict
    )


def _without(rule: Rule, answers: Answers, permitted: Answers) -> Answers:
    """Cedar's answers without this one rule. `permitted` are the answers without any forbid."""
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
    """What a client can observe: allowed or not, and the reason of a denial."""
    return isinstance(verdict, Allowed), None if isinstance(verdict, Allowed) else verdict.reason
