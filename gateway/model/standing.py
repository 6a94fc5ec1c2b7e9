"""Compute the standing of a model (owner, visibility, groups) from the rules on the patterns that cover it.

A pure function. The most specific rule that names an owner determines the owner; the most specific one that
names a visibility determines that, unless it is broader than the owner's rule. Groups are collected from the
same rules, from the model's own up to the owner's: giving `acme/x` to another tenant neither publishes it nor
puts it into a group by what `acme/*` says. Where no rule names an owner, every rule counts. Where none names
a visibility, the model is private (I1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.facts import Standing, Visibility

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.facts import ModelRule


def standing_of(rules: Sequence[ModelRule]) -> Standing:
    """The standing of a model under the rules that cover it, most specific first."""
    owning = next((index for index, rule in enumerate(rules) if rule.owner is not None), None)
    counted = rules if owning is None else rules[: owning + 1]
    visibility = next(
        (rule.visibility for rule in counted if rule.visibility is not None), Visibility.PRIVATE
    )
    return Standing(
        owner=None if owning is None else rules[owning].owner,
        visibility=visibility,
        groups=frozenset(group for rule in counted for group in rule.groups),
    )
