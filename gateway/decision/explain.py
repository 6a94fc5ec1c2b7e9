"""Explain a decision to an operator: the whole grant path of an allow, or what is missing for one.

Explaining decides again, by the same Rulebook, and then describes the result; nothing here runs when a
request is served. An explanation names other tenants' rules and is shown to administrators only. The changes
that would help are found by trying them (`remedies.py`).

The platform's ruling on a key of its own is among the facts and overrides the rules, as it does where
requests are decided.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.decision.remedies import Help, Remedy, RemedyPlan, find_way, needed_lines
from gateway.decision.rulebook import VIA_OWNER, VIA_PUBLIC, Held
from gateway.decision.source import rule_texts
from gateway.model.access import GRANTABLE
from gateway.model.errors import UNPERMITTED, Reason
from gateway.model.facts import Grant
from gateway.model.names import Pattern, ancestors
from gateway.model.periods import PeriodState, period_text, state_text
from gateway.model.rulings import PLATFORM_GRANT, SOURCE_PLATFORM
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.decision.cedar import Rule
    from gateway.decision.remedies import Step as RemedyStep
    from gateway.decision.rulebook import Rulebook
    from gateway.decision.source import RuleText
    from gateway.model.access import Access
    from gateway.model.facts import Facts, ModelRule
    from gateway.model.names import ModelId
    from gateway.model.verdicts import Verdict


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step of the path from the key to the file: its kind, its name, and a note."""

    kind: str
    name: str
    note: str = ""


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern that covers the model, and the contents of its rule; empty where it has none."""

    model: str
    pattern: str
    owner: str | None
    visibility: str | None
    groups: tuple[str, ...]
    source: str
    not_before: float | None = None  # of its publication, as is the expiry
    expires_at: float | None = None


class Determining(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that determined the decision: its @id, its location, and what is written about it there."""

    policy: str
    effect: str
    file: str
    line: int
    notes: tuple[str, ...] = ()  # its annotations
    comment: str = ""  # directly above it
    error: str = ""  # why it failed, where it did

    @property
    def place(self) -> str:
        """Its effect, file and line."""
        return f"{self.effect}, {self.file}:{self.line}"


class DenialCause(StrEnum):
    """The cause of a denial, in the order in which causes are checked."""

    ALLOWED = "allowed"
    UNREADABLE_FACT = "unreadable-fact"
    POLICY_ERROR = "policy-error"
    ADMIN_KEY = "admin-key"
    PLATFORM = "platform"  # it denies, or has to be asked first
    FORBIDDEN = "forbidden"  # by a rule that no scope of the key would satisfy
    MISSING_SCOPE = "missing-scope"
    NOT_GRANTED = "not-granted"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with its explanation."""

    verdict: str  # allow, deny
    reason: str
    cause: DenialCause
    meaning: str
    may_discover: bool
    scopes: tuple[str, ...]
    path: tuple[Step, ...]
    covers: tuple[Cover, ...]
    policies: tuple[Determining, ...]
    forbidden_by: tuple[Determining, ...]
    policy_digest: str
    steps: tuple[RemedyStep, ...]
    lapsed: tuple[Step, ...] = ()  # grants and publications that would give it, and have ended or not begun

    @property
    def needed(self) -> tuple[str, ...]:
        """What has to be done for an allow, as lines of text."""
        return needed_lines(self.steps)

    def as_json(self) -> dict[str, Any]:
        """For scripts: plain lists, dictionaries and strings."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        plain["remedies"] = plain.pop("steps")
        return {**plain, "needed": list(self.needed)}

    def as_rows(self) -> list[tuple[str, str]]:
        """For people: a table of two columns, the first empty where a row continues the one above."""
        rows = [("verdict", self.verdict), ("reason", f"{self.reason}: {self.meaning}")]
        rows += column("path", (f"{each.kind} {each.name}  {each.note}".rstrip() for each in self.path))
        rows += column("not in force", (f"{each.kind} {each.name}: {each.note}" for each in self.lapsed))
        rows += column("patterns", map(_cover_text, self.covers))
        rows += column("policies", (line for each in self.policies for line in _rule_lines(each)))
        return [*rows, *column("scopes", [" ".join(self.scopes) or "none"])]


