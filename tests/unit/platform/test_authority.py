"""How the authority handles failures; everything else is tested over sockets, in `tests/platform`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.model.errors import Conflict, Unavailable
from gateway.model.names import KeyId, ModelId
from gateway.model.stamps import Leaf
from gateway.platform import authority
from gateway.platform.authority import Authority


def test_links_are_not_handed_out_while_the_record_of_their_key_does_not_parse(monkeypatch):
    async def read(wanted):
        return 1, [Leaf(name, None) for name in wanted]

    async def run_change(_store, _operation):
        raise Conflict("the record does not parse")

    monkeypatch.setattr(authority, "run_change", run_change)
    parts = dict.fromkeys(("platform", "store", "forget", "perform", "questions", "unknown_keys", "peppers"))
    asking = Authority(
        **parts,
        source=SimpleNamespace(read=read),
        clock=SimpleNamespace(now=lambda: 1.0),
        actor="worker:n",
        allow_seconds=60,
        deny_seconds=10,
    )
    with pytest.raises(Unavailable):
        asyncio.run(asking.note_links(KeyId("key_000000000001"), ModelId("acme/cars/1"), 100.0))
