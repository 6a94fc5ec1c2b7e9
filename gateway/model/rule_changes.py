"""The difference between two rule sets: which rules are new, gone or changed, each with its location.

A rule is identified by its @id. It is changed when its tokens differ; layout, comments and location are not
part of it, so a rule that is moved to another file is the same rule.
"""

from __future__ import annotations

import msgspec


class RulePlace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule of a set: its id, its effect, where it starts."""

    rule_id: str
    effect: str  # permit, forbid
    file: str
    line: int

    def __str__(self) -> str:
        """Effect, file and line, without the id."""
        return f"{self.effect}, {self.file}:{self.line}"


class ChangedRule(msgspec.Struct, frozen=True):
    """A rule whose text has changed: its old and its new location."""

    was: RulePlace
    now: RulePlace


class RuleSetChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The changes to a set. `is_known` is false where the old set cannot be read, so all rules are new."""

    new: tuple[RulePlace, ...] = ()
    gone: tuple[RulePlace, ...] = ()
    changed: tuple[ChangedRule, ...] = ()
    is_schema_changed: bool = False
    is_known: bool = True

    @property
    def summary(self) -> str:
        """How many of each, and whether the schema changed."""
        if not self.is_known:
            return f"{len(self.new)} rules; those that were in force cannot be read, so they are not compared"
        schema = ", schema changed" if self.is_schema_changed else ""
        if not (self.new or self.gone or self.changed):
            return f"no rule changes{schema or ', only comments, layout or files'}"
        return f"{len(self.new)} new, {len(self.gone)} gone, {len(self.changed)} changed{schema}"

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each rule: those gone, those changed, those new."""
        gone = [f"- rule {rule.rule_id}: was {rule}" for rule in self.gone]
        changed = [f"~ rule {pair.now.rule_id}: {pair.now} (was {pair.was})" for pair in self.changed]
        return (*gone, *changed, *(f"+ rule {rule.rule_id}: {rule}" for rule in self.new))

    def cut(self, most: int) -> RuleSetChanges:
        """The same with at most `most` rules of each kind."""
        return RuleSetChanges(
            new=self.new[:most],
            gone=self.gone[:most],
            changed=self.changed[:most],
            is_schema_changed=self.is_schema_changed,
            is_known=self.is_known,
        )
