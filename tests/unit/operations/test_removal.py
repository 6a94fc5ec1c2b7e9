"""Off-boarding over a real installation: shown, done, interrupted, restored."""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.audit import read_events
from gateway.audit.record import ChangeRecord
from gateway.directory.edits.grants import add_grants
from gateway.directory.edits.keys import create_key
from gateway.directory.edits.models import add_alias, add_to_group, own, publish
from gateway.directory.edits.tenants import create_tenant, set_allows
from gateway.directory.removal import taking
from gateway.directory.removal.journal import RemovalStage
from gateway.directory.transfer.whole import each_fact
from gateway.identity.new_keys import KeyOrder, KeyState, issue_key
from gateway.model.errors import BadNameError, Conflict, UnknownName
from gateway.model.facts import Grant, Grants, KeyKind, ModelRule, PolicySet
from gateway.model.names import Pattern, TenantId
from gateway.operations.listings import find_tenant, list_keys, list_models
from gateway.operations.removal import (
    GRANTS_PER_CHANGE,
    PER_CHANGE,
    RESTORABLE_SECONDS,
    list_removed,
    plan_removal,
    remove_tenant,
    restore_tenant,
)
from gateway.operations.session import open_session

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


@pytest.fixture
def settings(copy_of_demo):
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    yield copy_of_demo(folder).settings
    shutil.rmtree(folder)


@pytest.fixture
def within(settings):
    """Run some work in a session of its own."""

    def run(work):
        async def main():
            async with open_session(settings) as session:
                return await work(session)

        return asyncio.run(main())

    return run


@pytest.fixture
def furnished(within):
    """Acme with one of everything that a tenant can have, beside what the demo gives it."""

    async def furnish(session):
        patterns = [Pattern("acme/cars/*")]
        for edit in (
            partial(own, tenant_id=ACME, patterns=patterns),
            partial(publish, patterns=[Pattern("acme/cars/1")]),
            partial(add_to_group, group="cars", patterns=patterns),
            partial(add_grants, tenant_id=GLOBEX, groups=["cars"], actions=["read"]),
            partial(add_grants, tenant_id=GLOBEX, models=[Pattern("acme/trucks/*")], actions=["infer"]),
            partial(add_grants, tenant_id=ACME, models=[Pattern("globex/cars/1")], actions=["read"]),
            partial(add_alias, alias="best-cars", canonical="acme/cars/1"),
            partial(set_allows, tenant_id=ACME, actions=["cache-read"], is_allowed=True),
        ):
            await session.perform("test", edit, wait=False)

    within(furnish)


async def facts_of(session):
    return [fact async for fact in each_fact(session.listing)]


async def remove(session):
    return await remove_tenant(session, ACME, RESTORABLE_SECONDS)


def named(facts, *texts):
    """The facts that name one of these; the rules of the policy set name examples."""
    others = [fact for fact in facts if not isinstance(fact, PolicySet)]
    return [fact for fact in others if any(text in str(fact) for text in texts)]


def test_showing_it_changes_nothing_and_names_all_of_it(within, furnished):
    async def work(session):
        before, generation = await facts_of(session), await session.store.generation()
        plan = await plan_removal(session, ACME, 60.0)
        assert (await facts_of(session), await session.store.generation()) == (before, generation)
        return plan

    plan = within(work)
    assert {"acme/*", "acme/cars/*", "acme/cars/1"} <= set(plan.patterns)
    assert {"best-cars", "acme/latest"} <= set(plan.aliases)
    assert plan.groups == ["cars"]
    assert plan.allows == ("cache-read",)
    assert plan.keys >= 3  # of the demo, which has others that are revoked
    [others] = plan.grants_of_others
    assert (others.tenant, len(others.grants)) == (GLOBEX, 2)
    assert {one.model for one in plan.on_disk} == {"acme/cars/1", "acme/trucks/2"}
    cars = next(one for one in plan.on_disk if one.model == "acme/cars/1")
    assert 0 < cars.shared_bytes < cars.bytes  # its weights are globex's, too
    assert plan.bytes_on_disk == sum(one.bytes for one in plan.on_disk)
    assert plan.in_the_way == []


def test_after_it_nothing_of_the_tenant_is_left_but_revoked_keys(within, furnished):
    async def work(session):
        removed = await remove(session)
        assert removed.barrier.is_sure
        facts = await facts_of(session)
        keys = [key for key in await list_keys(session, None) if key.tenant == ACME]
        return removed, facts, keys

    removed, facts, keys = within(work)
    left = named(facts, "acme")
    assert {type(fact).__name__ for fact in left} == {"StoredKey"}
    assert {key.state for key in keys} <= {KeyState.REVOKED}
    assert removed.keys >= 3
    assert (removed.grants_of_others, removed.kept_closed) == (2, [])
    assert removed.restorable_until.endswith("Z")


