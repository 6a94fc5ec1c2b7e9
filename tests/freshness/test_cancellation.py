"""Clients that leave at any moment: no client ever gets an answer to another client's request (I2, I8).

The near cache is made far too small, so that nearly every request has to wait for Redis. Hundreds of clients
leave while their requests wait, and others check that each answer is their own.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress

import pytest

from gateway.directory.edits import keys

CALLERS = 150
LEAVERS, CHECKERS = 3, 4
ENOUGH = 300  # of each: clients that left, answers that were checked


@pytest.fixture(scope="module")
def fleet(build_fleet, tools):
    fleet = build_fleet(
        workers=1,
        CACHEGATE_NEAR_CACHE_ENTRIES="100",
        CACHEGATE_CANARY_SECONDS="0",
        CACHEGATE_GRACE_SECONDS="10",
    )

    async def work(session):
        minted = [tools.mint(session, "acme") for _ in range(CALLERS)]

        async def operation(changes):
            for new in minted:
                await keys.create_key(changes, key=new.key, digest=new.digest)

        await session.perform("test.keys", operation)
        return {new.key.key_id: new.token for new in minted}

    fleet.callers = fleet.installation.in_session(work)
    return fleet


def test_every_answer_is_the_callers_own_whoever_leaves_meanwhile(fleet, tools, eventually):
    is_over, faults = threading.Event(), []
    left, checked, undecided = [0], [0], [0]
    callers = list(fleet.callers.items())

    # At most ten more clients leave than answers come. Their requests are computed all the same: on a busy
    # machine, those who wait for answers would wait behind all of them.
    may_leave = threading.BoundedSemaphore(10)

    def leave():
        while not is_over.is_set():
            if not may_leave.acquire(timeout=0.1):
                continue
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
                with suppress(ValueError):  # no client has left since the last answer
                    may_leave.release()
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
            is_over.set()

    threads = [threading.Thread(target=guarded, args=(leave,)) for _ in range(LEAVERS)]
    threads += [threading.Thread(target=guarded, args=(check,)) for _ in range(CHECKERS)]
    for thread in threads:
        thread.start()
    # However long it takes: only the test's own timeout ends it otherwise.
    while not is_over.is_set() and (min(left[0], checked[0]) <= ENOUGH or evictions(fleet) <= ENOUGH):
        is_over.wait(0.1)
    is_over.set()
    for thread in threads:
        thread.join()
    print(f"{checked[0]} answers checked while {left[0]} clients left; {undecided[0]} undecided")
    assert faults == []
    # No connection was lost from the pool: requests are served as before.
    for key_id, token in callers[:20]:
        served = eventually(lambda: (one := fleet.wire.get("/v1/whoami", token)).status == 200 and one)  # noqa: B023 -- called here
        assert served.json()["key_id"] == key_id


def evictions(fleet):
    return fleet.gateway.metrics()['cachegate_near_cache_total{event="eviction"}']
