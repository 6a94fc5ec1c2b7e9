"""The unmodified SDK as a process of the tests (sdk_process.py runs in it)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from upstream import HERE, PYTHON

TRANSPORTS = ("legacy", "header", "both")
"""The three ways in which the SDK sends a key; `legacy` is its default."""


@dataclass(frozen=True)
class Outcome:
    """What a call came to."""

    ok: bool
    result: Any = None
    error: str | None = None
    status: int | None = None
    message: str | None = None

    def returned(self) -> Any:
        assert self.ok, (self.error, self.status, self.message)
        return self.result


class Sdk:
    """One process that calls what it is told to."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- as long as the process
        self._process = subprocess.Popen(
            [PYTHON, HERE / "sdk_process.py"],
            env={"PATH": os.defpath, "HOME": tempfile.gettempdir(), "DISABLE_VERSION_CHECK": "True"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", self.log()

    def call(
        self,
        url: str,
        key: str | None,
        method: str,
        *,
        transport: str | None = None,
        version: str = "v1",
        **arguments: Any,
    ) -> Outcome:
        order = {"url": url, "key": key, "transport": transport, "version": version}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order | {"method": method, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the SDK's process ended: {self.log()}"
        return Outcome(**json.loads(line))

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()
        self._log.close()
