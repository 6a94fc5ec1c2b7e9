from __future__ import annotations

import asyncio

import pytest

from gateway.directory.edits.tenants import resume_tenant, suspend_tenant
from gateway.model.access import Action, ResourceKind
from gateway.model.errors import Conflict, Reason
from gateway.operations.explain.answer import AccessQuestion, work_out
from gateway.operations.session import open_session


def question(key_id, **more):
    values = {"model": "acme/cars/1", "package": None, "file": None, "action": Action.READ}
    return AccessQuestion(key_id=key_id, **{**values, **more})


def answer(installed, asked, before=None, after=None):
    async def work():
        async with open_session(installed.settings) as session:
            if before is not None:
                await session.perform("test", before)
            try:
                return await work_out(session, asked)
            finally:
                if after is not None:
                    await session.perform("test", after)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ({}, ResourceKind.MODEL),
        ({"package": "p1"}, ResourceKind.PACKAGE),
        ({"package": "p1", "file": "w"}, ResourceKind.FILE),
    ],
)
def test_the_most_specific_name_makes_the_resource(named, kind):
    assert question("key_0123456789ab", **named).resource.kind is kind


def test_a_suspended_tenants_key_is_refused_and_the_rules_are_weighed_all_the_same(installed):
    found = answer(
        installed,
        question(installed.key_id("globex"), model="globex/cars/1"),
        before=lambda changes: suspend_tenant(changes, tenant_id="globex"),
        after=lambda changes: resume_tenant(changes, tenant_id="globex"),
    )
    assert found.key_problem is Reason.SUSPENDED_TENANT
    assert not found.is_yes
    assert found.rules.verdict == "allow"


def test_an_alias_is_looked_for_on_disk_by_what_it_stands_for(installed):
    found = answer(installed, question(installed.key_id("acme"), model="acme/latest"))
    assert found.is_yes
    assert {cover.pattern for cover in found.rules.covers} >= {"acme/latest", "acme/cars/1"}
    assert any(cover.owner == "acme" for cover in found.rules.covers)


def test_an_unknown_key_is_a_conflict(installed):
    with pytest.raises(Conflict):
        answer(installed, question("key_0123456789ab"))


def test_asking_records_nothing(installed):
    def segments():
        return sorted((one.name, one.stat().st_size) for one in installed.settings.audit_folder.iterdir())

    before = segments()
    answer(installed, question(installed.key_id("acme")))
    assert segments() == before
