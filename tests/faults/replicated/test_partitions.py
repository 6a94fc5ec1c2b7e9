"""A machine is cut off from the others, with the primary, a gateway and an operator on it.

There are two primaries then, each with clients. The smaller side loses its leases within their length, and
the larger side serves; what it changes is not sure while a server is out of reach. The machines are network
namespaces, so that packets vanish and connections stay as they are.
"""

from __future__ import annotations

import time

import pytest

from tests.conftest import wait_until
from tests.fleet import LEASE_SECONDS, UNDECIDED

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

MARGIN_SECONDS = 0.05


@pytest.fixture
def group(new_group, network):
    made = new_group(network.machines)
    # The primary is where clients are.
    made.members[2].ask("CONFIG", "SET", "replica-priority", 200)
    made.hurry(is_on=True)
    wait_until(lambda: 200 in {one["slave-priority"] for one in made.listed_replicas(made.watchers[0])})
    made.hurry(is_on=False)
    return made


def cut_off(network, group, trial):
    """Cut the primary's machine off, and wait until another one is: the sides, and when it was."""
    primary = group.named()
    side = group.members.index(primary)
    network.cut(primary.machine)
    cut_at = time.monotonic()
    wait_until(lambda: group.named() not in {None, primary})
    trial.await_served(trial.gateways[1 - side])
    return side, cut_at


def verify_silent(answers, spans):
    """Whatever was asked for in these spans was left undecided: no lease is longer than it may be."""
    for began_at, ended_at in spans:
        within = [one for one in answers if began_at < one.sent_at and one.arrived_at < ended_at]
        assert within
        assert {one.status for one in within} <= {UNDECIDED, 0}


def test_a_partition_with_clients_on_both_sides_undoes_nothing_that_was_sure(
    network, group, new_trial, rounds
):
    trial = new_trial(group.url, machines=network.machines[:2])
    silent = [], []
    for _ in range(rounds):
        trial.calm()
        with trial.changing() as progress:
            side, cut_at = cut_off(network, group, trial)
            progress.await_changes()
            silent[side].append((cut_at + LEASE_SECONDS + MARGIN_SECONDS, time.monotonic()))
            network.heal(network.machines[side])
            progress.await_changes()
        trial.recover(group)
    trial.calm()
    for answers, spans in zip(trial.finish(), silent, strict=True):
        verify_silent(answers, spans)
    assert any(silent)
