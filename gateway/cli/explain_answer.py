"""One question about access, answered in full: the key, the rules, the disk.

A request needs all three to say yes, and asks them in this order. An operator wants all three
answers at once, so a key that is revoked is still weighed by the rules, as if it were not: what is
wrong beside the revocation is worth knowing too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway.assembly.fittings import build_catalogue
from gateway.cli.explain_disk import DiskState, look_at_disk
from gateway.decision.explain import explain
from gateway.decision.rulebook import Rulebook
from gateway.identity.authenticate import Authenticator, principal_of
from gateway.model.access import Access, Resource, ResourceKind
from gateway.model.errors import Conflict, Refusal
from gateway.model.names import ancestors

if TYPE_CHECKING:
    from gateway.decision.explain import Explanation
    from gateway.model.access import Action
    from gateway.model.errors import Reason
    from gateway.model.facts import Facts, Key, ModelRule, Tenant
    from gateway.model.names import FileHandle, KeyId, ModelId, PackageId
    from gateway.office.office import Office


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who, what, and what with it."""

    key_id: KeyId
    model: ModelId
    package: PackageId | None
    file: FileHandle | None
    action: Action

    @property
    def resource(self) -> Resource:
        """What a path would name."""
        kind = ResourceKind.MODEL
        if self.package is not None:
            kind = ResourceKind.PACKAGE if self.file is None else ResourceKind.FILE
        return Resource(kind=kind, model=self.model, package=self.package, file=self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What each of the three says. `key_problem` is why the key itself is refused now, if it is."""

    key_problem: Reason | None
    networks: tuple[str, ...]
    rules: Explanation
    disk: DiskState

    @property
    def is_yes(self) -> bool:
        """Whether a request would get the thing."""
        return self.key_problem is None and self.rules.verdict == "allow" and self.disk.is_there

    def as_json(self) -> dict[str, Any]:
        """For scripts: `verdict` is of key and rules together, `served` needs the disk as well."""
        document = self.rules.as_json()
        if self.key_problem is not None:
            document |= {
                "verdict": "deny",
                "reason": self.key_problem.value,
                "meaning": self.key_problem.explanation,
            }
        key = {
            "valid": self.key_problem is None,
            "problem": self.key_problem.value if self.key_problem else None,
            "networks": list(self.networks),
        }
        disk = {"present": self.disk.is_there, "found": self.disk.found, "directory": self.disk.directory}
        return {"served": self.is_yes, **document, "key": key, "disk": disk}

    def as_rows(self) -> list[tuple[str, str]]:
        """For people: the answer first, then each of the three."""
        rows = [("served now", "yes" if self.is_yes else "no")]
        if self.key_problem is None:
            rows.append(("key", "valid now"))
        else:
            rows.append(("key", f"refused: {self.key_problem.value}: {self.key_problem.explanation}"))
            rows.append(("", "what follows is what the rules would say if it were not"))
        if self.networks:
            rows.append(("", f"from these networks only: {' '.join(self.networks)}"))
        rows += self.rules.as_rows()
        state = "there" if self.disk.is_there else "NOT there"
        return [*rows, ("on disk", f"{state}: {self.disk.found}"), ("", self.disk.directory)]


async def work_out(office: Office, question: Question) -> Answer:
    """Answer a question on the facts and the disk of this moment. Raises `Conflict` for an unknown key."""
    key = await office.listing.find_key(question.key_id)
    if key is None:
        raise Conflict(f"there is no key {question.key_id}; `cachegate keys list` shows them")
    tenant = await office.listing.find_tenant(key.tenant) if key.tenant is not None else None
    access = Access(principal=principal_of(key, tenant), action=question.action, resource=question.resource)
    [facts] = await office.directory.bring(access.principal, [question.model])
    catalogue = build_catalogue(office.settings, office.clock, is_command=True)
    return Answer(
        key_problem=_key_problem(office, key, tenant),
        networks=key.networks,
        rules=explain(access, facts, Rulebook(), await _covering_rules(office, facts)),
        disk=await look_at_disk(catalogue, facts.model, question.package, question.file),
    )


def _key_problem(office: Office, key: Key, tenant: Tenant | None) -> Reason | None:
    """Why the key would be refused now. Nobody is calling, so its networks cannot be judged."""
    anywhere = replace(key, networks=())
    try:
        Authenticator(office.directory, office.peppers).judge(anywhere, tenant, "", office.clock.now())
    except Refusal as refusal:
        return refusal.reason
    return None


async def _covering_rules(office: Office, facts: Facts) -> list[ModelRule]:
    """What is said about the patterns that cover the model and the name it was asked for by."""
    names = dict.fromkeys(name for name in (facts.model, facts.requested) if name is not None)
    rules: list[ModelRule] = []
    for pattern in dict.fromkeys(pattern for name in names for pattern in ancestors(name)):
        with suppress(Conflict):  # it does not parse: the facts say so already, and that denies
            rule = await office.listing.find_rule(pattern)
            if rule is not None:
                rules.append(rule)
    return rules
