"""Our side of a delivery benchmark: a cache with a small and a large file, one key, and the gateway.

The guard is on, decisions come from memory, every read is recorded (`process` durability), the canary is off;
all other settings are the defaults.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contender import Contender, Item, Workload
from installation import Installation, new_key
from processes import SERVER_CORE, on_cores, tree

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import keys, models, tenants
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BYTES = 10_000
LARGE_BYTES = 1_000_000_000
PIN_SECONDS = 60.0
TENANT, MODEL, PACKAGE = "bench", "bench/model/1", "pkgB1"
SMALL, LARGE = "config.json", "weights.onnx"


async def furnish(installation: Installation, *, large_bytes: int = LARGE_BYTES) -> Workload:
    """Write the files, and make the tenant that owns them and its key."""
    choose = random.Random(7)
    with tempfile.TemporaryDirectory(dir=installation.folder) as folder:
        large = Path(folder) / LARGE
        block = choose.randbytes(1_000_000)
        with large.open("wb") as file:  # real bytes: a hole in a file costs nobody anything to read
            for number in range(large_bytes // len(block)):
                file.write(number.to_bytes(4, "big") + block[4:])
        small = choose.randbytes(SMALL_BYTES)
        model = SampleModel(model_id=MODEL, packages={PACKAGE: {SMALL: small, LARGE: large}})
        written = write_sample_cache(installation.settings.cache_root, [model])
    items = {
        one.handle: Item.of(f"/v1/models/{MODEL}/-/{PACKAGE}/{one.handle}", one.path.readlink())
        for one in written
    }
    os.sync()  # or the disk would be busy while we measure
    return Workload(items[SMALL], items[LARGE], await _make_key(installation))


@contextmanager
def serving_ours(installation: Installation, workload: Workload, *, workers: int = 1) -> Iterator[Contender]:
    """`cachegate serve` on the servers' core, with both files pinned."""
    with ExitStack() as stack:
        with on_cores(SERVER_CORE):
            port = stack.enter_context(installation.serving(workers))
        valkey = int((installation.settings.state / "valkey" / "valkey.pid").read_text())
        title = "Cachegate" if workers == 1 else f"Cachegate, {workers} workers"
        ours = Contender("cachegate", title, port, (_serve_pid(installation), valkey))
        for item in (workload.small, workload.large):
            _await_pinned(ours, item, workload.token)
        yield ours


def worker_pids(contender: Contender) -> list[int]:
    """The processes of ours that answer requests."""
    return [pid for pid in tree(contender.roots) if b"gateway.server.worker" in _read(pid, "cmdline")]


async def _make_key(installation: Installation) -> str:
    tenant = parse_tenant_id(TENANT)
    async with open_session(installation.settings) as session:
        now = session.clock.now()
        new = new_key(session.peppers, TENANT, now)

        async def fill(changes: Any) -> None:
            await tenants.create_tenant(changes, tenant_id=tenant, name=TENANT, now=now)
            await models.own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{TENANT}/*")])
            await keys.create_key(changes, key=new.key, digest=new.digest)

        await session.perform("bench.fill", fill)
    return str(new.token)


def _serve_pid(installation: Installation) -> int:
    """The process below ours that was given this state folder: parents come before their children."""
    told = f"CACHEGATE_STATE={installation.environment['CACHEGATE_STATE']}".encode()
    return next(pid for pid in tree((os.getpid(),)) if told in _read(pid, "environ").split(b"\0"))


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _await_pinned(ours: Contender, item: Item, token: str) -> None:
    """Until ranges of it are offered: a client of the first second would be served at the hash's pace."""
    deadline = time.monotonic() + PIN_SECONDS
    while time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", ours.port, timeout=PIN_SECONDS)
        connection.request("HEAD", item.path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        connection.close()
        if answer.getheader("accept-ranges") == "bytes":
            return
        time.sleep(0.1)
    raise RuntimeError(f"{item.path} was not pinned within {PIN_SECONDS:g} s: {answer.status}")
