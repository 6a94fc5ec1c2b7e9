"""The last check of a change is in its transaction: who was revoked meanwhile changes nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
import pytest
from msgspec.structs import replace

from gateway.admin import policy
from gateway.admin.face import AdminFace
from gateway.admin.worker import worker_session
from gateway.assembly.app import Worker
from gateway.configuration.sources import load_settings
from gateway.directory.edits import keys as edits
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId
from gateway.operations.session import fact_server

pytestmark = pytest.mark.anyio

ADDRESS = ("192.0.2.1", 4000)


class Site:
    """A worker in this process, with its admin API; `before` runs in a handler, just before it changes."""

    def __init__(self, installation):
        self.settings = load_settings(installation.variables())
        self.before = None

    @asynccontextmanager
    async def running(self):
        with fact_server(self.settings) as url:
            worker = Worker(self.settings, url)
            pipeline = worker.pipeline
            self.session = worker_session(pipeline)
            face = AdminFace(self.session, pipeline.catalogue, pipeline.clock, pipeline.guard.confirm)
            face.operations = [
                replace(one, handle=partial(self._late, one.handle)) for one in face.operations
            ]
            app = worker.app_of(face.routes(), face.public_routes())
            async with pipeline.running():
                self.clock = pipeline.clock
                self.key = await self.new_owner()
                transport = httpx.ASGITransport(app, client=ADDRESS)
                async with httpx.AsyncClient(transport=transport, base_url="http://admin") as self.client:
                    yield self

    async def _late(self, handle, call):
        before, self.before = self.before, None
        if before is not None:
            await before(call)
        return await handle(call)

    async def new_owner(self):
        order = KeyOrder(now=self.clock.now(), kind=KeyKind.ADMIN, tenant=None)
        new = issue_key(order, environment="test", peppers=self.session.peppers)
        make = partial(edits.create_key, key=new.key, digest=new.digest)
        assert (await self.session.perform("keys.create", make)).barrier.is_sure
        return new

    async def revoke(self, call):
        """End the caller's key, and wait until no worker accepts it any more."""
        key_id = call.principal.key_id
        end = partial(edits.revoke_key, key_id=key_id, now=self.clock.now())
        done = await self.session.perform("keys.revoke", end, key_id=key_id)
        assert done.barrier.is_sure

    async def ask(self, method, path, document=None, **headers):
        return await self.client.request(
            method,
            f"/admin/v1{path}",
            json=document,
            headers={"Authorization": f"Bearer {self.key.token}", **headers},
        )


@pytest.fixture
def site(installation_here):
    return Site(installation_here)


async def test_a_caller_that_is_revoked_before_its_change_is_made_changes_nothing(site, installation_here):
    async with site.running():
        site.before = site.revoke
        answer = await site.ask("POST", "/tenants", {"id": "late"})
        assert answer.status_code == 401, answer.text
        assert await site.session.listing.find_tenant(TenantId("late")) is None
    made = [one for one in installation_here.records() if one.get("action") == "tenants.create"]
    allowed, refused = [one for one in made if one["kind"] == "decision"]
    assert (allowed["reason"], refused["reason"]) == ("permitted", "revoked-key")
    assert installation_here.outcome_of(allowed["id"])["ending"] == "withdrawn"


async def test_an_operation_of_many_changes_does_not_begin_for_who_was_revoked_meanwhile(site):
    async with site.running():
        make = partial(create_tenant, tenant_id=TenantId("acme"), name="acme", now=site.clock.now())
        await site.session.perform("tenants.create", make)
        removed = partial(create_tenant, tenant_id=TenantId("gone"), name="gone", now=site.clock.now())
        await site.session.perform("tenants.create", removed)
        assert (await site.ask("POST", "/tenants/gone/remove")).status_code == 200
        kept = await site.new_owner()
        for path, body in (
            ("/tenants/acme/remove", None),
            ("/tenants/gone/restore", {}),
            ("/keys/revoke-found", {"tokens": [kept.token]}),
        ):
            site.key = await site.new_owner()
            site.before = site.revoke
            answer = await site.ask("POST", path, body)
            assert answer.status_code == 401, (path, answer.text)
        listing = site.session.listing
        assert await listing.find_tenant(TenantId("acme")) is not None
        assert await listing.find_tenant(TenantId("gone")) is None
        assert (await listing.find_key(kept.key.key_id)).revoked_at is None


