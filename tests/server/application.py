"""The unmodified inference server, with a recorder around it. Runs in `.venv-server`.

`application.py DESCRIPTOR RECORDS` serves on the listening socket DESCRIPTOR, which it inherits, and appends
lines of JSON to the file RECORDS. The server is put together as its own images do. Four things stand around
it: the network is off but for loopback, the operators that torchvision's CUDA build would bring are declared
(client.py of the engine's tests does both), every request and answer is noted by an ASGI application in
front of it, and every model that is added, run or loaded is noted by the model manager:

    {"event": "route", "request": null, "methods": ["GET"], "path": "/info",
     "pattern": "^/info$"}                              each of its routes, in order
    {"event": "request", "request": 7, "method": "POST", "path": "/infer/classification",
     "raw_path": "...", "query": "...", "headers": [["host", "..."], ...], "length": 1234, "sha256": "...",
     "json": {...}}                                          json is null where the body is none
    {"event": "add", "request": 7, "model": "acme/1", "alias": null, "key": "...", ...}
    {"event": "infer", "request": 7, "model": "acme/1", "key": "..."}
    {"event": "load", "request": 7, "model": "acme/1", "key": "..."}      the engine loads weights
    {"event": "answer", "request": 7, "status": 200, "headers": [...]}

A line is in the file before what it tells of goes on, so that whoever has an answer finds what led to it.

While a file `reported` lies beside RECORDS, its text is added to `X-Model-Id` of every answer, as of a server
that used another model than it was asked for. While a file `held` lies there, answers wait: before their head
(`head` stands in the file), or with half of their body sent (`body`). Where the client leaves meanwhile:

    {"event": "left", "request": 7, "path": "/infer/classification"}
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import itertools
import json
import os
import socket
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from client import prepare

_request = contextvars.ContextVar("request", default=None)


class Records:
    """The file of notes."""

    def __init__(self, path):
        self._file = Path(path).open("a")  # noqa: SIM115 -- as long as the process
        self._lock = threading.Lock()
        self._reported = Path(path).with_name("reported")
        self._held = Path(path).with_name("held")

    def also_reported(self):
        """The ids that a test has the server report."""
        return self._reported.read_text() if self._reported.exists() else ""

    def is_held(self, part):
        """Whether a test has answers wait at this part of them: its `head` or its `body`."""
        return self._held.exists() and self._held.read_text() == part

    def note(self, event, **more):
        line = json.dumps({"event": event, "request": _request.get(), **more}, default=str)
        with self._lock:
            print(line, file=self._file, flush=True)


class Recorder:
    """An ASGI application that notes what the one behind it is asked and answers."""

    def __init__(self, application, records):
        self._application, self._records = application, records
        self._serials = itertools.count(1)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        serial = next(self._serials)
        token = _request.set(serial)
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send)
            else:
                self._records.note(scope["type"], path=scope["path"])
                await self._application(scope, receive, send)
        finally:
            _request.reset(token)

    async def _http(self, scope, receive, send):
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._records.note("left", path=scope["path"])
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self._records.note(
            "request",
            method=scope["method"],
            path=scope["path"],
            raw_path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers=_plain(scope["headers"]),
            length=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            json=_parsed(body),
        )
        pending = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay():
            return pending.pop() if pending else await receive()

        async def noted(message):
            if message["type"] == "http.response.start":
                await self._wait("head", scope, receive)
                if more := self._records.also_reported():
                    message["headers"] = _with_reported(message["headers"], more)
                self._records.note("answer", status=message["status"], headers=_plain(message["headers"]))
            elif scope["method"] == "POST" and self._records.is_held("body"):
                half = len(message["body"]) // 2
                await send({**message, "body": message["body"][:half], "more_body": True})
                message = {**message, "body": message["body"][half:]}
                await self._wait("body", scope, receive)
            await send(message)

        await self._application(scope, replay, noted)

    async def _wait(self, part, scope, receive):
        """Wait while a test holds this part back, or until the client leaves, which is noted."""
        if scope["method"] != "POST":  # health checks go on
            return
        leaving = asyncio.ensure_future(receive())  # the body was read: what comes now is its leaving
        try:
            while self._records.is_held(part):
                await asyncio.wait({leaving}, timeout=0.01)
                if leaving.done():
                    self._records.note("left", path=scope["path"])
                    return
        finally:
            leaving.cancel()


def _plain(headers):
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def _with_reported(headers, more):
    names = [value.decode("latin-1") for name, value in headers if name.lower() == b"x-model-id"]
    others = [(name, value) for name, value in headers if name.lower() != b"x-model-id"]
    return [*others, (b"x-model-id", ",".join([*names, more]).encode("latin-1"))]


def _parsed(body):
    try:
        return json.loads(body)
    except ValueError:
        return None


def build(records):
    """The server's application, and the model manager that notes what it does."""
    from inference.core.interfaces.http.http_api import HttpInterface  # noqa: PLC0415 -- after `prepare`
    from inference.core.managers.base import ModelManager  # noqa: PLC0415
    from inference.core.managers.decorators.fixed_size_cache import WithFixedSizeCache  # noqa: PLC0415
    from inference.core.registries.roboflow import RoboflowModelRegistry  # noqa: PLC0415
    from inference.models.utils import ROBOFLOW_MODEL_TYPES  # noqa: PLC0415
    from inference_models import AutoModel  # noqa: PLC0415

    class NotingManager(WithFixedSizeCache):
        """Notes each model with the key that it was given, then does what it always does."""

        def add_model(self, model_id, api_key, model_id_alias=None, **more):
            records.note("add", model=model_id, alias=model_id_alias, key=api_key, more=more)
            return super().add_model(model_id, api_key, model_id_alias=model_id_alias, **more)

        def infer_from_request_sync(self, model_id, request, **more):
            records.note("infer", model=model_id, key=request.api_key)
            return super().infer_from_request_sync(model_id, request, **more)

    loading = AutoModel.from_pretrained

    def noting_load(model_id_or_path, *arguments, **more):
        records.note("load", model=model_id_or_path, key=more.get("api_key"))
        return loading(model_id_or_path, *arguments, **more)

    AutoModel.from_pretrained = noting_load
    registry = RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES)
    manager = NotingManager(ModelManager(model_registry=registry), max_size=8)
    return HttpInterface(manager).app


def main(descriptor, path):
    operators = prepare()
    import uvicorn  # noqa: PLC0415 -- the network is off only now

    for folder in ("static", "_next/static"):  # the server mounts them, and ends without
        (Path.cwd() / "inference/landing/out" / folder).mkdir(parents=True, exist_ok=True)
    records = Records(path)
    server = build(records)
    for route in server.routes:  # a mount has no methods: it takes all
        methods = getattr(route, "methods", None)
        more = {"methods": sorted(methods) if methods else ["*"], "pattern": route.path_regex.pattern}
        records.note("route", path=route.path, **more)
    application = Recorder(server, records)
    print("built", flush=True)
    # Not `fd=`: uvicorn takes that for a unix socket, and leaves Nagle's algorithm on, which costs 40 ms.
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="on"))
    server.run(sockets=[socket.socket(fileno=descriptor)])
    del operators


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251 -- a process of the tests
    main(int(sys.argv[1]), sys.argv[2])
