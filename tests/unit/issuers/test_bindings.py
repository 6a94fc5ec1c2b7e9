from __future__ import annotations

import pytest

from gateway.adapters.clock import SystemClock
from gateway.issuers.bindings import Bindings
from gateway.model.errors import Reason, Refusal
from gateway.platform.budget import Budget

pytestmark = pytest.mark.anyio


@pytest.fixture
def bindings(store, recorded):
    return build(store, recorded)


def build(store, recorded, per_second=1000):
    forgotten = []
    bindings = Bindings(
        store=store,
        perform=recorded,
        forget=forgotten.extend,
        budget=Budget(per_second=per_second, now=lambda: 0.0),
        clock=SystemClock(),
        worker="w",
    )
    bindings.forgotten = forgotten
    return bindings


async def test_a_new_subject_is_bound_and_that_is_recorded(bindings, in_force, listing, recorded):
    [rule] = in_force.rules
    await bindings.bind(in_force, rule, "repo:a")
    [found] = await listing.list_bindings(in_force.url)
    assert (found.subject, found.tenant, found.rules, found.revoked_at) == ("repo:a", "acme", ("main",), None)
    [change] = recorded.kept
    assert (change.action, change.tenant, change.key_id, change.subject) == (
        "bindings.make",
        "acme",
        found.binding_id,
        ("ci", "main", "repo:a"),
    )
    record_id = (await listing.find_tenant(found.tenant)).record_id
    assert change.tenant_record == found.tenant_record == record_id is not None
    assert len(bindings.forgotten) == 1


async def test_too_many_subjects_are_refused_without_a_record_each(bindings, in_force, listing, recorded):
    [rule] = in_force.rules
    for number in range(3):
        await bindings.bind(in_force, rule, f"repo:{number}")
    for number in range(3, 9):
        with pytest.raises(Refusal) as caught:
            await bindings.bind(in_force, rule, f"repo:{number}")
        assert caught.value.reason is Reason.TOO_MANY_BINDINGS
    assert len(await listing.list_bindings(in_force.url)) == len(recorded.kept) == 3


async def test_new_subjects_that_come_too_fast_are_told_to_come_again(store, recorded, in_force):
    [rule] = in_force.rules
    bindings = build(store, recorded, per_second=5)
    reasons = []
    for number in range(4):
        try:
            await bindings.bind(in_force, rule, f"repo:{number}")
        except Refusal as refusal:
            reasons.append(refusal.reason)
    assert Reason.BINDING_LIMIT in reasons