async def test_a_change_whose_decision_moved_is_decided_anew_and_made_once(site, installation_here):
    async def rename_rules(call):
        """Put the rules in force once more: what stands on them is decided anew."""
        policy = await call.listing.find_policy()
        await site.session.perform("policy.apply", lambda changes: changes.put_policy(policy))

    async with site.running():
        site.before = rename_rules
        answer = await site.ask("POST", "/keys", {"name": "only one"})
        assert answer.status_code == 201, answer.text
        page = (await site.ask("GET", "/keys?limit=100")).json()
        assert len([one for one in page["items"] if one["name"] == "only one"]) == 1
    made = [one for one in installation_here.records() if one.get("action") == "keys.create"]
    decided = [one for one in made if one["kind"] == "decision"]
    assert len(decided) == 2
    assert installation_here.outcome_of(decided[0]["id"])["ending"] == "withdrawn"


async def test_a_change_that_is_sent_again_says_sure_only_where_it_is(site):
    async with site.running():
        make = partial(create_tenant, tenant_id=TenantId("acme"), name="acme", now=site.clock.now())
        await site.session.perform("tenants.create", make)
        path = "/tenants/acme/suspend?wait=false"
        first = await site.ask("POST", path, **{"Idempotency-Key": "twice"})
        again = await site.ask("POST", path, **{"Idempotency-Key": "twice"})
        assert (first.status_code, first.json()["sure"], first.json()["replayed"]) == (202, False, False)
        assert (again.status_code, again.json()["sure"], again.json()["replayed"]) == (202, False, True)
        assert again.json()["sure_at"] is not None
        waited = "/tenants/acme/resume"
        for is_replayed in (False, True):
            answer = await site.ask("POST", waited, **{"Idempotency-Key": "waited"})
            told = answer.json()
            assert (answer.status_code, told["sure"], told["workers"]) == (200, True, 1), told
            assert told["replayed"] is is_replayed


async def test_a_folder_is_applied_as_it_is_recorded_or_not_at_all(site, monkeypatch):
    """Between the plan that is recorded and the transaction, another operator makes one of its tenants."""
    plan_folder, plans = policy.plan_folder, []

    async def plan_then_change(*asked):
        plans.append(await plan_folder(*asked))
        if len(plans) == 1:
            make = partial(create_tenant, tenant_id=TenantId("sent"), name="sent", now=site.clock.now())
            await site.session.perform("tenants.create", make)
        return plans[-1]

    monkeypatch.setattr(policy, "plan_folder", plan_then_change)
    async with site.running():
        now = (await site.ask("GET", "/policy")).json()
        document = '[tenant]\nid = "sent"\n\n[models]\nown = ["sent/*"]\n'
        sent = {
            "schema": now["schema"],
            "policies": now["policies"],
            "tenants": [{"file": "sent.toml", "text": document}],
        }
        answer = await site.ask("POST", "/policy/apply", sent)
        assert (answer.status_code, len(plans)) == (409, 2), answer.text
        assert answer.json()["type"].endswith(":conflict")
        assert await site.session.listing.list_rules() == []


async def test_an_auditor_plans_and_does_not_apply_and_two_folders_are_not_checked_at_once(site, monkeypatch):
    is_checking, may_end = anyio.Event(), anyio.Event()
    check = policy.check_apart

    async def check_late(*asked, **more):
        is_checking.set()
        await may_end.wait()
        return await check(*asked, **more)

    monkeypatch.setattr(policy, "check_apart", check_late)
    async with site.running():
        now = (await site.ask("GET", "/policy")).json()
        sent = {"schema": now["schema"], "policies": now["policies"], "tenants": []}
        made = await site.ask("POST", "/keys", {"role": "auditor"})
        auditor = {"Authorization": f"Bearer {made.json()['token']}"}
        answers = []

        async def plan():
            answers.append(await site.ask("POST", "/policy/plan", sent, **auditor))

        async with anyio.create_task_group() as group:
            group.start_soon(plan)
            await is_checking.wait()
            second = await site.ask("POST", "/policy/plan", sent)
            may_end.set()
        assert (second.status_code, answers[0].status_code) == (503, 200), (second.text, answers[0].text)
        assert (await site.ask("POST", "/policy/apply", sent, **auditor)).status_code == 403
        assert (await site.ask("POST", "/policy/plan", sent)).status_code == 200