def test_a_tenant_of_the_same_name_has_nothing_of_it(within, furnished):
    async def work(session):
        before = await find_tenant(session, ACME)
        await remove(session)
        create = partial(create_tenant, tenant_id=ACME, name="Acme", now=session.clock.now())
        await session.perform("tenants.create", create, tenant=ACME, wait=False)
        after = await find_tenant(session, ACME)
        keys = await list_keys(session, ACME)
        return before, after, keys

    before, after, keys = within(work)
    assert after.record_id not in {None, before.record_id}
    assert (after.owns, after.grants, after.keys, after.allows, keys) == ([], [], [], (), [])


def test_restoring_brings_all_back_but_no_key(within, furnished):
    async def work(session):
        before = named(await facts_of(session), "acme", "cars")
        removed = await remove(session)
        restored = await restore_tenant(session, ACME)
        after = named(await facts_of(session), "acme", "cars")
        keys = await list_keys(session, ACME)
        return before, after, removed, restored, keys

    before, after, removed, restored, keys = within(work)
    assert restored.left == []
    assert (restored.removal_id, restored.keys) == (removed.removal_id, removed.keys)

    def without_keys(facts):
        return sorted(str(fact) for fact in facts if type(fact).__name__ != "StoredKey")

    assert without_keys(after) == without_keys(before)
    assert {key.state for key in keys} == {KeyState.REVOKED}


def test_a_restored_tenant_can_be_removed_again_and_each_removal_is_listed(within, furnished):
    async def work(session):
        first = await remove(session)
        await restore_tenant(session, ACME)
        second = await remove(session)
        assert second.removal_id != first.removal_id
        assert second.patterns == first.patterns
        assert second.keys == 0
        return await list_removed(session)

    listed = within(work)
    assert [one.stage for one in listed] == [RemovalStage.RESTORED, RemovalStage.REMOVED]
    assert [one.restorable_until is None for one in listed] == [True, False]


STEPS = (
    *("revoke_keys", "take_own_grants", "close_rules", "take_aliases", "take_grants_of_others"),
    *("delete_rules", "end_removal"),
)


KILLED = [*((step, False) for step in STEPS), *((step, True) for step in STEPS[:-1])]


@pytest.mark.parametrize(("step", "is_made"), KILLED)
def test_an_interrupted_removal_goes_on_where_it_was(within, furnished, monkeypatch, step, is_made):
    """KilledError before or after any step, and run again: all is gone, and all of it can be restored."""
    whole = getattr(taking, step)

    class KilledError(Exception):
        pass

    async def killed(changes, **arguments):
        raise KilledError

    async def work(session):
        before = named(await facts_of(session), "acme", "cars")
        with monkeypatch.context() as patch:
            if is_made:
                _kill_after(patch, session, step, KilledError)
            else:
                patch.setattr(taking, step, killed)
            with pytest.raises(KilledError):
                await remove(session)
        assert getattr(taking, step) is whole
        order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=ACME)
        new = issue_key(order, environment="live", peppers=session.peppers)
        create = partial(create_key, key=new.key, digest=new.digest)
        with pytest.raises(Conflict, match="being removed"):  # nothing new meanwhile
            await session.perform("keys.create", create, wait=False)
        assert (await plan_removal(session, ACME, 60.0)).is_resumed
        removed = await remove(session)
        left = [one for one in named(await facts_of(session), "acme") if type(one).__name__ != "StoredKey"]
        assert left == []
        assert (await plan_of_disk(session)) == 0
        restored = await restore_tenant(session, ACME)
        assert (restored.removal_id, restored.left) == (removed.removal_id, [])
        after = named(await facts_of(session), "acme", "cars")
        return before, after

    before, after = within(work)

    def without_keys(facts):
        return sorted(str(fact) for fact in facts if type(fact).__name__ != "StoredKey")

    assert without_keys(after) == without_keys(before)


async def plan_of_disk(session):
    """How many rules name a tenant that does not exist."""
    return sum(not rule.owner_exists for rule in (await list_models(session)).rules if rule.owner is not None)


def _kill_after(patch, session, step, error):
    """Raise once a change by this step was made."""
    perform = session.perform

    async def performing(action, operation, **more):
        done = await perform(action, operation, **more)
        if step in repr(operation):
            raise error
        return done

    patch.setattr(type(session), "perform", lambda self, *a, **k: performing(*a, **k))