def explain(access: Access, facts: Facts, rulebook: Rulebook, rules: Iterable[ModelRule] = ()) -> Explanation:
    """Decide and explain. `rules` are those on the patterns that cover the model and its alias.

    Without them the explanation knows the model's owner and visibility, but not which pattern sets them.
    """
    verdict = rulebook.decide(access, facts)
    known = tuple(rules)
    grants = rulebook.matching_grants(access, facts)
    rule_places = _RulePlaces(facts, rulebook)
    reason = _reason(verdict, facts)
    cause, way = DenialCause.ALLOWED, RemedyPlan((), ())
    if reason is not Reason.PERMITTED:
        cause, way = _find_cause(access, facts, rulebook, reason, known)
    forbidden_by = tuple(map(rule_places.of, way.forbids))
    return Explanation(
        verdict="allow" if reason is Reason.PERMITTED else "deny",
        reason=reason,
        cause=cause,
        meaning=_meaning(reason, cause, facts, forbidden_by),
        may_discover=isinstance(verdict, Allowed) or verdict.may_discover,
        scopes=tuple(sorted(access.principal.scopes)),
        path=tuple(_path(access, facts, verdict, grants)),
        covers=tuple(_covers(facts, known)),
        policies=tuple(rule_places.named(verdict.policies, _errors(access, facts, rulebook))),
        forbidden_by=forbidden_by,
        policy_digest=facts.policy.digest,
        steps=(*way.steps, *((_rule_change(each),) for each in forbidden_by)),
        lapsed=tuple(_lapsed(access, facts, rulebook, known)),
    )


def _reason(verdict: Verdict, facts: Facts) -> Reason:
    """The reason a request would get: the platform's denial overrides what the rules allow."""
    by_rules = Reason.PERMITTED if isinstance(verdict, Allowed) else verdict.reason
    if by_rules in {Reason.UNREADABLE_FACT, Reason.POLICY_ERROR}:
        return by_rules
    if not facts.is_confirmed:
        return Reason.UPSTREAM_UNDECIDED
    is_denied = facts.ruling is not None and not facts.ruling.is_allow
    if facts.ruling is not None and is_denied and by_rules in {Reason.PERMITTED, *UNPERMITTED}:
        return facts.ruling.reason
    return by_rules


def _find_cause(
    access: Access, facts: Facts, rulebook: Rulebook, reason: Reason, rules: tuple[ModelRule, ...]
) -> tuple[DenialCause, RemedyPlan]:
    """The cause of the denial, and the changes that would help."""
    if reason is Reason.UNREADABLE_FACT:
        records = ", ".join(facts.unreadable) or "the model's own"
        repair = Remedy(kind=Help.RECORD_REPAIR, text=f"records that parse: {records}")
        return DenialCause.UNREADABLE_FACT, RemedyPlan(((repair,),), ())
    if reason is Reason.POLICY_ERROR:
        return DenialCause.POLICY_ERROR, RemedyPlan(((_rule_repair(access, facts, rulebook),),), ())
    if access.principal.tenant is None:
        return DenialCause.ADMIN_KEY, RemedyPlan(((_tenant_key(facts),),), ())
    if not facts.is_confirmed or (facts.ruling is not None and not facts.ruling.is_allow):
        word: RemedyStep = (_platform_word(facts),)
        way = find_way(access, _with_platforms_word(facts), rulebook, rules)
        return DenialCause.PLATFORM, RemedyPlan((word, *way.steps), way.forbids)
    way = find_way(access, facts, rulebook, rules)
    if way.forbids:
        return DenialCause.FORBIDDEN, way
    is_scope = any(remedy.kind is Help.SCOPE for step in way.steps for remedy in step)
    return DenialCause.MISSING_SCOPE if is_scope else DenialCause.NOT_GRANTED, way


def _meaning(reason: Reason, cause: DenialCause, facts: Facts, forbidden_by: tuple[Determining, ...]) -> str:
    """The reason in words; more specific where the reason has several causes."""
    if cause is DenialCause.FORBIDDEN:
        rules = " and ".join(f'the rule "{each.policy}" ({each.place})' for each in forbidden_by)
        return f"{rules[:1].upper()}{rules[1:]} forbids it."
    if cause is DenialCause.PLATFORM and not facts.is_confirmed:
        return (
            "The platform's word on this key and model is not known here now; it is asked at their next use."
        )
    if cause is DenialCause.NOT_GRANTED and reason is Reason.NOT_PERMITTED:
        return "No rule lets the caller discover it."
    if cause is DenialCause.MISSING_SCOPE and reason is Reason.NOT_PERMITTED:
        return "The key lacks the scope for this action, and that of discovering it."
    return reason.explanation


