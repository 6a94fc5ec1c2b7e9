"""The demo's gateway: `cachegate serve` as a child process, as an operator would start it.

It gets an environment of its own, without our variables, and a session of its own, so that a Ctrl-C on the
terminal reaches only the demo, which then stops the child. In every case, no process of it is left when the
`with` ends.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
from gateway.demo.world import SETTINGS_FILE
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0  # it takes about one; a loaded machine takes longer
STOP_SECONDS = 15.0  # beyond the time that transfers get to finish
_POLL_SECONDS = 0.02
_LOG_LINES_SHOWN = 5
_SERVES = re.compile(r"serves on http://[^:\s]+:(?P<port>\d+) \(ops on http://(?P<ops>[^)\s]+)\)")


@dataclass(slots=True, kw_only=True)
class DemoGateway:
    """A running gateway."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    @contextmanager
    def running(cls, folder: Path, host: str, port: int) -> Iterator[DemoGateway]:
        """Start it, wait until it is ready, and stop it at the end."""
        log = folder / "serve.log"
        with ExitStack() as stack:
            with _undisturbed():
                running = cls(host=host, port=port, process=_spawn(folder, log, host, port), log=log)
                stack.callback(running.stop)
            running.await_ready()
            yield running

    def await_ready(self) -> None:
        """Wait until its log has its address, and its readiness check succeeds."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._failure("it ended at its start")
            announced = _SERVES.search(self.log.read_text(errors="replace"))
            if announced is not None and _is_ready(announced["ops"]):
                self.port = int(announced["port"])
                return
            time.sleep(_POLL_SECONDS)
        raise self._failure(f"it was not ready within {START_SECONDS:.0f} s")

    def stay(self) -> None:
        """Wait while it serves. Raises `Unavailable` when the gateway ends by itself."""
        self.process.wait()
        raise self._failure("it ended by itself")

    def stop(self) -> None:
        """Terminate it, and kill it if it does not end."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The session's process group holds the workers as well; after an orderly end it is empty.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _failure(self, what: str) -> Unavailable:
        lines = self.log.read_text(errors="replace").splitlines()
        shown = " | ".join(lines[-_LOG_LINES_SHOWN:])
        return Unavailable("gateway", f"{what}; its log ends: {shown or '(empty)'}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay signals: none may arrive after the process started and before its stop is registered."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda one, _: came.append(one)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


def _spawn(folder: Path, log: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    served_at = ["--host", host, "--port", str(port), "--ops-port", "0", "--admin-port", "0"]
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603 -- our own program and interpreter, no shell
            [sys.executable, "-m", "gateway", "serve", *served_at],
            env=_environment(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _environment(folder: Path) -> dict[str, str]:
    """The child's whole environment: where its settings, the code and temporary files are."""
    return {
        "CACHEGATE_CONFIG": str(folder / SETTINGS_FILE),
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(gateway.__file__).parent.parent),
        "PYTHONUTF8": "1",
        "TMPDIR": tempfile.gettempdir(),
    }


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
