"""Changes of a call in one transaction, over a real installation."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

import pytest

from gateway.admin.call import Call
from gateway.admin.documents import Waiting
from gateway.directory.edits.keys import create_key, disable_key, revoke_key
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.authenticate import principal_of
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.access import Action
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId
from gateway.model.tenant_records import new_record_id
from gateway.operations.session import open_session
from tests import samples


@pytest.mark.parametrize("is_there", [True, False])
def test_a_caller_of_a_tenant_that_had_the_name_before_changes_nothing(installed, is_there):
    """It was admitted, and its tenant was removed, and the name taken, before its change is made."""
    tenant = TenantId(f"late-{uuid.uuid4().hex[:8]}")

    async def work():
        async with open_session(installed.settings) as session:
            now = session.clock.now()
            if is_there:
                await session.perform("test", partial(create_tenant, tenant_id=tenant, name="", now=now))
            order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=tenant)
            new = issue_key(order, environment="test", peppers=session.peppers)
            call = Call(
                action=Action.KEYS_CREATE,
                session=session,
                catalogue=None,
                principal=samples.principal(tenant=tenant, tenant_record=new_record_id()),
                own=tenant,
                now=now,
                query=Waiting(),
                confirm=lambda: None,  # the worker has not heard of it
            )
            with pytest.raises(Refusal) as refused:
                await call.change(partial(create_key, key=new.key, digest=new.digest), tenant=tenant)
            return refused.value.reason, await session.listing.list_keys(tenant)

    assert asyncio.run(work()) == (Reason.REMOVED_TENANT, [])


@pytest.mark.parametrize(
    ("edit", "reason"), [(revoke_key, Reason.REVOKED_KEY), (disable_key, Reason.DISABLED_KEY)]
)
def test_a_key_that_ended_since_its_request_was_admitted_changes_nothing(installed, edit, reason):
    """Whoever stole a key may have changes under way while it is revoked."""
    tenant = TenantId(f"late-{uuid.uuid4().hex[:8]}")

    async def work():
        async with open_session(installed.settings) as session:
            now = session.clock.now()
            order = KeyOrder(now=now, kind=KeyKind.ADMIN, tenant=None)
            new = issue_key(order, environment="test", peppers=session.peppers)
            await session.perform("test", partial(create_key, key=new.key, digest=new.digest))
            call = Call(
                action=Action.TENANTS_CREATE,
                session=session,
                catalogue=None,
                principal=principal_of(new.key, None),
                own=None,
                now=now,
                query=Waiting(),
                confirm=lambda: None,  # the worker has not heard of it
            )
            await session.perform("test", partial(edit, key_id=new.key.key_id, now=now))
            with pytest.raises(Refusal) as refused:
                await call.change(partial(create_tenant, tenant_id=tenant, name="", now=now))
            return refused.value.reason, await session.listing.find_tenant(tenant)

    assert asyncio.run(work()) == (reason, None)
