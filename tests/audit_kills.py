"""Workers under load that are killed at random moments, and what has to hold afterwards.

Each answer that a client got has its record, and the log verifies.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress

from gateway.audit import read_events, verify

CLIENTS, WORKERS = 8, 2
MOST_SECONDS_BETWEEN = 0.3
PAUSE_SECONDS = 0.002  # without it, clients keep the workers that start from the processors
SMALL_SEGMENTS = {"CACHEGATE_AUDIT_SEGMENT_MEGABYTES": "1"}


class Clients:
    """Send requests on connections of their own, and keep the record ids of all answers."""

    def __init__(self, wire, path, token):
        self.records: set[str] = set()
        self.statuses: set[int] = set()
        self._wire, self._path, self._token = wire, path, token
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._is_over.is_set():
            try:
                with self._wire.talk() as talk:
                    while not self._is_over.is_set():
                        answer = talk.get(self._path, self._token)
                        self.statuses.add(answer.status)
                        self.records.add(answer.header("cachegate-record"))
                        time.sleep(PAUSE_SECONDS)
            except (OSError, EOFError, ValueError, AssertionError, IndexError):
                time.sleep(0.01)  # its worker was killed

    def end(self):
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def run_rounds(installation, path, token, eventually, *, rounds, durability):
    """Serve this file to clients, and kill workers so many times."""
    seed = random.randrange(1 << 30)
    choose = random.Random(seed)
    installation.environment |= {"CACHEGATE_AUDIT_DURABILITY": durability, **SMALL_SEGMENTS}
    gateway = installation.serve(workers=WORKERS)
    clients = Clients(gateway.wire, path, token)
    try:
        for _ in range(rounds):
            got = len(clients.records)
            eventually(lambda got=got: len(clients.records) > got + 20, seconds=60)
            time.sleep(choose.uniform(0, MOST_SECONDS_BETWEEN))  # the moment, not a wait for anything
            there = gateway.worker_pids()  # fewer than all, where the last kill was a moment ago
            for pid in choose.sample(there, min(len(there), choose.randint(1, WORKERS))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(gateway.worker_pids()) == WORKERS, seconds=60)
        got = len(clients.records)
        eventually(lambda: len(clients.records) > got + 20, seconds=60)
    finally:
        clients.end()
        gateway.stop()
    report = verify(installation.audit)
    assert report.is_intact, report
    assert len(report.chains) > rounds
    recorded = {event.record.id for event in read_events(installation.audit)}
    assert clients.records - recorded == set(), f"seed {seed}"
    assert 200 in clients.statuses