def _rule_change(rule: Determining) -> Remedy:
    text = f'the rule "{rule.policy}" ({rule.place}), which forbids it, to be changed or removed'
    return Remedy(kind=Help.RULE_CHANGE, text=text)


def _rule_repair(access: Access, facts: Facts, rulebook: Rulebook) -> Remedy:
    """The rules that failed, each with Cedar's message; or the whole set, when it does not parse."""
    places, failed = _RulePlaces(facts, rulebook), _errors(access, facts, rulebook)
    each = [f'the rule "{rule.name}" ({places.of(rule).place}): {error}' for rule, error in failed.items()]
    text = f"rules that do not fail: {'; '.join(each)}"
    if not each:
        text = "a policy set that parses: `cachegate policy check` names the line, `policy apply` applies it"
    return Remedy(kind=Help.RULE_REPAIR, text=text)


def _errors(access: Access, facts: Facts, rulebook: Rulebook) -> dict[Rule, str]:
    """The rules that failed on this query, and why."""
    weighed = rulebook.weigh(access, facts)
    answers = [] if weighed is None else [answer for row in weighed.answers for answer in row]
    return {rule: error for answer in answers for rule, error in answer.errors}


def _tenant_key(facts: Facts) -> Remedy:
    owner = facts.model_standing.owner if facts.model_standing else None
    command = f"cachegate keys create --tenant={owner}" if owner else ""
    return Remedy(kind=Help.TENANT_KEY, text="a tenant's key: admin keys read no content", command=command)


def _platform_word(facts: Facts) -> Remedy:
    """Ask the platform, or have it change its ruling."""
    ruling = facts.ruling
    if ruling is None:
        return Remedy(
            kind=Help.PLATFORM, text="the platform to allow it, which is asked when the key is used"
        )
    until = datetime.fromtimestamp(ruling.until, UTC).isoformat(timespec="seconds")
    text = (
        f"the platform to allow it: it said {ruling.reason}, and is asked again from {until} on; "
        "its webhook ends that at once"
    )
    return Remedy(kind=Help.PLATFORM, text=text)


def _with_platforms_word(facts: Facts) -> Facts:
    """The facts as they would be if the platform allowed it: other remedies are searched with these."""
    if facts.model is None:
        return facts
    grant = Grant(
        grant_id=PLATFORM_GRANT,
        actions=GRANTABLE,
        models=(Pattern(facts.model),),
        source=SOURCE_PLATFORM,
    )
    return replace(facts, grants=(*facts.grants, grant), ruling=None, is_confirmed=True)


class _RulePlaces:
    """Finds the location, annotations and comment of the rules of a set."""

    def __init__(self, facts: Facts, rulebook: Rulebook) -> None:
        self._rules = rulebook.rules(facts.policy)
        self._texts = dict(facts.policy.policies)
        self._written: dict[str, list[RuleText]] = {}

    def of(self, rule: Rule, error: str = "") -> Determining:
        """A rule with its location."""
        if rule.file not in self._written:
            self._written[rule.file] = rule_texts(self._texts.get(rule.file, ""))
        written = self._written[rule.file][rule.number]
        return Determining(
            policy=rule.name,
            effect=rule.effect,
            file=rule.file,
            line=written.line,
            notes=rule.notes,
            comment=written.comment,
            error=error,
        )

    def named(self, names: tuple[str, ...], errors: dict[Rule, str]) -> Iterator[Determining]:
        """The rules with these names, in the order of the set."""
        wanted = frozenset(names)
        for rule in self._rules:
            if rule.name in wanted:
                yield self.of(rule, errors.get(rule, ""))


