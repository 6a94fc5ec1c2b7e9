"""Another server takes over: planned, because the primary froze, or while the one that takes over lags.

In each of these two servers take writes for a while, or one of them is older than what was said. A change
that called itself sure holds all the same (I6), and afterwards all is well without anybody's help.
"""

from __future__ import annotations

import time

import pytest

from tests.conftest import wait_until
from tests.faults.replicated.servers import PASSWORDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


QUIET_KEYS = 24  # more than a worker has connections to the facts


def fail_over(group, trial):
    """A planned one, under load, until each operator has begun and ended another change."""
    before = group.named()
    trial.calm()
    with trial.changing() as progress:
        group.failover()
        wait_until(lambda: group.named() not in {None, before})
        progress.await_changes()
    assert [one for one in progress.all() if "directory accept" in one.err] == []  # nothing was lost
    trial.recover(group)


@pytest.mark.parametrize("program", ["valkey", "redis"])
def test_a_planned_failover_undoes_nothing_that_was_sure(new_group, new_trial, rounds, program):
    group = new_group(program=program)
    trial = new_trial(group.url)
    for _ in range(rounds):
        fail_over(group, trial)
    trial.calm()
    trial.finish()


def test_a_primary_that_thaws_undoes_nothing_that_was_sure(new_group, new_trial, rounds):
    group = new_group()
    trial = new_trial(group.url)
    for _ in range(rounds):
        trial.calm()
        frozen, quiet = group.named(), trial.create_quiet_keys(QUIET_KEYS)
        trial.ask_for(quiet)
        with trial.changing() as progress:
            frozen.freeze()
            wait_until(lambda frozen=frozen: group.named() not in {None, frozen})
            trial.await_served()
            assert not trial.revoke_quiet_keys(quiet).is_sure
            frozen.thaw()
            # It gives the values from before to whoever still asks it. They must not be remembered.
            trial.ask_for(quiet)
            progress.await_changes()
        trial.recover(group)
        # Revoking again changes nothing in the facts. It is sure now, and so nobody may go by the old ones.
        assert trial.revoke_quiet_keys(quiet).is_sure
        trial.ask_for(quiet)
    trial.calm()
    trial.finish()


def test_a_replica_that_lags_and_is_promoted_undoes_nothing_that_was_sure(new_group, new_trial, rounds):
    # Time for changes while it lags: a replica whose link is down for ten times as long is not promoted.
    group = new_group(down_after=3000)
    trial = new_trial(group.url)
    while_it_lagged = []
    for _ in range(rounds):
        trial.calm()
        primary, (lagging, other) = group.named(), group.replicas()
        for member, priority in ((lagging, 1), (other, 100), (primary, 100)):
            member.ask("CONFIG", "SET", "replica-priority", priority)
        group.hurry(is_on=True)
        wanted = {lagging.place: 1, other.place: 100}
        wait_until(lambda: all(priorities_of(group, one) == wanted for one in group.watchers))  # noqa: B023
        group.hurry(is_on=False)
        with trial.changing() as progress:
            detach(lagging)
            detached_at = time.monotonic()
            wait_until(lambda: began_after(detached_at, progress))  # noqa: B023
            while_it_lagged += began_after(detached_at, progress)
            primary.freeze()
            wait_until(lambda primary=primary: group.named() not in {None, primary})
            assert group.named() is lagging
            lagging.ask("CONFIG", "SET", "masterauth", PASSWORDS["replica"])
            primary.thaw()
            progress.await_changes()
        trial.recover(group)
    trial.calm()
    trial.finish()
    assert not any(one.is_sure for one in while_it_lagged)
    assert {one.document["held_by"] for one in while_it_lagged if one.document} == {2}


def began_after(moment, progress):
    return [one for one in progress.all() if one.began_at > moment]


def priorities_of(group, watcher):
    """As one Sentinel knows them; any of them may be the one that promotes."""
    return {
        (one["ip"], int(one["port"])): int(one["slave-priority"]) for one in group.listed_replicas(watcher)
    }


def detach(replica):
    """End its replication: it may not log in any more, and no Sentinel sets that right."""
    replica.ask("CONFIG", "SET", "masterauth", "another word")
    replica.ask("CLIENT", "KILL", "TYPE", "MASTER")
    wait_until(lambda: replica.replication()["master_link_status"] == "down")
