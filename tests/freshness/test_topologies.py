"""The same law over Sentinel and over a Cluster, a failover included.

The promoted server may lag behind. What it lacks was not held by all servers, so no revocation that was
reported as sure is part of it; service goes on, and no operator has to accept anything. There is never an
allow on facts that a returned change had ended.
"""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import redis

SENTINEL = "main"


def new_server(tools, tmp_path_factory, *lines):
    return tools.FactServer(tmp_path_factory.mktemp("server"), *lines)


@pytest.fixture
def sentinel_set(tools, tmp_path_factory):
    """A primary, its replica, and a Sentinel that decides alone."""
    primary = new_server(tools, tmp_path_factory).start()
    replica = new_server(tools, tmp_path_factory, f"replicaof 127.0.0.1 {primary.port}").start()
    watch = tools.Sentinel(tmp_path_factory.mktemp("sentinel"), SENTINEL, primary.port).start()
    servers = [primary, replica]
    try:
        with watch.client() as client:
            wait_for(lambda: client.sentinel_slaves(SENTINEL))
        yield primary, replica, watch
    finally:
        watch.kill()
        for server in servers:
            server.kill()


@pytest.fixture
def cluster(tools, tmp_path_factory):
    """One node that holds all slots."""
    server = new_server(tools, tmp_path_factory, "cluster-enabled yes").start()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_for(lambda: b"cluster_state:ok" in raw_info(client))
    try:
        yield server
    finally:
        server.kill()


def raw_info(client):
    info = client.execute_command("CLUSTER", "INFO")
    return info if isinstance(info, bytes) else b"cluster_state:" + str(info["cluster_state"]).encode()


def wait_for(ask, seconds=15.0):
    deadline = time.monotonic() + seconds
    while True:
        with suppress(redis.RedisError):
            if answer := ask():
                return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)


def verify_changes_are_seen(fleet, tools):
    """A key that is created is accepted, and one that is revoked is not: from the next request on."""
    for _ in range(5):
        fleet.new_key("brief", "acme")
        for _ in range(8):
            assert fleet.get(tools.owned, "brief").status == tools.allowed
        barrier = fleet.revoke("brief").barrier
        assert barrier.is_sure
        assert barrier.acknowledged == barrier.workers == 2
        for _ in range(8):
            assert fleet.get(tools.owned, "brief").status == tools.nobody


@pytest.mark.slow
def test_a_cluster_is_followed_like_a_single_server(cluster, build_fleet, tools, eventually):
    url = f"redis+cluster://127.0.0.1:{cluster.port}"
    fleet = build_fleet(workers=2, CACHEGATE_REDIS_URL=url)
    verify_changes_are_seen(fleet, tools)
    cluster.kill()
    eventually(lambda: fleet.get(tools.owned).status == tools.undecided)
    cluster.start()
    eventually(lambda: fleet.get(tools.owned).status == tools.allowed)
    eventually(fleet.gateway.is_ready)
    verify_changes_are_seen(fleet, tools)


@pytest.mark.slow
def test_a_failover_goes_on_with_all_that_was_promised_or_is_refused(
    sentinel_set, build_fleet, tools, eventually
):
    primary, replica, watch = sentinel_set
    url = f"redis+sentinel://127.0.0.1:{watch.port}/{SENTINEL}"
    fleet = build_fleet(workers=2, CACHEGATE_REDIS_URL=url)
    verify_changes_are_seen(fleet, tools)
    fleet.new_key("ended", "acme")
    assert fleet.get(tools.owned, "ended").status == tools.allowed
    fleet.revoke("ended")
    with primary.client() as ahead, replica.client() as behind:  # what never arrived cannot be taken over
        promised = ahead.info("replication")["master_repl_offset"]

        def has_caught_up():
            seen = behind.info("replication")
            return seen.get("master_link_status") == "up" and seen["slave_repl_offset"] >= promised

        eventually(has_caught_up)
    primary.kill()
    killed_at = time.monotonic()
    answers = []

    def has_recovered():
        ended, owned = fleet.get(tools.owned, "ended").status, fleet.get(tools.owned).status
        answers.append(ended)
        return owned == tools.allowed or fleet.checks().get("history") is False

    eventually(has_recovered)
    print(f"failed over after {time.monotonic() - killed_at:.1f} s")
    assert set(answers) <= {tools.nobody, tools.undecided}
    with replica.client() as client:
        assert client.info("replication")["role"] == "master"
    # The replica had all that was acknowledged, so it is the same history, and no operator has to accept it.
    assert fleet.get(tools.owned).status == tools.allowed
    eventually(fleet.gateway.is_ready)
    # With one of two servers gone a change is in force at once, but could still be lost with the other.
    fleet.new_key("alone", "acme")
    assert fleet.get(tools.owned, "alone").status == tools.allowed
    alone = fleet.revoke("alone").barrier
    assert (alone.is_sure, alone.held, alone.servers) == (False, 1, 2)
    assert fleet.get(tools.owned, "alone").status == tools.nobody
    primary.start()  # it comes back as a replica, and nothing connects to it
    eventually(lambda: fleet.revoke("alone").barrier.is_sure)
    verify_changes_are_seen(fleet, tools)
