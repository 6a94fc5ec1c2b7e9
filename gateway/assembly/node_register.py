"""Tells the fleet where this node serves its part of the audit log, and lists where the others do.

    {cachegate}:nodes     a hash, by node: {"url": ..., "seen_at": ...}

It is information, as last uses are, and no fact: nothing is decided by it, and whoever follows the log
decides itself what addresses it sends its key to. An entry stays when its node stops, so that a follower goes
on asking for it, and is no longer listed once its node has not been heard of for a week, and removed after
four. `seen_at` is by the node's own clock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.timeline import time_text
from gateway.faces.audit_events import FeedNode
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from gateway.adapters.redis_store import RedisStore
    from gateway.model.clocks import Clock

NODES = b"{cachegate}:nodes"
ANNOUNCE_SECONDS = 60.0
LISTED_SECONDS = 7 * 86_400.0
KEPT_SECONDS = 28 * 86_400.0  # then an entry is removed: nodes whose names are random would fill Redis
MOST_NODES = 1000
SILENT_SECONDS = 30.0  # a worker that has not renewed for so long answers nobody


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None
    seen_at: float = 0.0


class NodeRegister:
    """The nodes of a fleet."""

    def __init__(self, store: RedisStore, clock: Clock, *, node: str, url: str | None) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._url = url

    async def announce(self) -> None:
        """Say that this node is there, and where; remove what was not heard of for long."""
        now, this = self._clock.now(), self._node.encode()
        told = {this: msgspec.json.encode(_Entry(url=self._url, seen_at=now))}
        for name, raw in (await self._store.hash_entries(NODES)).items():
            entry = _parse(raw)
            if name != this and entry is not None and now - entry.seen_at > KEPT_SECONDS:
                told[name] = b""
        await self._store.put_hash(NODES, told)

    async def listed(self) -> list[FeedNode]:
        """The nodes that were heard of within a week, by name; this one always."""
        now = self._clock.now()
        entries = {self._node: _Entry(url=self._url, seen_at=now)}
        for name, raw in (await self._store.hash_entries(NODES)).items():
            node = name.decode("utf-8", "replace")
            entry = _parse(raw)
            if entry is None or node == self._node or len(entries) >= MOST_NODES:
                continue
            if abs(now - entry.seen_at) < LISTED_SECONDS:  # and no time that no clock has
                entries[node] = entry
        fleet = await self._store.look(Moment())
        # A worker's name is `<node>:<process>:<random>`.
        workers = Counter(
            one.worker.rsplit(":", 2)[0] for one in fleet.workers if one.silence(fleet.stamp) < SILENT_SECONDS
        )
        return [
            FeedNode(
                node=node,
                url=entry.url,
                is_this=node == self._node,
                seen_at=time_text(entry.seen_at),
                workers=workers[node],
            )
            for node, entry in sorted(entries.items())
        ]


def _parse(raw: bytes) -> _Entry | None:
    """An entry; None for what is none."""
    try:
        return msgspec.json.decode(raw, type=_Entry)
    except msgspec.DecodeError:
        return None
