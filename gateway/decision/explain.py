"""Why an answer is what it is, for an operator: the whole grant path, or what is missing from it.

Explaining decides again, by the same Rulebook, and then puts words to it; nothing here is asked when
a request is served. It names other tenants' rules and is shown to administrators only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.decision.rulebook import VIA_OWNER, VIA_PUBLIC
from gateway.model.access import Action, ResourceKind
from gateway.model.errors import Reason
from gateway.model.names import ancestors
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.decision.rulebook import Rulebook
    from gateway.model.access import Access
    from gateway.model.facts import Facts, Grant, ModelRule
    from gateway.model.names import ModelId
    from gateway.model.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One link of the path from the key to the file: what it is, its name, and how it leads on."""

    kind: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """A pattern that covers the model and what its rule says; empty where it says nothing."""

    model: str
    pattern: str
    owner: str | None
    visibility: str | None
    groups: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Determining:
    """A policy that made the decision: its @id and the file it stands in."""

    policy: str
    effect: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision in words."""

    verdict: str  # allow, deny
    reason: str
    meaning: str
    may_discover: bool
    scopes: tuple[str, ...]
    path: tuple[Step, ...]
    covers: tuple[Cover, ...]
    policies: tuple[Determining, ...]
    policy_digest: str
    needed: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For scripts: plain lists, dictionaries and strings."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def as_rows(self) -> list[tuple[str, str]]:
        """For people: a table of two columns, the first empty where a row goes on with the one above."""
        rows = [("verdict", self.verdict), ("reason", f"{self.reason}: {self.meaning}")]
        rows += _column("path", (f"{each.kind} {each.name}  {each.note}".rstrip() for each in self.path))
        rows += _column("patterns", map(_cover_text, self.covers))
        rows += _column("policies", (f"{each.policy} ({each.effect}, {each.file})" for each in self.policies))
        rows += _column("scopes", [" ".join(self.scopes) or "none"])
        rows += _column("needed", self.needed)
        return rows


def explain(access: Access, facts: Facts, rulebook: Rulebook, rules: Iterable[ModelRule] = ()) -> Explanation:
    """Decide and explain. `rules` are those on the patterns that cover the model and its alias.

    Without them the explanation knows how the model stands, but not which pattern says so.
    """
    verdict = rulebook.decide(access, facts)
    known = tuple(rules)
    grants = rulebook.matching_grants(access, facts)
    reason = Reason.PERMITTED if isinstance(verdict, Allowed) else verdict.reason
    return Explanation(
        verdict="allow" if isinstance(verdict, Allowed) else "deny",
        reason=reason,
        meaning=reason.explanation,
        may_discover=isinstance(verdict, Allowed) or verdict.may_discover,
        scopes=tuple(sorted(access.principal.scopes)),
        path=tuple(_path(access, facts, verdict, grants)),
        covers=tuple(_covers(facts, known)),
        policies=tuple(
            Determining(policy=rule.name, effect=rule.effect, file=rule.file)
            for rule in rulebook.rules(facts.policy)
            if rule.name in verdict.policies
        ),
        policy_digest=facts.policy.digest,
        needed=() if isinstance(verdict, Allowed) else tuple(_needed(access, facts, reason)),
    )


def _path(
    access: Access, facts: Facts, verdict: Verdict, grants: tuple[tuple[Grant, str], ...]
) -> Iterator[Step]:
    """From the key to the file; where the way breaks off, a step says so."""
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


def _ground(facts: Facts, allowed: Allowed, grants: tuple[tuple[Grant, str], ...]) -> Iterator[Step]:
    """How the caller came by the right."""
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
            yield Step(kind="grant", name=grant.grant_id, note=note)
            yield Step(kind=kind, name=name)
    else:
        yield Step(kind="policy", name=", ".join(allowed.policies))


def _covers(facts: Facts, rules: tuple[ModelRule, ...]) -> Iterator[Cover]:
    """Every pattern that covers the model and then the alias, most specific first, with what it says."""
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
            )


def _needed(access: Access, facts: Facts, reason: Reason) -> Iterator[str]:
    """What would have to be different for the answer to be yes."""
    if reason is Reason.UNREADABLE_FACT:
        yield "records that parse: " + (", ".join(facts.unreadable) or "the model's own")
    elif reason is Reason.POLICY_ERROR:
        yield "a policy set that evaluates without error (`cachegate policy check` names the line)"
    elif access.principal.tenant is None:
        yield "a tenant's key: admin keys read no content"
    elif reason is Reason.MISSING_SCOPE:
        yield f"the scope {access.action} on the key"
    else:
        if not access.principal.scopes & _scopes_for(access.action):
            yield f"the scope {access.action} on the key"
        if access.resource.kind in {ResourceKind.MODEL, ResourceKind.PACKAGE, ResourceKind.FILE}:
            yield from _rights_needed(access, facts)
        else:
            yield f"a policy that permits {access.action}, and none that forbids it"


def _rights_needed(access: Access, facts: Facts) -> Iterator[str]:
    """The ways to a right on content; for an alias they are needed for both names."""
    tenant, action = access.principal.tenant, access.action
    packages = f" with package {access.resource.package}" if access.resource.package else ""
    yield f"a grant of {action} to {tenant} on {facts.model}{packages}, or"
    yield f"{facts.model} to be owned by {tenant}, or to be public"
    if facts.requested is not None and facts.requested != facts.model:
        yield f"and the same for the alias {facts.requested}, where it has an owner of its own"
    yield "and no policy that forbids it"


def _scopes_for(action: Action) -> frozenset[str]:
    """The scopes that allow an action; to read implies to discover."""
    return frozenset({action, Action.READ} if action is Action.DISCOVER else {action})


def _column(title: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Several values under one title."""
    return [(title if number == 0 else "", value) for number, value in enumerate(values)]


def _cover_text(cover: Cover) -> str:
    """One pattern in a line."""
    said = [
        f"owner {cover.owner}" if cover.owner else "",
        cover.visibility or "",
        f"groups {' '.join(cover.groups)}" if cover.groups else "",
        f"({cover.source})" if cover.source else "",
    ]
    return f"{cover.pattern}: {' '.join(filter(None, said)) or 'says nothing'}"
