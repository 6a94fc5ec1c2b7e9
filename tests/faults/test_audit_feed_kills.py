"""`kill -9` of workers and of readers while the log is read: none misses a record that a client got."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from gateway.audit.index import Indexer
from tests.audit_kills import Clients
from tests.faults.conftest import SMALL, SMALL_PATH, furnish
from tests.feed_readers import Polling, Streaming

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS, WORKERS = 6, 2


class Follower:
    """`audit follow` in a process of its own, started anew when it is killed; its lines in one file."""

    def __init__(self, installation, port, key):
        self.output = installation.folder / "followed.jsonl"
        self._installation = installation
        through = {"CACHEGATE_URL": f"http://127.0.0.1:{port}", "CACHEGATE_ADMIN_KEY": key}
        self._environment = {**installation.variables(), **through}
        self.start()

    def start(self):
        with self.output.open("ab") as file:
            file.write(b"\n")  # ends the line that a killed one may have left
            file.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "audit", "follow"],
                env=self._environment,
                cwd=self._installation.folder,
                stdout=file,
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def ids(self):
        """Of the whole lines."""
        found = set()
        for line in self.output.read_bytes().split(b"\n"):
            with suppress(ValueError):
                found.add(json.loads(line)["id"])
        return found


@contextmanager
def indexing(folder, node):
    indexer, ending = Indexer(folder, node), threading.Event()

    def run():
        while not ending.is_set():
            indexer.step()
            time.sleep(0.005)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        indexer.close()


def test_no_reader_misses_a_record_whatever_is_killed(installation, eventually):
    seed = random.randrange(1 << 30)
    choose = random.Random(seed)
    site = furnish(installation, {"small.bin": SMALL})
    key = installation.json("keys", "create", "--admin", "--role", "auditor")["token"]
    gateway = installation.serve(workers=WORKERS)
    node = installation.records()[0]["node"]
    clients = readers = None
    with indexing(installation.audit, node):
        try:
            readers = [Polling(gateway.wire, key), Streaming(gateway.wire, key)]
            follower = Follower(installation, gateway.wire.port, key)
            clients = Clients(gateway.wire, SMALL_PATH, site.token)
            for _ in range(ROUNDS):
                got = len(clients.records)
                eventually(lambda got=got: len(clients.records) > got + 20, seconds=60)
                time.sleep(choose.uniform(0, 0.3))  # the moment, not a wait for anything
                there = gateway.worker_pids()
                for pid in choose.sample(there, min(len(there), choose.randint(1, WORKERS))):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if choose.random() < 0.5:
                    follower.kill()
                    follower.start()
            eventually(lambda: len(gateway.worker_pids()) == WORKERS, seconds=60)
            clients.end()
            answered, clients = clients.records, None
            assert eventually(lambda: answered <= set(readers[0].ids), seconds=60), seed
            assert eventually(lambda: answered <= set(readers[1].ids), seconds=60), seed
            assert eventually(lambda: answered <= follower.ids, seconds=60), seed
            assert len(answered) > 20 * ROUNDS
            for one in readers:
                assert len(one.ids) == len(set(one.ids)), "from its own cursor nothing comes twice"
        finally:
            if clients is not None:
                clients.end()
            for one in readers or ():
                one.end()
            follower.kill()
            gateway.stop()


def test_readers_of_an_idle_gateway_keep_neither_it_nor_each_other_busy(installation, eventually):
    """A long poll and a stream, each of its own key: some requests, and one pair of records a minute each."""
    furnish(installation, {"small.bin": SMALL})
    made = [installation.json("keys", "create", "--admin", "--role", "auditor") for _ in range(2)]
    gateway = installation.serve(workers=1)
    node = installation.records()[0]["node"]
    with indexing(installation.audit, node):
        Polling.seconds = 5
        readers = [
            Polling(gateway.wire, made[0]["token"]),
            Streaming(gateway.wire, made[1]["token"]),
        ]
        try:
            eventually(lambda: readers[0].requests > 6, seconds=120)
        finally:
            began = readers[0].requests
            for one in readers:
                threading.Thread(target=one.end, daemon=True).start()
            gateway.stop()
            for one in readers:
                one.end()
        of_readers = [
            one
            for one in installation.records()
            if one.get("key_id") in {key["key_id"] for key in made} and one["kind"] in {"decision", "outcome"}
        ]
        assert began <= 12
        assert len(of_readers) <= 8, of_readers
