"""Two servers: with one of them out of reach nothing is sure, and all goes on."""

from __future__ import annotations

import pytest

from tests.fleet import ALLOWED, OWNED, path_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_with_the_replica_gone_nothing_is_sure_and_leases_go_on(new_group, new_trial, rounds):
    group = new_group(size=2)
    trial = new_trial(group.url)
    [gateway] = trial.gateways
    for _ in range(rounds):
        trial.calm()
        [replica] = group.replicas()
        with trial.changing() as progress:
            replica.freeze()
            progress.await_changes()
            alone = [made[-1] for made in progress.made.values()]
            # A change took longer than a lease.
            assert gateway.status_of(path_of(OWNED), trial.tokens["acme"]) == ALLOWED
            replica.thaw()
        for one in alone:
            assert one.status == 1, one
            document = one.document
            assert (document["sure"], document["held_by"], document["servers"]) == (False, 1, 2)
            assert "held by 1 of 2 servers" in document["why"]
        trial.recover(group)
    trial.calm()
    trial.finish()
