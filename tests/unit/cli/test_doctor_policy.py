from __future__ import annotations

import asyncio

from gateway.cli.doctor_policy import check_policy
from gateway.cli.findings import Health
from gateway.decision.policyset import load_policy_folder
from gateway.model.facts import PolicySet


class InForce:
    """As much of a listing as the check asks."""

    def __init__(self, policy):
        self._policy = policy

    async def find_policy(self):
        return self._policy


def check(policy):
    return asyncio.run(check_policy(InForce(policy)))


def test_without_rules_nothing_is_served_and_that_is_a_failure():
    assert check(None).health is Health.FAIL


def test_rules_in_force_that_do_not_validate_are_a_failure_with_their_place(installed):
    shipped = load_policy_folder(installed.settings.policies)
    found = check(PolicySet(schema=shipped.schema, policies=(("x.cedar", "permit ("),), digest="d" * 64))
    assert found.health is Health.FAIL
    assert "x.cedar:1" in found.found


def test_rules_that_validate_are_named_by_their_digest(installed):
    policy = load_policy_folder(installed.settings.policies)
    found = check(policy)
    assert found.health is Health.OK
    assert policy.digest[:16] in found.found
