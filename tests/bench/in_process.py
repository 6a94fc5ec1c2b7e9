"""What one request costs a worker, measured within this process (`delivery.py --in-process`).

The pipeline of a worker runs here, over a real cache, a real Valkey and a real log, and so does its protocol
class. It is fed the bytes of real clients' requests, one on each of `CONNECTIONS` in each iteration of the
event loop, and what it writes is dropped. So neither other processes nor the kernel's sockets are in the
figures, and two versions can be compared by a few microseconds, on a busy machine as well: of all iterations
a tenth was faster than the figure. Run both, in turn:

    PYTHONPATH=<another tree> .venv/bin/python tests/bench/delivery.py --in-process --only varied,traced

Ranges of a large file go to real sockets, as `sendfile` needs one; another process reads them. The time is
that of this process's event loop alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from client_requests import REQUESTS, request_sets
from installation import Installation
from ours import SETTINGS, Sizes, furnish
from report import quantile
from uvicorn.server import ServerState

from gateway.assembly.app import Worker
from gateway.operations.session import fact_server
from gateway.server.protocol import worker_protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from report import Report
    from workload import Workload

CONNECTIONS = 16
ROUNDS = 40
FASTEST = 0.1
SETTLE_SECONDS = 3.5  # a file that was just written is not held before
YOUNG_OBJECTS = 20_000  # as in a worker
RANGES = {"ranges": (1 << 20, 70_000), "large": (1 << 20, 1 << 20)}  # of the large file: first byte, length
RANGES_IN_A_ROUND, RANGE_ROUNDS = 400, 8
SIZES = Sizes(large=64 << 20)
ANSWERED = "cachegate_answers_at_once_total"


def measure_in_process(report: Report, names: Sequence[str]) -> None:
    """A row for each of these sets: microseconds of CPU and calls of Python functions for each request."""
    with Installation.made(**SETTINGS) as installation:
        furnished = asyncio.run(furnish(installation, SIZES))
        with (
            fact_server(installation.settings) as url,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_measure(report, names, Worker(installation.settings, url), furnished))


async def _measure(report: Report, names: Sequence[str], worker: Worker, furnished: Workload) -> None:
    app = worker.app()
    async with worker.pipeline.running():
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        made = worker_protocol(at_once=worker.at_once(), on_refused=worker.refused_early)
        state = ServerState()
        state.default_headers = [(b"date", b"Mon, 30 Nov 2026 10:00:00 GMT")]

        def make() -> Any:
            return made(config, state, {})

        sets = request_sets(with_tags(furnished))
        driven = Driven(make)

        async def send(name: str) -> int:
            raws = [one.refreshed().raw.encode() for one in sets[name].requests]
            await driven.run(raws, taken)
            return len(raws)

        taken: list[float] = []  # microseconds for each request, of each iteration
        known = [name for name in names if name in sets and name != "link"]
        for seconds in (SETTLE_SECONDS, 0.0, 0.0):
            for name in known:
                await send(name)
            await asyncio.sleep(seconds)
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        counters = worker.pipeline.telemetry.counters
        for name in known:
            taken.clear()
            before = counters[ANSWERED]
            count = sum([await send(name) for _ in range(ROUNDS)])
            share = (counters[ANSWERED] - before) / count
            least = quantile(taken, FASTEST)
            calls = await _calls(send, name)
            what = f"{sets[name].title}: CPU; {calls:.0f} calls of Python functions, {share:.0%} at once"
            report.row(f"in_process_{name}_us", least, what)
        for name in names:
            if name in RANGES:
                first, length = RANGES[name]
                least = await _measure_ranges(make, furnished, first, length)
                report.row(
                    f"in_process_{name}_us", least, f"{length:,} bytes of a large file, to a socket: CPU"
                )
        gc.unfreeze()


class Dropped(asyncio.Transport):
    """Takes what is written, counts it and drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any) -> None:
        """Count it."""
        self.count += 1

    def is_closing(self) -> bool:
        """It never closes."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing is buffered."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A client on the loopback."""
        return ("127.0.0.1", 4711) if name in {"peername", "sockname"} else default

    def pause_reading(self) -> None:
        """It is fed, and does not read."""

    def resume_reading(self) -> None:
        """It is fed, and does not read."""


class Driven:
    """Connections without sockets."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._connections = [(Dropped(), make()) for _ in range(CONNECTIONS)]
        for transport, protocol in self._connections:
            protocol.connection_made(transport)

    async def run(self, raws: Sequence[bytes], taken: list[float]) -> None:
        """Feed all of these, each once the earlier one on its connection is answered."""
        for start in range(0, len(raws), CONNECTIONS):
            began = time.thread_time_ns()
            batch = list(zip(raws[start : start + CONNECTIONS], self._connections, strict=False))
            for raw, (transport, protocol) in batch:
                transport.count = 0
                protocol.data_received(raw)
            while not all(  # noqa: ASYNC110 -- one iteration of the event loop after the other
                transport.count for _, (transport, _) in batch
            ):
                await asyncio.sleep(0)
            taken.append((time.thread_time_ns() - began) / len(batch) / 1e3)


async def _calls(send: Callable[[str], Any], name: str) -> float:
    """How many functions of Python are called for each request."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        sent = await send(name)
    finally:
        sys.setprofile(None)
    return count / sent


async def _measure_ranges(make: Callable[[], Any], workload: Workload, first: int, length: int) -> float:
    """The least time of a round, for each range: one client asks for the next when it has the last."""
    loop = asyncio.get_running_loop()
    asked = ("Range", f"bytes={first}-{first + length - 1}")
    raw = REQUESTS.get(workload.large.path, workload.token, asked).raw.encode()
    server = await loop.create_server(make, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taken = []
    for _ in range(RANGE_ROUNDS):
        began = time.thread_time()
        await loop.run_in_executor(None, _ask_elsewhere, port, raw, length)
        taken.append((time.thread_time() - began) / RANGES_IN_A_ROUND * 1e6)
    server.close()
    return min(taken[1:])  # the first one opens the file, and knows it from then on


def _ask_elsewhere(port: int, raw: bytes, length: int) -> None:
    """Ask in a process of its own, so that its time is not ours."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            _ask(port, raw, length)
        os._exit(0)
    os.waitpid(pid, 0)


def _ask(port: int, raw: bytes, length: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        room = bytearray(length + (1 << 14))
        for _ in range(RANGES_IN_A_ROUND):
            connection.sendall(raw)
            have, body_at = 0, None
            while body_at is None or have < body_at + length:
                got = connection.recv_into(memoryview(room)[have:])
                if not got:
                    return
                have += got
                if body_at is None and (end := room.find(b"\r\n\r\n", 0, have)) >= 0:
                    body_at = end + 4


def with_tags(workload: Workload) -> Workload:
    """With what a client has from earlier answers. There are no links here: they take their paths' place."""
    files = [item for tenant in workload.tenants for item in tenant.files]
    etags = {item.path: f'"{item.sha256}"' for item in files}
    return replace(workload, etags=etags, links={item.path: item.path for item in files})
