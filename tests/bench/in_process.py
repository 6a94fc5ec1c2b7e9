"""What one request costs a worker, measured within this process (`delivery.py --in-process`).

The pipeline of a worker runs here, over a real cache, a real Valkey and a real log, and so does its protocol
class. It is fed the bytes of real clients' requests, a number of connections in each iteration of the event
loop, and what it writes is dropped. So no other process is measured with it, nor the kernel's sockets: the
figures are the same on a busy machine, and two versions can be compared by a few microseconds.

A large file needs a socket: `sendfile` writes to a real one, and another thread reads it. The time is that of
this thread alone.

To compare two versions, run both: `PYTHONPATH=<another tree> python tests/bench/delivery.py --in-process`.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import os
import pstats
import socket
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from client_requests import REQUESTS, request_sets
from installation import Installation
from ours import PUBLIC_URL, SETTINGS, Sizes, furnish
from uvicorn.server import ServerState

from gateway.assembly.app import Worker
from gateway.operations.session import fact_server
from gateway.server.protocol import worker_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from report import Report
    from workload import Workload

CONNECTIONS = 16  # that have a request in each iteration
PASSES = 4  # over a set of requests, before it is measured: everything is in memory then
SETTLE_SECONDS = 3.5  # a file that was just written is not held before
ROUNDS = 40
LARGE = {"large_range": "bytes=1048576-1118207", "large_mebibyte": "bytes=1048576-2097151"}
LARGE_COUNT = 400
SIZES = Sizes(large=64 << 20)
COUNTED = 400  # requests whose function calls are counted


class Dropped(asyncio.Transport):
    """Takes what is written, and drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.written = b""

    def write(self, data: Any) -> None:
        """Drop it."""
        self.count += 1
        self.written = data

    def writelines(self, list_of_data: Any) -> None:
        """Drop it."""
        self.count += 1
        self.written = list_of_data[0]

    def is_closing(self) -> bool:
        """Never."""
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

    def close(self) -> None:
        """It stays open."""


def measure_in_process(report: Report, names: Sequence[str], *, is_profiled: bool) -> None:
    """A row for each of these sets of requests: microseconds of CPU and function calls for each request."""
    with Installation.made(**SETTINGS) as installation:
        furnished = asyncio.run(furnish(installation, SIZES))
        with (
            fact_server(installation.settings) as url,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_measure(report, names, installation, furnished, url, is_profiled=is_profiled))


