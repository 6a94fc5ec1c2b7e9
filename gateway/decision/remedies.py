"""Find the changes after which a denied access would be allowed, by trying them.

Nothing is guessed from the reason. Each change that an operator can make (a scope on the key, a grant,
ownership, publishing, a forbid that no longer holds) is made on the facts in memory, and the same rules
decide again; only changes that resulted in an allow are listed. The fewest and smallest are preferred, and
lifting a forbid is the last resort: a forbid was written on purpose.

Every step is needed; within a step, any one of its remedies suffices.

Not here: obstacles outside the rules (the key, the platform, the disk).
"""

from __future__ import annotations

from enum import StrEnum
from shlex import quote
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.decision.cedar_query import CONTENT_KINDS
from gateway.model.access import ALLOWABLE, Action, ResourceKind
from gateway.model.facts import Grant, Scope, Visibility
from gateway.model.names import Pattern
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.decision.cedar import Rule
    from gateway.decision.rulebook import Rulebook
    from gateway.model.access import Access
    from gateway.model.facts import Facts, ModelRule
    from gateway.model.names import ModelId


class Help(StrEnum):
    """The kind of change, which says where it is made."""

    TENANT_KEY = "tenant-key"  # use a key of a tenant
    SCOPE = "scope"  # use a key with this scope
    GRANT = "grant"
    OWN = "own"
    ALLOW = "allow"  # allow the tenant's workflows to do it
    PUBLISH = "publish"
    RULE_CHANGE = "rule-change"  # change or remove a rule that forbids
    PERMIT = "permit"  # write a rule that permits
    RULE_REPAIR = "rule-repair"  # a rule fails while it is evaluated, or the set does not parse
    RECORD_REPAIR = "record-repair"  # a record in Redis does not parse
    KEY = "key"  # another key
    WAIT = "wait"  # until a time
    NETWORK = "network"  # ask from another address
    TENANT = "tenant"  # resume the key's tenant
    PLATFORM = "platform"  # the platform has to allow it
    MODEL_NAME = "model-name"  # another name of a model is meant
    DISK = "disk"  # the file has to be on disk, as the engine leaves it
    BLOB = "blob"  # a blob is in quarantine
    ATTESTATION = "attestation"


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """One change that helps. `command` makes it, if a command can; `text` says what has to be done."""

    kind: Help
    text: str
    command: str = ""


Step = tuple[Remedy, ...]
"""One needed change: the alternative remedies that make it."""

_Right = tuple["Facts", Remedy | None]
"""The facts with a right given, and the remedy that gives it; or the unchanged facts and None."""


def needed_lines(steps: Iterable[Step]) -> tuple[str, ...]:
    """All steps in lines, for people: alternatives of a step end in `or`, a later step begins with `and`."""
    lines: list[str] = []
    for step in steps:
        texts = [remedy.text for remedy in step]
        joined = [f"{text}, or" for text in texts[:-1]] + texts[-1:]
        lines += [f"and {joined[0]}" if lines and joined else "".join(joined[:1]), *joined[1:]]
    return tuple(lines)


class RemedyPlan(msgspec.Struct, frozen=True):
    """What has to be done for an allow: these steps, and these forbids must no longer hold."""

    steps: tuple[Step, ...]
    forbids: tuple[Rule, ...]


def find_way(access: Access, facts: Facts, rulebook: Rulebook, rules: Iterable[ModelRule] = ()) -> RemedyPlan:
    """The least that has to be done so that a denied access is allowed. For a denial by Cedar.

    Where no change that is tried helps, the remedy is a new rule that permits it.
    """
    found = [
        RemedyPlan((*scope_steps, *way.steps), way.forbids)
        for asking, scope_steps, ways in _tries(access, facts, rules)
        if (way := _helping(asking, ways, rulebook)) is not None
    ]
    if found:  # fewest forbids first; of equals, the first tried, which changes least
        return min(found, key=lambda way: len(way.forbids))
    who = f"tenant {access.principal.tenant}" if access.principal.tenant else "this key"
    permit = Remedy(kind=Help.PERMIT, text=f"a rule that permits {access.action} of it to {who}")
    return RemedyPlan(((permit,),), _forbids(access, facts, rulebook))


def _tries(
    access: Access, facts: Facts, rules: Iterable[ModelRule]
) -> Iterator[tuple[Access, tuple[Step, ...], Sequence[_Right]]]:
    """What to try, the smallest change first: nothing, a scope, a right, both."""
    said = {rule.pattern: rule for rule in rules}
    unchanged: list[_Right] = [(facts, None)]
    rights = list(_rights(access, facts, said))
    keys: list[tuple[Access, tuple[Step, ...]]] = [(access, ())]
    if access.principal.tenant is not None:
        keys.append((_with_scope(access), (_scope_step(access),)))
    for ways in (unchanged, rights):
        yield from ((asking, steps, ways) for asking, steps in keys)
    if access.resource.kind is ResourceKind.TENANT:
        allowing: Step = (_allow_remedy(access),)
        yield from ((_with_action_allowed(asking), (*steps, allowing), unchanged) for asking, steps in keys)


