from __future__ import annotations

from gateway.directory.documents.changes import CurrentFacts, Order
from gateway.directory.documents.differences import grant_changes
from gateway.directory.documents.parse import TenantDocument
from gateway.model.facts import Grant, Grants


def grant(name: str) -> Grant:
    return Grant(grant_id=name, actions=frozenset({"read"}), models=(name,), source="policies:acme")


def test_a_record_that_loses_and_gains_is_written_twice_the_loss_first():
    kept, lost, gained = grant("kept"), grant("lost"), grant("gained")
    document = TenantDocument(
        where="acme.toml:1", tenant_id="acme", name="", is_suspended=False, grants=(gained, kept)
    )
    current = CurrentFacts(grants=(Grants(tenant_id="acme", grants=(lost, kept)),))
    first, second = grant_changes((document,), current)
    assert (first.order, first.fact.grants) == (Order.LOSE_GRANTS, (kept,))
    assert (second.order, second.fact.grants) == (Order.GAIN_GRANTS, (kept, gained))
