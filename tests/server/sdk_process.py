"""The unmodified SDK, told what to call. Runs in `.venv-server`; orders and answers are lines of JSON.

    {"url": "...", "key": "...", "transport": "legacy", "version": "v1", "method": "infer",
     "arguments": {...}}
        -> {"ok": true, "result": ...}
        -> {"ok": false, "error": "HTTPCallErrorError", "status": 404, "message": "..."}

A client is made anew for each order. A method that gives an awaitable is awaited. Without a transport, the
SDK chooses.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import socket
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from client import _connect_to_loopback_only


def plain(value):
    """Results as JSON has them."""
    if dataclasses.is_dataclass(value):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def call(order):
    """Make the client, call the method."""
    from inference_sdk import InferenceConfiguration, InferenceHTTPClient  # noqa: PLC0415 -- the network is off

    client = InferenceHTTPClient(api_url=order["url"], api_key=order["key"])
    if order["transport"] is not None:
        client.configure(InferenceConfiguration(api_key_transport=order["transport"]))
    if order["version"] == "v0":
        client.select_api_v0()
    result = getattr(client, order["method"])(**order["arguments"])
    return plain(asyncio.run(result) if inspect.iscoroutine(result) else result)


def answer(order):
    """What the call came to."""
    try:
        return {"ok": True, "result": call(order)}
    except Exception as error:  # noqa: BLE001 -- which one it is, is what the tests ask
        status, message = (getattr(error, name, None) for name in ("status_code", "api_message"))
        return {
            "ok": False,
            "error": type(error).__name__,
            "status": status,
            "message": message or str(error),
        }


if __name__ == "__main__":
    socket.socket.connect = _connect_to_loopback_only
    answers = sys.stdout
    sys.stdout = sys.stderr  # the SDK may print
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line)), default=repr), file=answers, flush=True)
