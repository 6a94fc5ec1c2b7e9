"""Run an ASGI app under the servers that other people use, each a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SERVERS = ("uvicorn", "hypercorn", "granian")
PYTHONPATH = os.pathsep.join(map(str, (HERE, HERE.parents[1] / "docs" / "examples")))


def command(server: str, app: str, port: int, *, workers: int = 1, root_path: str = "") -> list[str]:
    """The command line of a server."""
    common = {
        "uvicorn": [
            "-m",
            "uvicorn",
            app,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--no-access-log",
            "--no-proxy-headers",
        ],
        "hypercorn": ["-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}"],
        "granian": ["-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), app],
    }[server]
    roots = {"uvicorn": "--root-path", "hypercorn": "--root-path", "granian": "--url-path-prefix"}
    return [
        sys.executable,
        *common,
        *(["--workers", str(workers)] if workers > 1 else []),
        *([roots[server], root_path] if root_path else []),
    ]


@dataclass
class Served:
    """A server that runs."""

    server: str
    wire: Any
    process: subprocess.Popen[bytes]
    log_file: Path
    marks: Path

    def log(self) -> str:
        return self.log_file.read_text()

    def has(self, mark: str) -> bool:
        return (self.marks / mark).exists()


@contextmanager
def running(
    server: str, app: str, wire: Any, environment: dict[str, str], folder: Path, **more: Any
) -> Iterator[Served]:
    """A server with this app; it is ended, and what it started with it."""
    marks = folder / "marks"
    marks.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(server, app, wire.port, **more),
            env=environment | {"MARKS": str(marks), "PYTHONPATH": PYTHONPATH},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Served(server, wire, process, log, marks)
    finally:
        if process.poll() is None:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):  # its own session: its workers, if any are left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
