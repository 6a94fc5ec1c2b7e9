"""The identity face tells a key's holder about the key, and never shows the key itself."""

from __future__ import annotations

import pytest

from gateway.faces.identity import WHOAMI, describe
from gateway.model.access import Action, ResourceKind
from gateway.model.facts import KeyKind, Scope
from tests import samples

TENANT_KEY = samples.principal(
    key_name="trainer", scopes=frozenset({Scope.READ, Scope.DISCOVER}), expires_at=1_790_000_000.0
)


def test_a_key_is_described_by_what_its_holder_may_know():
    assert describe(TENANT_KEY) == {
        "kind": "tenant",
        "tenant": "acme",
        "key_id": "key_abcdefghijkl",
        "name": "trainer",
        "scopes": ["discover", "read"],
        "expires_at": "2026-09-21T14:13:20+00:00",
    }


def test_a_key_without_an_end_or_a_tenant_has_none():
    admin = samples.principal(kind=KeyKind.ADMIN, tenant=None)
    assert (describe(admin)["tenant"], describe(admin)["expires_at"]) == (None, None)


@pytest.mark.parametrize(
    "raw_path", [b"/v1/whoami/", b"/v1/whoami/x", b"/v1/WHOAMI", b"/v1/whoam%69", b"//v1/whoami"]
)
def test_the_route_has_one_spelling(raw_path):
    assert WHOAMI.matches(b"/v1/whoami")
    assert not WHOAMI.matches(raw_path)


def test_the_route_is_about_the_caller_itself():
    assert WHOAMI.action is Action.IDENTIFY
    assert WHOAMI.locate(None).kind is ResourceKind.SELF
