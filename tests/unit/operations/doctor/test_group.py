from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_fleet import Fleet, Registered
from gateway.adapters.redis_group import MemberReport, SentinelReport
from gateway.model.stores import GroupSize
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.group import judge_group, judge_members, judge_sentinels

WHOLE = Fleet(group=GroupSize(servers=3), attached=2, held=3, stamp="s", settled="s")
PRIMARY = MemberReport(
    where="a:1",
    is_reached=True,
    role="master",
    replicas=2,
    settings={
        "appendonly": "yes",
        "appendfsync": "always",
        "replica-read-only": "yes",
        "min-replicas-to-write": "1",
        "min-replicas-max-lag": "3",
    },
)
REPLICA = replace(PRIMARY, where="b:1", role="slave", replicas=0)
SENTINEL = SentinelReport(where="s1:1", primary="a:1", quorum=2, sentinels=3, replicas=2)


def test_a_group_that_is_whole_is_in_order():
    assert judge_group(WHOLE, 3, 0.001).health is Level.OK
    single = Fleet(group=GroupSize(servers=1), held=1)
    assert judge_group(single, 1, 5.0).health is Level.OK


@pytest.mark.parametrize(
    ("found", "seen", "seconds", "health", "words"),
    [
        (replace(WHOLE, group=None), 3, 0.0, Level.WARNING, "learns it"),
        (replace(WHOLE, group=GroupSize(servers=2, is_set=True)), 3, 0.0, Level.FAIL, "directory group 3"),
        (replace(WHOLE, held=2, attached=1), 3, 0.3, Level.WARNING, "held by 2 of 3"),
        (WHOLE, 3, 0.1, Level.WARNING, "slow"),
    ],
)
def test_what_is_wrong_with_a_group_says_what_to_do(found, seen, seconds, health, words):
    finding = judge_group(found, seen, seconds)
    assert finding.health is health
    assert words in finding.advice


def test_a_server_that_changed_a_moment_ago_is_no_fault():
    found = replace(WHOLE, settled="before", workers=(Registered(worker="w", applied=1),))
    finding = judge_group(found, 3, 0.0)
    assert finding.health is Level.OK
    assert "wait for leases" in finding.found


def test_servers_that_keep_what_they_acknowledge_are_in_order():
    assert judge_members([PRIMARY, REPLICA], 3).health is Level.OK
    # In a group of one or two servers each has to take writes alone.
    alone = replace(PRIMARY, settings={**PRIMARY.settings, "min-replicas-to-write": "0"})
    assert judge_members([alone], 2).health is Level.OK
    # A hosted server does not show its settings.
    assert judge_members([replace(PRIMARY, settings={}), REPLICA], 3).health is Level.OK


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (replace(REPLICA, is_reached=False, settings={}), "not in reach"),
        (replace(REPLICA, replicas=1), "replicas of its own"),
        ({"appendonly": "no"}, "appendonly to yes"),
        ({"appendfsync": "everysec"}, "power cut"),
        ({"replica-read-only": "no"}, "replica-read-only"),
        ({"min-replicas-to-write": "0"}, "min-replicas-to-write to 1"),
    ],
)
def test_what_is_wrong_with_a_server_is_said_of_that_one(member, words):
    if isinstance(member, dict):
        member = replace(REPLICA, settings={**REPLICA.settings, **member})
    finding = judge_members([PRIMARY, member], 3)
    assert finding.health is Level.WARNING
    assert words in finding.advice
    assert "b:1" in finding.advice
    assert "a:1" not in finding.advice


def test_sentinels_that_agree_by_majority_are_in_order():
    assert judge_sentinels([SENTINEL] * 3).health is Level.OK


@pytest.mark.parametrize(
    ("sentinels", "health", "words"),
    [
        ([SentinelReport(where="s1:1"), SENTINEL, SENTINEL], Level.WARNING, "s1:1 did not answer"),
        ([SENTINEL, replace(SENTINEL, primary="b:1"), SENTINEL], Level.WARNING, "do not agree"),
        ([replace(SENTINEL, quorum=1)] * 3, Level.WARNING, "needs 1 of 3"),
        ([replace(SENTINEL, sentinels=1, quorum=1)], Level.WARNING, "at least 3"),
        ([replace(SENTINEL, primary=None)] * 3, Level.FAIL, "service name"),
        ([SentinelReport(where="s1:1")] * 3, Level.FAIL, "start the Sentinels"),
    ],
)
def test_what_is_wrong_with_the_sentinels_says_what_to_do(sentinels, health, words):
    finding = judge_sentinels(sentinels)
    assert finding.health is health
    assert words in finding.advice
