"""Clients that leave at any moment: nobody ever gets an answer that belongs to somebody else (I2, I8).

The near cache is made far too small, so that nearly every request has to wait for Redis; hundreds of
clients leave while theirs does, and others check that each answer is their own.
"""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

from gateway.directory.operations import keys

CALLERS = 150
LEAVERS, CHECKERS = 3, 4
SECONDS = 6


@pytest.fixture(scope="module")
def fleet(build_fleet, tools):
    fleet = build_fleet(
        workers=1,
        CACHEGATE_NEAR_CACHE_ENTRIES="100",
        CACHEGATE_CANARY_SECONDS="0",
        CACHEGATE_GRACE_SECONDS="10",
    )

    async def work(office):
        minted = [tools.mint(office, "acme") for _ in range(CALLERS)]

        async def operation(changes):
            for new in minted:
                await keys.create_key(changes, key=new.key, digest=new.digest)

        await office.perform("test.keys", operation)
        return {new.key.key_id: new.token for new in minted}

    fleet.callers = fleet.installation.in_office(work)
    return fleet


def test_every_answer_is_the_callers_own_whoever_leaves_meanwhile(fleet, tools):
    is_over, faults = threading.Event(), []
    left, checked, undecided = [0], [0], [0]
    callers = list(fleet.callers.items())

    def leave():
        while not is_over.is_set():
            _, token = random.choice(callers)
            path = random.choice(["/v1/whoami", tools.path_of(tools.owned), "/v1/models"])
            with socket.create_connection((fleet.wire.host, fleet.wire.port), 10) as connection:
                connection.sendall(tools.request_for(path, token) * random.choice([1, 1, 4]))
                time.sleep(random.uniform(0, 0.004))
            time.sleep(random.uniform(0, 0.02))
            left[0] += 1

    def check():
        with fleet.wire.talk() as talk:
            while not is_over.is_set():
                key_id, token = random.choice(callers)
                answer = talk.get("/v1/whoami", token)
                if answer.status == tools.undecided:
                    undecided[0] += 1
                    continue
                assert answer.status == tools.allowed
                assert answer.json()["key_id"] == key_id
                checked[0] += 1

    def guarded(work):
        try:
            work()
        except (AssertionError, OSError) as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(leave,)) for _ in range(LEAVERS)]
    threads += [threading.Thread(target=guarded, args=(check,)) for _ in range(CHECKERS)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    is_over.set()
    for thread in threads:
        thread.join()
    metrics = fleet.gateway.metrics()
    print(f"{checked[0]} answers checked while {left[0]} clients left; {undecided[0]} undecided")
    assert faults == []
    assert left[0] > 300
    assert checked[0] > 300
    assert undecided[0] < checked[0] // 10
    assert metrics['cachegate_near_cache_total{event="eviction"}'] > 300
    # No connection was lost from the pool: everybody is served at once as before.
    for key_id, token in callers[:20]:
        assert fleet.wire.get("/v1/whoami", token).json()["key_id"] == key_id