def test_facts_of_the_policy_folder_are_in_the_way_and_nothing_is_changed(within, furnished):
    async def work(session):
        async def put(changes):
            await changes.put_rule(
                ModelRule(pattern=Pattern("acme/f"), owner=ACME, source="policies:acme", owner_record=record)
            )
            lent = Grant(
                grant_id="doc_1", actions=frozenset({"read"}), models=("acme/f",), source="policies:initech"
            )
            initech = await changes.find_tenant("initech")
            held = Grants(tenant_id=initech.tenant_id, tenant_record=initech.record_id, grants=(lent,))
            await changes.put_grants(held)

        record = (await session.listing.find_tenant(ACME)).record_id
        await session.perform("test", put, wait=False)
        generation = await session.store.generation()
        with pytest.raises(Conflict) as conflict:
            await remove(session)
        assert await session.store.generation() == generation
        return str(conflict.value)

    said = within(work)
    assert "tenants/acme.toml of the policy folder says it: the rule for acme/f" in said
    assert "tenants/initech.toml of the policy folder says it: the grant doc_1 of initech" in said
    assert "cachegate policy apply" in said


def test_a_name_that_nobody_has_and_a_limit_out_of_bounds_are_refused(within):
    async def work(session):
        for seconds in (-1.0, 91 * 86_400.0, math.nan, math.inf):
            with pytest.raises(BadNameError):
                await remove_tenant(session, ACME, seconds)
        with pytest.raises(UnknownName):
            await remove_tenant(session, TenantId("nobody"), 60.0)
        with pytest.raises(UnknownName):
            await restore_tenant(session, ACME)

    within(work)


def test_every_step_is_in_the_log_with_the_record_of_the_tenant(within, settings, furnished):
    async def work(session):
        record = (await session.listing.find_tenant(ACME)).record_id
        removed = await remove(session)
        await restore_tenant(session, ACME)
        return record, removed.removal_id

    record_id, removal_id = within(work)
    changes = [
        one.record for one in read_events(settings.audit_folder) if isinstance(one.record, ChangeRecord)
    ]
    steps = [
        one
        for one in changes
        if one.tenant_record == record_id and one.action.startswith(("removal.", "tenants."))
    ]
    actions = [one.action for one in steps]
    assert actions[-1] == "removal.restored"
    for action in ("tenants.remove", "removal.keys", "removal.models", "removal.end", "tenants.restore"):
        assert action in actions
    assert all(
        removal_id in one.subject
        for one in steps
        if one.action not in {"tenants.remove", "removal.end", "removal.restored"}
        and one.action.startswith("removal.")
    )


def test_ten_thousand_grants_are_taken_in_bounded_changes(within, monkeypatch):
    """No change is about more than its bound: neither Redis nor a worker is held by one of them."""
    holders, each = 20, 500

    async def work(session):
        async def fill(changes):
            for number in range(holders):
                tenant = await changes.find_tenant(ACME)
                holder = replace(tenant, tenant_id=TenantId(f"holder-{number}"), name="")
                await changes.put_tenant(holder)
                grants = tuple(
                    Grant(grant_id=f"g{one}", actions=frozenset({"read"}), models=(f"acme/{number}/{one}",))
                    for one in range(each)
                )
                held = Grants(tenant_id=holder.tenant_id, tenant_record=holder.record_id, grants=grants)
                await changes.put_grants(held)

        await session.perform("test", fill, wait=False)
        sizes = []
        whole = taking.take_grants_of_others

        async def counted(changes, **arguments):
            sizes.append(await whole(changes, **arguments))
            return sizes[-1]

        monkeypatch.setattr(taking, "take_grants_of_others", counted)
        removed = await remove(session)
        listed = await session.listing.list_all_grants()
        restored = await restore_tenant(session, ACME)
        again = await session.listing.list_all_grants()
        return removed, sizes, listed, restored, again

    removed, sizes, listed, restored, again = within(work)
    assert removed.grants_of_others == holders * each
    assert max(sizes) <= GRANTS_PER_CHANGE
    assert not any(one.tenant_id.startswith("holder") for one in listed)
    assert restored.left == []
    assert sum(len(one.grants) for one in again if one.tenant_id.startswith("holder")) == holders * each


def test_many_patterns_and_keys_are_taken_page_by_page(within, monkeypatch):
    async def work(session):
        async def fill(changes):
            tenant = await changes.find_tenant(ACME)
            for number in range(2 * PER_CHANGE + 1):
                await changes.put_rule(
                    ModelRule(pattern=Pattern(f"acme/m/{number}"), owner=ACME, owner_record=tenant.record_id)
                )

        await session.perform("test", fill, wait=False)
        pages = []
        for name in ("close_rules", "delete_rules"):
            whole = getattr(taking, name)

            async def counted(changes, *, patterns, _whole=whole, **arguments):
                pages.append(len(patterns))
                return await _whole(changes, patterns=patterns, **arguments)

            monkeypatch.setattr(taking, name, counted)
        removed = await remove(session)
        assert removed.patterns > 2 * PER_CHANGE
        return pages, await session.listing.list_rules()

    pages, rules = within(work)
    assert max(pages) == PER_CHANGE
    assert not any(rule.pattern.startswith("acme") for rule in rules)
