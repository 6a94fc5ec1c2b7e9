"""Requests to the front door as the guard has read their heads, and the stages that read and write them."""

from __future__ import annotations

from gateway.front_door.matching import match
from gateway.front_door.reading import read
from gateway.front_door.table import load_table
from gateway.model.access import WireRequest

TABLE = load_table("1.8.3")


def wire(method="POST", path="/infer/classification", query="", headers=()):
    """A request; its headers are pairs of bytes, or of texts."""
    pairs = [(name, value) if isinstance(name, bytes) else _in_bytes(name, value) for name, value in headers]
    return WireRequest(
        method=method,
        raw_path=path if isinstance(path, bytes) else path.encode(),
        query=query if isinstance(query, bytes) else query.encode(),
        headers=tuple(pairs),
        client="127.0.0.1",
        route="",
        trace_id=None,
        received_at=0.0,
    )


def _in_bytes(name, value):
    return name.lower().encode(), value.encode("latin-1")


def inquire(request, body=None, table=TABLE):
    """What a request asks for. Raises `Refusal`."""
    return read(table, match(table, request.method, request.raw_path), request, body)