async def _measure(
    report: Report,
    names: Sequence[str],
    installation: Installation,
    furnished: Workload,
    url: str,
    *,
    is_profiled: bool,
) -> None:
    worker = Worker(installation.settings, url)
    app = worker.app()
    async with worker.pipeline.running():
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        protocol = worker_protocol(at_once=worker.at_once(), on_refused=worker.refused_early)
        state = ServerState()
        state.default_headers = [(b"date", b"Mon, 30 Nov 2026 10:00:00 GMT")]

        def make() -> Any:
            return protocol(config, state, {})

        driven = _Driven(make)
        workload = _with_answers(worker, furnished)
        sets = request_sets(workload)
        for _ in range(2):
            for name in names:
                if name in sets:
                    await driven.run([one.refreshed().raw.encode() for one in sets[name].requests])
            if _ == 0:
                await asyncio.sleep(SETTLE_SECONDS)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000)
        for name in names:
            if name in LARGE:
                continue
            taken = []
            at_once = worker.pipeline.telemetry.counters
            before, sent = at_once["cachegate_answers_at_once_total"], 0
            for _ in range(PASSES):
                await driven.run([one.refreshed().raw.encode() for one in sets[name].requests])
            for _ in range(ROUNDS):
                raws = [one.refreshed().raw.encode() for one in sets[name].requests]
                began = time.thread_time()
                await driven.run(raws)
                taken.append((time.thread_time() - began) / len(raws) * 1e6)
                sent += len(raws)
            share = (at_once["cachegate_answers_at_once_total"] - before) / (
                sent + PASSES * len(sets[name].requests)
            )
            raws = [one.refreshed().raw.encode() for one in sets[name].requests][:COUNTED]
            calls = await _calls(driven, raws)
            report.row(
                f"in_process_{name}_us",
                min(taken),
                f"{sets[name].title}; {calls:.0f} function calls, {share:.0%} at once",
            )
            if is_profiled:
                await _profile(driven, raws * 10)
        for name, ranged in LARGE.items():
            if name in names:
                item, token = workload.large, workload.token
                raw = REQUESTS.get(item.path, token, ("Range", ranged)).raw.encode()
                first, _, last = ranged.removeprefix("bytes=").partition("-")
                length = int(last) - int(first) + 1
                with _Reading(length) as reading:
                    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
                    port = server.sockets[0].getsockname()[1]
                    taken = []
                    for number in range(8):
                        if number == 1:
                            await asyncio.sleep(0.1)
                        began = time.thread_time()
                        await asyncio.get_running_loop().run_in_executor(
                            None, reading.ask, port, raw, LARGE_COUNT
                        )
                        taken.append((time.thread_time() - began) / LARGE_COUNT * 1e6)
                    if is_profiled:
                        profile = cProfile.Profile()
                        profile.enable()
                        await asyncio.get_running_loop().run_in_executor(
                            None, reading.ask, port, raw, LARGE_COUNT
                        )
                        profile.disable()
                        pstats.Stats(profile).sort_stats("tottime").print_stats(120)
                    server.close()
                report.row(f"in_process_{name}_us", min(taken[1:]), f"{ranged} of a large file, by a socket")
        gc.unfreeze()


class _Driven:
    """Connections without sockets."""

    def __init__(self, make: Any) -> None:
        self._connections = []
        for _ in range(CONNECTIONS):
            transport, protocol = Dropped(), make()
            protocol.connection_made(transport)
            self._connections.append((transport, protocol))

    async def run(self, raws: Sequence[bytes]) -> None:
        """Feed all of these, each once the earlier one on its connection is answered."""
        for start in range(0, len(raws), CONNECTIONS):
            batch = list(zip(raws[start : start + CONNECTIONS], self._connections, strict=False))
            for raw, (transport, protocol) in batch:
                transport.count = 0
                protocol.data_received(raw)
            while not all(transport.count for _, (transport, _) in batch):
                await asyncio.sleep(0)


async def _calls(driven: _Driven, raws: Sequence[bytes]) -> float:
    """How many Python functions are called for each request."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        await driven.run(raws)
    finally:
        sys.setprofile(None)
    return count / len(raws)


async def _profile(driven: _Driven, raws: Sequence[bytes]) -> None:
    profile = cProfile.Profile()
    profile.enable()
    await driven.run(raws)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(120)


class _Reading:
    """Another process that asks for a range again and again."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, port: int, raw: bytes, count: int) -> None:
        """Ask so often; a child does it, so that its time is not ours."""
        pid = os.fork()
        if pid == 0:
            try:
                _ask(port, raw, count, self._length)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


def _ask(port: int, raw: bytes, count: int, length: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        room = bytearray(1 << 21)
        for _ in range(count):
            connection.sendall(raw)
            have, head_end = 0, -1
            while head_end < 0 or have < head_end + length:
                got = connection.recv_into(memoryview(room)[have:])
                if not got:
                    return
                have += got
                if head_end < 0:
                    end = room.find(b"\r\n\r\n", 0, have)
                    head_end = end + 4 if end >= 0 else -1


def _with_answers(worker: Worker, workload: Workload) -> Workload:
    """With the tags and links that a client has from earlier answers."""
    links = worker.pipeline.links
    keys: dict[str, str] = {}
    etags = {item.path: f'"{item.sha256}"' for tenant in workload.tenants for item in tenant.files}
    return replace(
        workload, links={item.path: item.path for t in workload.tenants for item in t.files}, etags=etags
    )
