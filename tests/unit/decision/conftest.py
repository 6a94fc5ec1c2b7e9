"""Fixtures of the decision tests: the shipped rules and short ways to build an access and its facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.decision import Rulebook
from gateway.decision.policyset import digest_of, load_policy_folder
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.facts import DEFAULT_SCOPES, Facts, KeyKind, PolicySet, Standing, Visibility
from gateway.model.stamps import Leaf, Stamp

POLICIES = Path(__file__).parents[3] / "policies"
PRIVATE = Standing(owner=None, visibility=Visibility.PRIVATE, groups=frozenset())


@dataclass
class Asker:
    """Builds accesses and facts about `acme/cars/1` as `globex`, with single changes."""

    shipped: PolicySet
    rulebook: Rulebook

    def access(self, **changes: Any) -> Access:
        principal = Principal(
            kind=changes.pop("kind", KeyKind.TENANT),
            key_id="key_0123456789ab",
            key_name="laptop",
            tenant=changes.pop("tenant", "globex"),
            scopes=frozenset(changes.pop("scopes", DEFAULT_SCOPES)),
            expires_at=None,
        )
        action = changes.pop("action", Action.READ)
        if "resource" in changes:
            resource = changes.pop("resource")
        else:
            package = changes.pop("package", None)
            kind = ResourceKind.MODEL if package is None else ResourceKind.PACKAGE
            resource = Resource(kind=kind, model=changes.pop("model", "acme/cars/1"), package=package)
        assert not changes
        return Access(principal=principal, action=action, resource=resource)

    def facts(self, **changes: Any) -> Facts:
        model = changes.get("model", "acme/cars/1")
        facts = Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=changes.get("model_standing", PRIVATE),
            model_standing=PRIVATE,
            policy=self.shipped,
            stamp=Stamp(7, (Leaf(b"name", b"value"),)),
        )
        return replace(facts, **changes)

    def rules(self, *texts: str) -> PolicySet:
        """The shipped schema with these policies instead of the shipped ones."""
        policies = tuple((f"{number}.cedar", text) for number, text in enumerate(texts))
        return PolicySet(
            schema=self.shipped.schema, policies=policies, digest=digest_of(self.shipped.schema, policies)
        )

    def shipped_and(self, text: str) -> PolicySet:
        """The shipped policies and one more file."""
        policies = (*self.shipped.policies, ("zz-more.cedar", text))
        return replace(self.shipped, policies=policies, digest=digest_of(self.shipped.schema, policies))


@pytest.fixture(scope="session")
def shipped() -> PolicySet:
    return load_policy_folder(POLICIES)


@pytest.fixture
def asker(shipped: PolicySet) -> Asker:
    return Asker(shipped, Rulebook())
