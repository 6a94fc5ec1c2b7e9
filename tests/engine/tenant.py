"""The engine as a tenant runs it: a process of its own for every set of variables, told what to load.

`Engine` is the one process that has imported torch; `Engine.client` forks from it (client.py says how). A
`Client` loads with the unmodified engine, into a home of its own unless a test says otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent.parent / ".venv-engine"
PYTHON = ENVIRONMENT / "bin" / "python"
WAYS = ("host", "secure")
"""The two ways to put a gateway in front: ROBOFLOW_API_HOST and SECURE_GATEWAY."""
ASK_EVERY_TIME = {"AUTO_LOADER_CACHE_EXPIRATION_MINUTES": "0"}
"""What clients of a guard set: without it the engine asks nobody for a day."""
START_SECONDS, LOAD_SECONDS = 120.0, 100.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a load came to."""

    ok: bool
    exception: str | None
    message: str
    network: tuple[str, ...]
    seconds: float
    prediction: Any = None
    class_names: Any = None
    path: str | None = None
    trace: str = ""

    def loaded(self) -> Outcome:
        """Itself, if it did load."""
        assert self.ok, self.trace
        return self


class Client:
    """One process with the engine in it."""

    def __init__(self, connection: socket.socket, home: Path) -> None:
        self.home = home
        self._connection = connection
        self._lines = connection.makefile("r")

    def load(self, model: str, api_key: str | None = None, **arguments: Any) -> Outcome:
        return self._ask(do="load", model=model, arguments={"api_key": api_key, **arguments})

    def find(self, model: str, api_key: str | None = None) -> Outcome:
        return self._ask(do="find", model=model, api_key=api_key)

    def blobs(self) -> set[str]:
        """The names of the blobs that it has in full."""
        return {path.name for path in (self.home / "shared-blobs").glob("*") if len(path.name) == 32}

    def begin(self, variables: dict[str, str], folder: Path) -> Outcome:
        return self._ask(variables=variables, folder=str(folder))

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def _ask(self, **order: Any) -> Outcome:
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        line = self._lines.readline()
        assert line, "the engine's process ended"
        answer = json.loads(line)
        known = {name: answer[name] for name in Outcome.__dataclass_fields__ if name in answer}
        return Outcome(**known | {"network": tuple(answer["network"])})


class Engine:
    """The process that all clients are forked from."""

    def __init__(self) -> None:
        # Short, because it holds a unix socket; also the home of processes that must find no settings in one.
        self.folder = Path(tempfile.mkdtemp(prefix="cg-engine-"))
        self._socket = str(self.folder / "socket")
        with (self.folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [PYTHON, HERE / "client.py", self._socket],
                env={"PATH": os.defpath, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"},
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", (self.folder / "log").read_text()

    @contextmanager
    def client(self, home: Path, *, folder: Path | None = None, **variables: str) -> Iterator[Client]:
        """A process with these variables, whose cache is `home`, started in `folder`."""
        home.mkdir(parents=True, exist_ok=True)
        working = folder or self.folder / "empty"
        working.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LOAD_SECONDS)
            connection.connect(self._socket)
            client = Client(connection, home)
            try:
                begun = client.begin({"INFERENCE_HOME": str(home), **variables}, working)
                assert begun.ok, begun.trace
                yield client
            finally:
                client.close()

    def log(self) -> str:
        """What the engine warned of."""
        return (self.folder / "log").read_text()

    def build_models(self, folder: Path) -> None:
        subprocess.run([PYTHON, HERE / "models.py", folder], check=True, timeout=START_SECONDS)

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
