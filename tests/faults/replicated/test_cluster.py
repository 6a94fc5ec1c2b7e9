"""A Cluster whose shard has replicas: a planned failover, as with Sentinels."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.conftest import wait_until
from tests.faults.replicated.servers import PASSWORDS, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LINES = ("cluster-enabled yes", "cluster-node-timeout 1000", "cluster-allow-replica-migration no")
SLOTS = ("0", "16383")
DOCUMENT = (Path(__file__).parents[3] / "docs/operators/redis.md").read_text()
[[*CLUSTER_RIGHTS]] = re.findall(r"and a Cluster `(\+[a-z|]+)` and `(\+[a-z|]+)`", DOCUMENT)


class Shard:
    """One primary with all slots, and two replicas."""

    def __init__(self, folder):
        self.members = [
            Member(folder / f"server{number}", rights=CLUSTER_RIGHTS, lines=LINES).start()
            for number in range(3)
        ]
        first, *others = self.members
        first.ask("CLUSTER", "ADDSLOTSRANGE", *SLOTS)
        for one in others:
            one.ask("CLUSTER", "MEET", first.host, str(first.port))
        name = first.ask("CLUSTER", "MYID")
        for one in others:
            wait_until(lambda one=one: refused_to_nobody(one, "CLUSTER", "REPLICATE", name))
        wait_until(self.is_whole)

    @property
    def url(self):
        hosts = ",".join(f"{one.host}:{one.port}" for one in self.members)
        return f"redis+cluster://cachegate:{PASSWORDS['cachegate']}@{hosts}"

    def primary(self):
        found = [one for one in self.members if one.replication()["role"] == "master"]
        return found[0] if len(found) == 1 else None

    def is_whole(self):
        primary = self.primary()
        if primary is None or primary.replication()["connected_slaves"] != len(self.members) - 1:
            return False
        return all("cluster_state:ok" in one.ask("CLUSTER", "INFO") for one in self.members)

    def hurry(self, *, is_on):
        """Nodes of a Cluster act at once."""


def refused_to_nobody(member, *command):
    with suppress(redis.ResponseError):
        return member.ask(*command)
    return False


@pytest.fixture
def shard(closing, tmp_path):
    made = Shard(tmp_path)
    for member in made.members:
        closing.callback(member.close)
    return made


def test_a_planned_failover_of_a_cluster_undoes_nothing_that_was_sure(shard, new_trial, rounds):
    trial = new_trial(shard.url)
    for _ in range(rounds):
        trial.calm()
        before = shard.primary()
        with trial.changing() as progress:
            next(one for one in shard.members if one is not before).ask("CLUSTER", "FAILOVER")
            wait_until(lambda before=before: shard.primary() not in {None, before})
            progress.await_changes()
        trial.recover(shard)
    trial.calm()
    trial.finish()
