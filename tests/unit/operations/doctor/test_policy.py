from __future__ import annotations

import asyncio
import dataclasses
import shutil

from gateway.decision.policyset import load_policy_folder
from gateway.model.facts import PolicySet
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.policy import check_policy, check_policy_folder
from gateway.operations.session import open_session


class InForce:
    """The part of a listing that the check uses."""

    def __init__(self, policy):
        self._policy = policy

    async def find_policy(self):
        return self._policy


def check(policy):
    return asyncio.run(check_policy(InForce(policy)))


def test_without_rules_nothing_is_served_and_that_is_a_failure():
    assert check(None).health is Level.FAIL


def test_rules_in_force_that_do_not_validate_are_a_failure_with_their_place(installed):
    shipped = load_policy_folder(installed.settings.policies)
    found = check(PolicySet(schema=shipped.schema, policies=(("x.cedar", "permit ("),), digest="d" * 64))
    assert found.health is Level.FAIL
    assert "x.cedar:1" in found.found


def test_rules_that_validate_are_named_by_their_digest(installed):
    policy = load_policy_folder(installed.settings.policies)
    found = check(policy)
    assert found.health is Level.OK
    assert policy.digest[:16] in found.found


def test_a_folder_without_cases_is_a_warning_and_one_whose_cases_fail_a_failure(installed, tmp_path):
    shutil.copytree(installed.settings.policies, tmp_path / "policies")
    settings = dataclasses.replace(installed.settings, policies=tmp_path / "policies")

    async def work():
        async with open_session(installed.settings) as session:
            return await check_policy_folder(settings, session.listing, session.clock)

    assert asyncio.run(work()).health is Level.OK
    (tmp_path / "policies" / "tests" / "keys.toml").unlink()
    assert asyncio.run(work()).health is Level.FAIL
    shutil.rmtree(tmp_path / "policies" / "tests")
    assert asyncio.run(work()).health is Level.WARNING
