"""A temporary installation for a benchmark: a state folder, a cache and a server, removed afterwards."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
from gateway.configuration.sources import load_settings
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId
from gateway.operations.setup import set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.configuration.settings import Settings
    from gateway.identity.new_keys import NewKey
    from gateway.identity.pepper import Peppers

START_SECONDS = 60.0
STOP_SECONDS = 20.0
_ADMINISTERS = re.compile(r"admin API is on http://[^:\s]+:(\d+)/")
_SERVES = re.compile(r"serves on http://[^:\s]+:(\d+) \(ops on http://([^)\s]+)\)")


@dataclass(frozen=True)
class Installation:
    """A folder with all of it."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)  # variables beside those below
    program: tuple[str, ...] = ("-m", "gateway")  # what Python runs
    log_name: str = "serve.log"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are told, and nothing of the caller's own settings."""
        return {
            "CACHEGATE_STATE": str(self.folder / "state"),
            "CACHEGATE_CACHE_ROOT": str(self.folder / "cache"),
            "CACHEGATE_NODE": "bench",
            "CACHEGATE_CANARY_SECONDS": "0",  # it would change facts while we measure
            "CACHEGATE_SCAN_SECONDS": "3600",
            "PATH": os.defpath,
            "PYTHONPATH": str(Path(gateway.__file__).parent.parent),
            **self.more,
        }

    @property
    def settings(self) -> Settings:
        return load_settings(self.environment)

    @classmethod
    @contextmanager
    def made(cls, **more: str) -> Iterator[Installation]:
        """Make one; take it away at the end, whatever happened."""
        folder = Path(tempfile.mkdtemp(prefix="cg-bench-"))  # short: a unix socket's path has to fit
        try:
            (folder / "cache").mkdir()
            made = cls(folder, more)
            asyncio.run(set_up(made.settings))
            yield made
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def serving(self, workers: int, port: int = 0) -> Iterator[int]:
        """`cachegate serve` on this port, or on any; gives its port."""
        log = self.folder / self.log_name
        ports = "--port", str(port), "--ops-port", "0", "--admin-port", "0"
        arguments = ("serve", *ports, "--workers", str(workers))
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *self.program, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C reaches the benchmark, which ends it in order
            )
        try:
            yield _await_ready(process, log)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def admin_port(installation: Installation) -> int:
    """The port of the admin API of an installation that is served."""
    said = _ADMINISTERS.search((installation.folder / "serve.log").read_text(errors="replace"))
    if said is None:
        raise RuntimeError("there is no admin API")
    return int(said[1])


def new_key(peppers: Peppers, tenant: str, now: float) -> NewKey:
    """A key with a token, as `keys create` makes it."""
    order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=TenantId(tenant), name="bench")
    return issue_key(order, environment="bench", peppers=peppers)


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        said = _SERVES.search(log.read_text(errors="replace"))
        if said is not None and _is_ready(said[2]):
            return int(said[1])
        time.sleep(0.05)
    raise RuntimeError(f"the gateway did not start:\n{log.read_text(errors='replace')}")


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
