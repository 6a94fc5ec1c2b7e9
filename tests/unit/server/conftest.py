"""Fixtures: a real instance, that is a supervisor process with workers that serve a tiny application."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

APPLICATION = '''
"""The application that the server's tests serve."""

import asyncio
import json
import os
import time

from gateway.model.errors import Misconfigured, Unavailable
from gateway.server.worker import WorkerApp


class App:
    def __init__(self, argument):
        self.argument = argument
        self.requests = 0
        self.refused = {}

    def report(self):
        if self.argument.get("fails_at") == "report":
            raise RuntimeError("a defect")
        if self.argument.get("mute_pid_file") and os.path.exists(self.argument["mute_pid_file"]):
            with open(self.argument["mute_pid_file"]) as file:
                if int(file.read()) == os.getpid():
                    time.sleep(3)
        return {
            "ready": {"policy": not self.argument.get("is_unready")},
            "counters": {"requests": self.requests, **self.refused},
        }

    def on_refused(self, refusal, peer, answer):
        name = f"{refusal}@{peer}"
        self.refused[name] = self.refused.get(name, 0) + 1
        answer(None if self.argument.get("records_nothing") else f"record-{self.refused[name]}")

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if self.argument.get("fails_at") == "lifespan":
                raise Misconfigured("policies", "the second folder is missing")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests += 1
        if scope["path"] == "/slow":
            await asyncio.sleep(0.2)
        if scope["path"] == "/held":
            while not os.path.exists(self.argument["gate"]):
                await asyncio.sleep(0.01)
        if scope["path"] == "/hang":
            await asyncio.sleep(3600)
        length = 0
        if scope["method"] == "POST":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                length += len(message["body"])
                more = message["more_body"]
        body = json.dumps({
            "pid": os.getpid(), "path": scope["path"], "body": length, "scheme": scope["scheme"],
            "headers": [[name.decode("latin-1"), value.decode("latin-1")]
                        for name, value in scope["headers"]],
        }).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def build(argument):
    if argument.get("fails_at") == "factory":
        raise Misconfigured("cachegate.toml:3", "the pepper folder is missing: run `cachegate init`")
    if argument.get("fails_at") == "dependency":
        raise Unavailable("redis", "connection refused")
    if argument.get("fails_at") == "crash":
        os._exit(7)
    app = App(argument)
    admin = app if argument.get("has_admin") else None
    return WorkerApp(app=app, report=app.report, on_refused=app.on_refused, admin=admin)
'''

MAIN = '''
"""What the command line does: serve, and tell failures in one line."""

import json
import os
import sys
from pathlib import Path

from gateway.model.errors import Misconfigured, Unavailable
from gateway.server.serve_options import ServePlan, TlsFiles
from gateway.server.supervisor import serve


def worker_pids():
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"gateway.server.worker" in command_of(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def ops(supervisor):
    async def app(scope, receive, send):
        status = await supervisor.status()
        body = json.dumps({
            "is_ready": status.is_ready, "expected": status.expected, "answering": status.answering,
            "ready": status.ready, "counters": status.counters, "pids": worker_pids(),
        }).encode()
        await send({"type": "http.response.start", "status": 200 if status.is_ready else 503,
                    "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    return app


def on_serving(supervisor):
    print(json.dumps({"public": supervisor.public_address, "ops": supervisor.ops_address}), flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "tls" in asked:
        asked["tls"] = TlsFiles(certificate=Path(asked["tls"][0]), key=Path(asked["tls"][1]))
    plain = {"factory": "served_application:build", "argument": {}, "host": "127.0.0.1", "port": 0}
    try:
        serve(ServePlan(**{**plain, **asked}), ops, on_serving)
    except Misconfigured as error:
        sys.exit(print(error, file=sys.stderr) or 2)
    except Unavailable as error:
        sys.exit(print(error, file=sys.stderr) or 3)
'''


class Instance:
    """A running instance, seen from outside."""

    def __init__(self, process, addresses):
        self.process = process
        self.public = tuple(addresses["public"])
        self.ops = tuple(addresses["ops"])

    def connect(self):
        return socket.create_connection(self.public, timeout=20)

    def send(self, *pieces):
        """Everything the server answers to these bytes, until it closes."""
        with self.connect() as connection:
            for piece in pieces:
                with suppress(ConnectionError):
                    connection.sendall(piece)
            return read_all(connection)

    def get(self, path="/", address=None):
        with socket.create_connection(address or self.public, timeout=20) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return json.loads(read_all(connection).partition(b"\r\n\r\n")[2])

    def status(self):
        return self.get(address=self.ops)

    def await_status(self, holds):
        """The first status for which `holds` is true; the test's timeout ends the wait."""
        while not holds(status := self.status()):
            time.sleep(0.05)
        return status

    def await_request(self):
        """Wait until the application has a request."""
        self.await_status(lambda status: status["counters"].get("requests", 0) > 0)


def read_all(connection):
    received = bytearray()
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


@pytest.fixture(scope="session")
def application_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "served_application.py").write_text(textwrap.dedent(APPLICATION))
    (folder / "main.py").write_text(textwrap.dedent(MAIN))
    return folder


@pytest.fixture(scope="session")
def launch(application_folder):
    """A supervisor process as a command would start it; its output is piped."""

    def start(*, files=None, **plan):
        root = Path(__file__).parents[3]
        command = [sys.executable, str(application_folder / "main.py"), json.dumps(plan)]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(root)},
        )

    return start


@pytest.fixture(scope="session")
def serving(launch):
    """A context in which an instance serves."""

    @contextmanager
    def instance(**plan):
        process = launch(**plan)
        try:
            first_line = process.stdout.readline()
            assert first_line, process.stderr.read().decode()
            yield Instance(process, json.loads(first_line))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    return instance


@pytest.fixture(scope="session")
def instance(serving):
    """One instance for the tests that do not change it."""
    with serving(workers=1) as running:
        yield running
