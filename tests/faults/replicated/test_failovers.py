"""Another server takes over: planned, because the primary froze, or while the one that takes over lags.

In each of these two servers take writes for a while, or one of them is older than what was said. A change that
called itself sure holds all the same (I6), and afterwards all is well without anybody's help.
"""

from __future__ import annotations

import pytest

from tests.conftest import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def recover(group, trial):
    """All servers are back, and nothing is left of it."""
    group.hurry(is_on=True)
    wait_until(group.is_whole)
    group.hurry(is_on=False)
    trial.await_sure()


def fail_over(group, trial):
    """A planned one, under load, until two more changes by each operator have ended."""
    before = group.named()
    import time; t=[time.monotonic()]
    trial.calm()
    t.append(time.monotonic())
    with trial.changing() as progress:
        group.failover()
        wait_until(lambda: group.named() not in {None, before})
        t.append(time.monotonic())
        progress.await_changes(2)
        t.append(time.monotonic())
    t.append(time.monotonic())
    recover(group, trial)
    t.append(time.monotonic())
    print([round(b-a,1) for a,b in zip(t,t[1:])])


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
        frozen = group.named()
        with trial.changing() as progress:
            frozen.freeze()
            wait_until(lambda frozen=frozen: group.named() not in {None, frozen})
            trial.await_served()
            progress.await_changes(1)
            frozen.thaw()
            progress.await_changes(2)
        recover(group, trial)
    trial.calm()
    trial.finish()


def test_a_replica_that_lags_and_is_promoted_undoes_nothing_that_was_sure(new_group, new_trial, rounds):
    # Time for changes while it lags: a replica whose link is down for ten times as long is not promoted.
    group = new_group(down_after=1500)
    trial = new_trial(group.url)
    for _ in range(rounds):
        trial.calm()
        primary, (lagging, other) = group.named(), group.replicas()
        for member, priority in ((lagging, 1), (other, 100), (primary, 100)):
            member.ask("CONFIG", "SET", "replica-priority", priority)
        group.hurry(is_on=True)
        wait_until(lambda: priorities_of(group) == {lagging.place: 1, other.place: 100})  # noqa: B023
        group.hurry(is_on=False)
        with trial.changing() as progress:
            detach(lagging, primary)
            progress.await_changes(1)
            while_it_lagged = progress.all()
            primary.freeze()
            wait_until(lambda primary=primary: group.named() not in {None, primary})
            assert group.named() is lagging
            lagging.ask("CONFIG", "SET", "masterauth", "replicas-word")
            primary.thaw()
            progress.await_changes(1)
        assert any(one.document.get("held_by") == 2 for one in while_it_lagged), while_it_lagged
        assert all(not one.is_sure for one in while_it_lagged if one.document.get("held_by") == 2)
        recover(group, trial)
    trial.calm()
    trial.finish()


def priorities_of(group):
    return {
        (one["ip"], int(one["port"])): int(one["slave-priority"])
        for one in group.listed_replicas(group.watchers[0])
    }


def detach(replica, primary):
    """Cut the replication of one server: it may not log in any more, and nobody sets that right."""
    replica.ask("CONFIG", "SET", "masterauth", "another word")
    ours = [
        one for one in primary.ask("CLIENT", "LIST", "TYPE", "REPLICA") if one["lib-name"] or True
    ]
    port = str(replica.port)
    for one in primary.ask("ROLE")[2]:
        if str(one[1]) == port:
            break
    else:
        raise AssertionError(ours)
    primary.ask("CLIENT", "KILL", "TYPE", "REPLICA")
    wait_until(lambda: replica.replication()["master_link_status"] == "down")
