from __future__ import annotations

from gateway.directory.documents.changes import DocumentPlan, Order, PlannedChange, Removed
from gateway.model.facts import Alias


def test_a_plan_is_empty_only_with_nothing_to_do_and_nothing_in_the_way():
    change = PlannedChange(order=Order.DROP_ALIAS, fact=Removed(Alias, "a"), lines=("- alias a: b", "note"))
    assert DocumentPlan(changes=()).is_empty
    assert not DocumentPlan(changes=(change,)).is_empty
    assert not DocumentPlan(changes=(), conflicts=("two sources",)).is_empty
    assert DocumentPlan(changes=(change, change)).lines == ("- alias a: b", "note") * 2


def test_closing_sorts_before_opening():
    closing = {Order.SUSPEND, Order.LOSE_GRANTS, Order.DROP_ALIAS, Order.CLOSE_MODELS}
    opening = {Order.ADMIT_TENANT, Order.PUT_MODELS, Order.FORGET_MODELS, Order.PUT_ALIAS, Order.GAIN_GRANTS}
    assert max(closing) < min(opening)