def _helping(access: Access, ways: Sequence[_Right], rulebook: Rulebook) -> RemedyPlan | None:
    """Those of these rights that help, as one step, with the forbids that remain.

    Where rights leave different forbids, those that leave the fewest.
    """
    left: dict[tuple[Rule, ...], list[Remedy | None]] = {}
    for facts, remedy in ways:
        if isinstance(rulebook.decide(access, facts), Allowed):
            left.setdefault((), []).append(remedy)
        elif _is_permitted(access, facts, rulebook):
            left.setdefault(_forbids(access, facts, rulebook), []).append(remedy)
    if not left:
        return None
    forbids = min(left, key=len)
    remedies = tuple(remedy for remedy in left[forbids] if remedy is not None)
    return RemedyPlan((remedies,) if remedies else (), forbids)


def _is_permitted(access: Access, facts: Facts, rulebook: Rulebook) -> bool:
    """Whether some rule permits it, regardless of forbids."""
    weighed = rulebook.weigh(access, facts)
    if weighed is None:
        return False
    return isinstance(rulebook.verdict_of(weighed, rulebook.answers_of_permits(weighed)), Allowed)


def _forbids(access: Access, facts: Facts, rulebook: Rulebook) -> tuple[Rule, ...]:
    """The rules that forbid it."""
    weighed = rulebook.weigh(access, facts)
    if weighed is None:
        return ()
    refusing = (answer for answer in weighed.answers[0] if not answer.is_allowed)
    return tuple(dict.fromkeys(rule for answer in refusing for rule in answer.rules))


def _scope_for(action: Action) -> Scope | None:
    if action in ALLOWABLE:
        return Scope.INFER
    return {Action.DISCOVER: Scope.DISCOVER, Action.READ: Scope.READ, Action.INFER: Scope.INFER}.get(action)


def _with_scope(access: Access) -> Access:
    scope = _scope_for(access.action)
    if scope is None:
        return access
    principal = replace(access.principal, scopes=access.principal.scopes | {scope})
    return replace(access, principal=principal)


def _with_action_allowed(access: Access) -> Access:
    principal = replace(access.principal, allows=(*access.principal.allows, access.action))
    return replace(access, principal=principal)


def _allow_remedy(access: Access) -> Remedy:
    tenant = access.principal.tenant
    text = f"workflows of tenant {tenant} to be allowed {access.action}"
    return Remedy(kind=Help.ALLOW, text=text, command=f"cachegate tenants allow {tenant} {access.action}")


def _scope_step(access: Access) -> Step:
    """A key with the scope. Scopes are fixed when a key is made, so it is another key."""
    principal, scope = access.principal, _scope_for(access.action)
    scopes = sorted({*principal.scopes, *([scope] if scope else [])})
    command = f"cachegate keys create --tenant={principal.tenant} --scopes {' '.join(scopes)}"
    return (Remedy(kind=Help.SCOPE, text=f"the scope {scope} on the key", command=command),)


def _rights(access: Access, facts: Facts, said: dict[Pattern, ModelRule]) -> Iterator[_Right]:
    """The rights on the model that could be given. They hold for its aliases too, whoever owns those."""
    if access.principal.tenant is None or access.resource.kind not in CONTENT_KINDS:
        return
    if facts.model is not None:
        yield _granted(access, facts, facts.model), _grant_remedy(access, facts.model)
        yield from _standing_ways(access, facts, said)


def _granted(access: Access, facts: Facts, model: ModelId) -> Facts:
    packages = () if access.resource.package is None else (access.resource.package,)
    grant = Grant(
        grant_id="tried",
        actions=frozenset({access.action}),
        models=(Pattern(model),),
        packages=packages,
    )
    return replace(facts, grants=(*facts.grants, grant))


def _grant_remedy(access: Access, model: ModelId) -> Remedy:
    tenant, action, package = access.principal.tenant, access.action, access.resource.package
    narrowed = f" with package {package}" if package else ""
    text = f"a grant of {action} to {tenant} on {model}{narrowed}"
    packages = f" --packages={package}" if package else ""
    where = f"{quote(f'--models={model}')}{packages} --actions={action}"
    return Remedy(kind=Help.GRANT, text=text, command=f"cachegate grants add --tenant={tenant} {where}")


def _standing_ways(access: Access, facts: Facts, said: dict[Pattern, ModelRule]) -> Iterator[_Right]:
    """Make the tenant the owner, or the model public. A rule on the exact id may prevent a command for it."""
    tenant, model, standing = access.principal.tenant, facts.model, facts.model_standing
    if tenant is None or model is None or standing is None:
        return
    exact = said.get(Pattern(model))
    owned = replace(standing, owner=tenant)
    command = f"cachegate models own {tenant} {_argument(model)}"
    if exact is not None and exact.owner is not None:
        command = ""  # one owner a pattern: it has to be taken from the other first
    elif standing.owner is not None:
        command = f"cachegate models own --force {tenant} {_argument(model)}"
    yield (
        _standing(facts, owned),
        Remedy(kind=Help.OWN, text=f"{model} to be owned by {tenant}", command=command),
    )
    public = replace(standing, visibility=Visibility.PUBLIC)
    command = f"cachegate models publish {_argument(model)}"
    yield _standing(facts, public), Remedy(kind=Help.PUBLISH, text=f"{model} to be public", command=command)


def _standing(facts: Facts, standing: object) -> Facts:
    """The facts with the model's standing changed, and the requested name's if it is the same name."""
    changed = {"model_standing": standing}
    if facts.requested == facts.model:
        changed["requested_standing"] = standing
    return replace(facts, **changed)


def _argument(name: ModelId) -> str:
    """A name as the last argument of a command: it is arbitrary text and may start with a dash."""
    return f"-- {quote(name)}" if name.startswith("-") else quote(name)