def _path(
    access: Access, facts: Facts, verdict: Verdict, grants: tuple[tuple[Grant, str], ...]
) -> Iterator[Step]:
    """The steps from the key to the file; for a denial, one of them says what refused it."""
    principal, resource = access.principal, access.resource
    yield Step(kind="key", name=principal.key_id, note=principal.key_name)
    if principal.tenant is not None:
        yield Step(kind="tenant", name=principal.tenant)
    if isinstance(verdict, Allowed):
        yield from _ground(facts, verdict, grants)
    else:
        yield Step(kind="refused", name=verdict.reason, note=", ".join(verdict.policies))
    if facts.requested is not None and facts.requested != facts.model:
        yield Step(kind="alias", name=facts.requested, note="permitted only together with the model")
    if facts.model is not None:
        yield Step(kind="model", name=facts.model)
    if resource.package is not None:
        yield Step(kind="package", name=resource.package)
    if resource.file is not None:
        yield Step(kind="file", name=resource.file)


def _lapsed(access: Access, facts: Facts, rulebook: Rulebook, rules: tuple[ModelRule, ...]) -> Iterator[Step]:
    """The grants and publications that would give it at another time."""
    for held, state in ((Held.ENDED, PeriodState.ENDED), (Held.AHEAD, PeriodState.NOT_YET)):
        for grant in rulebook.lapsed_grants(access, facts, held):
            yield Step(kind="grant", name=grant.grant_id, note=f"{state_text(state)}; {period_text(grant)}")
    standing = facts.model_standing
    if standing is None or standing.lapsed is None or facts.model is None:
        return
    by_pattern = {rule.pattern: rule for rule in rules if rule.visibility is not None}
    showing = next((by_pattern[one] for one in ancestors(facts.model) if one in by_pattern), None)
    if showing is not None:
        yield Step(
            kind="publication",
            name=showing.pattern,
            note=f"{state_text(standing.lapsed)}; {period_text(showing)}",
        )


def _ground(facts: Facts, allowed: Allowed, grants: tuple[tuple[Grant, str], ...]) -> Iterator[Step]:
    """The steps that name the right: ownership, publication, grants or a policy."""
    standing = facts.model_standing
    if allowed.grant == VIA_OWNER:
        yield Step(kind="owner", name=(standing.owner or "") if standing else "")
    elif allowed.grant == VIA_PUBLIC:
        yield Step(kind="public", name="every tenant")
    elif allowed.grant is not None:
        for grant, cover in grants:
            kind, _, name = cover.partition(":")
            narrowed = f"packages {' '.join(grant.packages)}" if grant.packages else ""
            note = f"actions {' '.join(sorted(grant.actions))} {narrowed}".rstrip()
            note += f", {period_text(grant)}" if grant.has_times else ""
            yield Step(kind="grant", name=grant.grant_id, note=note)
            yield Step(kind=kind, name=name)
    else:
        yield Step(kind="policy", name=", ".join(allowed.policies))


def _covers(facts: Facts, rules: tuple[ModelRule, ...]) -> Iterator[Cover]:
    """Every pattern that covers the model and then the alias, most specific first, with its rule."""
    by_pattern = {rule.pattern: rule for rule in rules}
    names: list[ModelId] = [name for name in (facts.model, facts.requested) if name is not None]
    for model in dict.fromkeys(names):
        for pattern in ancestors(model):
            rule = by_pattern.get(pattern)
            yield Cover(
                model=model,
                pattern=pattern,
                owner=rule.owner if rule else None,
                visibility=rule.visibility if rule else None,
                groups=rule.groups if rule else (),
                source=rule.source if rule else "",
                not_before=rule.not_before if rule else None,
                expires_at=rule.expires_at if rule else None,
            )


def _rule_lines(rule: Determining) -> Iterator[str]:
    """A rule in one line, and its annotations, comment and error in further lines."""
    yield f"{rule.policy} ({rule.place})"
    yield from (f"  {note}" for note in (*rule.notes, rule.comment, rule.error) if note)


def column(title: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Several values under one title."""
    return [(title if number == 0 else "", value) for number, value in enumerate(values)]


def _cover_text(cover: Cover) -> str:
    """A pattern and its rule in one line."""
    said = [
        f"owner {cover.owner}" if cover.owner else "",
        cover.visibility or "",
        period_text(cover),
        f"groups {' '.join(cover.groups)}" if cover.groups else "",
        f"({cover.source})" if cover.source else "",
    ]
    return f"{cover.pattern}: {' '.join(filter(None, said)) or 'says nothing'}"
