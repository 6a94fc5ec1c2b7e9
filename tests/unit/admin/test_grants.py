"""Whose grants an administrator sees: those of a tenant's record, and none that its name alone had."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.admin.grants import _find_held
from gateway.model.facts import Grants, Tenant
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio

ACME, OURS, EARLIER = TenantId("acme"), "ten_00000000000A", "ten_00000000000B"


class Facts:
    """Grants that one record of the name has, and the tenant that has the name now."""

    def __init__(self, of: str | None, now: str | None) -> None:
        self.grants = Grants(tenant_id=ACME, tenant_record=of, grants=())
        self.tenant = Tenant(tenant_id=ACME, name="", is_suspended=False, created_at=1.0, record_id=now)

    async def find_grants(self, _tenant):
        return self.grants

    async def find_tenant(self, _tenant):
        return self.tenant


def call(own: str | None) -> SimpleNamespace:
    """An operator's, or that of an administrator of a tenant's record."""
    principal = SimpleNamespace(tenant=ACME if own else None, tenant_record=own)
    return SimpleNamespace(own=ACME if own else None, principal=principal)


@pytest.mark.parametrize("own", [None, OURS])
@pytest.mark.parametrize(
    ("of", "now", "is_shown"), [(OURS, OURS, True), (EARLIER, OURS, False), (None, OURS, False)]
)
async def test_grants_that_an_earlier_tenant_left_are_nobodys(own, of, now, is_shown):
    facts = Facts(of, now)
    found = await _find_held(call(own), facts, ACME)
    assert found is (facts.grants if is_shown else None)


async def test_an_administrator_of_an_earlier_tenant_sees_nothing_of_the_new_one():
    assert await _find_held(call(EARLIER), Facts(OURS, OURS), ACME) is None
