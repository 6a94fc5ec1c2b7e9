"""The inference server as a process of the tests: started, asked over HTTP, and read by its notes.

A server is started with the variables that `cachegate doctor` asks for unless a test says otherwise. It
takes about twenty seconds and 1.2 GB, so tests share one and tell theirs by the place in the notes where they
began (`Notes.mark`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.operations.doctor.inference import INFERENCE_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venv-server"
PYTHON = ENVIRONMENT / "bin" / "python"
START_SECONDS = 240.0

CLOSED = INFERENCE_ENVIRONMENT | {
    "USE_INFERENCE_MODELS": "True",
    "INFERENCE_WARNINGS_DISABLED": "True",
    "DISABLE_VERSION_CHECK": "True",
}
"""What operators are told to start it with, what keeps it from calling home, and the engine's models."""


@dataclass(frozen=True)
class Note:
    """One line of the server's notes."""

    event: str
    request: int | None
    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


class Notes:
    """What the server noted since a mark."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = 0

    def mark(self) -> None:
        self._mark = self._path.stat().st_size

    def all(self, *events: str) -> list[Note]:
        with self._path.open("rb") as file:
            file.seek(self._mark)
            lines = file.read().split(b"\n")[:-1]
        found = []
        for line in lines:
            values = json.loads(line)
            event, request = values.pop("event"), values.pop("request")
            if not events or event in events:
                found.append(Note(event, request, values))
        return found

    def requests(self) -> list[Note]:
        return self.all("request")

    def of(self, request: Note, *events: str) -> list[Note]:
        """What the server did for one request."""
        return [note for note in self.all(*events) if note.request == request.request]

    def routes(self) -> list[tuple[str, str]]:
        """The running application's routes in their order: method and path; a mount takes all methods."""
        return [(method, path) for method, path, _ in self.patterns()]

    def patterns(self) -> list[tuple[str, str, str]]:
        """The same with the regular expressions by which the application finds them."""
        with self._path.open() as file:
            notes = [json.loads(line) for line in file if line.startswith('{"event": "route"')]
        found = []
        for note in notes:
            path = f"{note['path']}/{{path:path}}" if note["methods"] == ["*"] else note["path"]
            found += [(method, path, note["pattern"]) for method in note["methods"]]
        return found


class Server:
    """One process of the inference server."""

    def __init__(self, provider_url: str, **variables: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cg-server-"))
        self._records = self.folder / "records.jsonl"
        self._records.touch()
        self.notes = Notes(self._records)
        hosts = {"API_BASE_URL": provider_url, "ROBOFLOW_API_HOST": provider_url}
        caches = {"MODEL_CACHE_DIR": str(self.folder / "cache"), "INFERENCE_HOME": str(self.folder / "home")}
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with (self.folder / "log").open("w") as log:
                self._process = subprocess.Popen(
                    [PYTHON, HERE / "application.py", str(listener.fileno()), self._records],
                    env={"PATH": os.defpath, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
                    | CLOSED
                    | hosts
                    | caches
                    | variables,
                    cwd=self.folder,
                    pass_fds=[listener.fileno()],
                    stdout=log,
                    stderr=log,
                )

    def await_ready(self) -> None:
        """Until it answers. Its socket listens from the start, so one request waits as long as it takes."""
        deadline = time.monotonic() + START_SECONDS
        port = int(self.url.rpartition(":")[2])
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
                if connection.recv(15).startswith(b"HTTP/1.1 200"):
                    return
        raise AssertionError(f"the inference server was not ready within {START_SECONDS} s:\n{self.log()}")

    @contextmanager
    def _telling(self, name: str, text: str) -> Iterator[None]:
        """Within it, the application finds this file."""
        file = self.folder / name
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()

    def reporting(self, *models: str) -> AbstractContextManager[None]:
        """Within it, the server says of every answer that it used these models as well."""
        return self._telling("reported", ",".join(models))

    def holding(self, part: str) -> AbstractContextManager[None]:
        """Within it, every answer waits before its `head`, or in the middle of its `body`."""
        return self._telling("held", part)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def kill(self) -> None:
        """End it as if its machine had lost power: nothing listens any more."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
