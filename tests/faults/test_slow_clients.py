"""Two thousand slow connections of each kind that `slowhttptest` knows, against one worker.

Every request of another client is answered meanwhile, the worker's memory is bounded, and nothing of the slow
clients stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

SLOW = 2_000  # just below the share of one address, so that none is turned away
RATE = 400  # a second: all are there before the first is cut
SECONDS = 30
BYTES_OF_A_CLIENT = (
    48 << 10
)  # for each, in the worker: measured 6 kB, and 26 to 32 kB for a transfer under way
KINDS = {
    "headers": ["-H", "-i", "3", "-x", "24"],
    "body": ["-B", "-i", "3", "-x", "24", "-s", "100000"],
    "range": ["-R", "-a", "10", "-b", "3000"],
    "read": ["-X", "-n", "3", "-w", "256", "-y", "512", "-z", "16", "-k", "3"],
}
HELD = {"headers", "read"}  # the others are answered at once, and their connections closed


@pytest.fixture
def slowhttptest():
    """Start the tool on a URL, with a header of ours: it sends what a cookie is followed by."""
    tool = shutil.which("slowhttptest")
    assert tool, "install it: apt-get install slowhttptest"
    running = []

    def start(kind, wire, path, token):
        url = f"http://{wire.host}:{wire.port}{path}"
        options = ["-c", SLOW, "-r", RATE, "-l", SECONDS, "-u", url]
        cookie = f"a=b\r\nAuthorization: Bearer {token}"
        command = [tool, *KINDS[kind], *map(str, options), "-j", cookie]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", KINDS)
def test_slow_clients_cost_others_nothing_and_the_worker_little(
    kind, slowhttptest, site_with_big_file, serve, paths, eventually
):
    # A machine that is busy with these clients may delay the renewal of a shorter lease.
    gateway = serve(site_with_big_file.installation, CACHEGATE_LEASE_MILLISECONDS="10000")
    [worker] = gateway.worker_pids()
    token = site_with_big_file.token
    for _ in range(100):
        assert gateway.wire.get(paths.small, token).body == paths.content
    before = most_bytes = resident_bytes(worker)
    most_connections = 0
    tool = slowhttptest(kind, gateway.wire, paths.big, token)
    while tool.poll() is None:
        for _ in range(20):
            answer = gateway.wire.get(paths.small, token)
            assert (answer.status, answer.body) == (200, paths.content)
        most_bytes = max(most_bytes, resident_bytes(worker))
        most_connections = max(most_connections, gateway.metrics()["cachegate_connections"])
    assert most_bytes - before < SLOW * BYTES_OF_A_CLIENT
    if kind in HELD:
        assert most_connections > SLOW // 2
    assert gateway.worker_pids() == [worker]
    eventually(lambda: gateway.metrics()["cachegate_connections"] <= 1)
