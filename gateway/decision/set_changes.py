"""Compare two policy sets: which rules are new, gone or changed, by their @ids.

Two rules are the same when their tokens are: layout, comments and the file are not part of a rule. Whether
Cedar would decide the same by another wording is not checked: a rule that was rewritten is shown as changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.decision import cedar, source
from gateway.model.rule_changes import ChangedRule, RulePlace, RuleSetChanges

if TYPE_CHECKING:
    from gateway.model.facts import PolicySet


class _Written(msgspec.Struct, frozen=True):
    """A rule's location and its tokens."""

    place: RulePlace
    words: tuple[str, ...]


def compare_sets(old: PolicySet | None, new: PolicySet) -> RuleSetChanges:
    """The changes from one set to another; from no set, or one that does not parse, all rules are new.

    Raises `CedarError` when the new one does not parse: `validate` comes first.
    """
    after = _rules_by_id(new)
    try:
        before = {} if old is None else _rules_by_id(old)
    except cedar.CedarError:
        return RuleSetChanges(new=tuple(rule.place for rule in after.values()), is_known=False)
    return RuleSetChanges(
        new=tuple(rule.place for name, rule in after.items() if name not in before),
        gone=tuple(rule.place for name, rule in before.items() if name not in after),
        changed=tuple(
            ChangedRule(was=before[name].place, now=rule.place)
            for name, rule in after.items()
            if name in before and before[name].words != rule.words
        ),
        is_schema_changed=old is not None and _words(old.schema) != _words(new.schema),
    )


def _rules_by_id(policy_set: PolicySet) -> dict[str, _Written]:
    """The rules of a set by @id, or by file and number without one."""
    found: dict[str, _Written] = {}
    for file, text in policy_set.policies:
        for rule, written in zip(cedar.parse_rules(file, text), source.rule_texts(text), strict=True):
            place = RulePlace(rule_id=rule.name, effect=rule.effect, file=file, line=written.line)
            found[rule.name] = _Written(place, written.words)
    return found


def _words(text: str) -> list[str]:
    return [token.text for token in source.tokens(text)]
