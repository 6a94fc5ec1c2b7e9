"""Degraded mode: a tenant is served on the last known facts without a lease, for a limited time.

The mode is a setting of a tenant. It begins when a worker's lease ends, shows in a header, a metric and the
audit log, and extends every barrier: while such a worker is cut off, no command reports that a revocation is
in force everywhere.
"""

from __future__ import annotations

import time

import pytest

DEGRADED_SECONDS = 3
HEADER = "cachegate-degraded"
WHOAMI = "/v1/whoami"


@pytest.fixture(scope="module")
def fleet(build_fleet):
    return build_fleet(workers=2, is_remote=True, CACHEGATE_CANARY_SECONDS="0")


def grant_grace(fleet, eventually, seconds):
    eventually(fleet.gateway.is_ready)
    fleet.installation.run("tenants", "degraded", "umbrella", f"{seconds}s")


def ask(fleet, who):
    answer = fleet.wire.get(WHOAMI, fleet.tokens[who])
    return answer.status, answer.header(HEADER)


def warm(fleet):
    """Every worker remembers both callers."""
    for who in ("umbrella", "acme"):
        for _ in range(30):
            assert ask(fleet, who) == (200, None)


def modes(fleet):
    return [one["mode"] for one in fleet.installation.records() if one["kind"] == "mode"]


def degraded_responses(fleet):
    return fleet.gateway.metrics()["cachegate_degraded_responses_total"]


def test_a_tenant_goes_on_for_as_long_as_it_was_granted_and_others_do_not(fleet, eventually):
    grant_grace(fleet, eventually, DEGRADED_SECONDS)
    warm(fleet)
    counted, seen = degraded_responses(fleet), {"umbrella": [], "acme": []}
    with fleet.server.stopped():
        stopped_at = time.monotonic()
        while (asked_at := time.monotonic() - stopped_at) < 1 + DEGRADED_SECONDS + 1:
            for who, answers in seen.items():
                answers.append((asked_at, time.monotonic() - stopped_at, *ask(fleet, who)))
            time.sleep(0.02)
        failures = fleet.gateway.metrics()["cachegate_lease_losses_total"]
        assert failures >= 2
    served = [one for one in seen["umbrella"] if one[2] == 200]
    assert {header for *_, header in served} == {None, "last-known-good"}
    degraded = [one for one in served if one[3]]
    # It begins when the lease ends, and is over for certain when lease and degraded period are over.
    assert degraded[0][1] > 0.3
    assert degraded[-1][1] > DEGRADED_SECONDS - 0.5
    assert degraded[-1][0] < 1 + DEGRADED_SECONDS  # when it was asked; answering takes what the machine takes
    assert {status for at, _, status, _ in seen["umbrella"] if at > 1 + DEGRADED_SECONDS} == {503}
    assert {status for at, _, status, _ in seen["acme"] if at > 1} == {503}
    assert all(header is None for *_, header in seen["acme"])
    eventually(fleet.gateway.is_ready)
    assert degraded_responses(fleet) - counted == len(degraded)
    eventually(lambda: modes(fleet).count("normal") >= 2)
    assert modes(fleet).count("no-lease") >= 2
    eventually(lambda: ask(fleet, "umbrella") == (200, None))
    fleet.installation.verify_audit()


@pytest.mark.slow
def test_a_revocation_waits_for_a_worker_that_may_still_go_on_or_says_until_when(fleet, eventually):
    grant_grace(fleet, eventually, DEGRADED_SECONDS)
    fleet.new_key("patient", "umbrella")
    with fleet.proxy.losing(("feed", "to worker")):
        # Within the wait: a lease and the degraded period, one after the other.
        started_at = time.monotonic()
        done = fleet.revoke("patient")
        waited = time.monotonic() - started_at
        serving = [ask(fleet, "patient")[0] for _ in range(10)]
        if done.barrier.is_sure:
            assert waited > DEGRADED_SECONDS
            assert 200 not in serving
        else:
            assert done.barrier.sure_in_seconds > 0
            time.sleep(done.barrier.sure_in_seconds)
        assert ask(fleet, "patient")[0] != 200
    eventually(fleet.gateway.is_ready)
    assert ask(fleet, "patient") == (401, None)


@pytest.mark.slow
def test_a_change_that_cannot_be_sure_in_time_says_so_and_exits_1(fleet, eventually):
    grant_grace(fleet, eventually, 600)
    new = fleet.new_key("unsure", "umbrella")
    for _ in range(30):
        assert ask(fleet, "unsure") == (200, None)
    with fleet.proxy.losing(("feed", "to worker")):
        time.sleep(0.2)
        done = fleet.installation.json("keys", "revoke", new.key.key_id, status=1)
        assert done["sure"] is False
        assert done["acknowledged"] < done["workers"] == 2
        # The worker was granted this time: so long, and no longer, an old allow may be given.
        assert 300 < done["sure_in_seconds"] <= 601
        assert ask(fleet, "unsure") == (200, "last-known-good")
        # Without waiting the report does not say how sure the change is.
        assert "sure" not in fleet.installation.json("keys", "revoke", new.key.key_id, "--no-wait")
        # The degraded period is removed: the cut-off worker does not know, and the report allows for that.
        closed = fleet.installation.json("tenants", "degraded", "umbrella", "closed", status=1)
        assert closed["sure"] is False
        assert closed["sure_in_seconds"] > 300
        unsure = fleet.installation.json("tenants", "suspend", "umbrella", status=1)
        assert unsure["sure_in_seconds"] > 300
    eventually(fleet.gateway.is_ready)
    fleet.installation.run("tenants", "resume", "umbrella")
    assert ask(fleet, "unsure") == (401, None)
    assert ask(fleet, "umbrella") == (200, None)
