"""All servers are restored from an older copy, while everything runs: no node takes it for the facts it knew.

The canary is on: each node writes every second, and whatever writes must not make the copy look like the
facts that were lost. What an operator has to do is said by every command, and once it is done all goes on.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.conftest import wait_until
from tests.fleet import NOBODY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_an_older_copy_is_refused_by_each_node_until_it_is_accepted_there(new_group, new_trial, rounds):
    group = new_group()
    trial = new_trial(group.url, CACHEGATE_CANARY_SECONDS="1")
    [gateway] = trial.gateways
    for number in range(rounds):
        trial.calm()
        copy = group.named().copy_of_data(f"copy{number}")
        then = dict(trial.ledger.statuses())
        trial.calm(1)  # all nodes come to know of more than the copy has
        with trial.changing() as progress:
            progress.await_changes()
            for member in group.members:
                member.kill()
            for member in group.members:
                member.put_back(copy)
            for member in group.members:
                member.start()
            wait_until(lambda: gateway.checks().get("history") is False)
            progress.await_changes()
        for made in progress.made.values():
            assert made[-1].status == 3, made[-1]
            assert "directory accept" in made[-1].err
        assert not gateway.is_ready()

        began_at = time.monotonic()
        accept(trial.nodes)
        # From here on things are as the copy has them; what recovery changes comes after.
        trial.ledger.note(
            {thing: then.get(thing, NOBODY) for thing in trial.ledger.statuses()}, began_at, time.monotonic()
        )
        trial.forget_keys()
        trial.recover(group)
    trial.calm()
    trial.finish()


def accept(nodes):
    """On each node, all at once: it waits for leases to end."""
    threads = [threading.Thread(target=node.run, args=("directory", "accept", "--yes")) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
