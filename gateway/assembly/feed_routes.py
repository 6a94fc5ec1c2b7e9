"""Builds the feed of the audit log of one worker, with its routes, and tells the fleet where it is."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from gateway.assembly.node_register import ANNOUNCE_SECONDS, NodeRegister
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.index import IndexReader
from gateway.audit.readings import Readings
from gateway.faces.audit_events import EventsFace
from gateway.feed.events import EventFeed
from gateway.feed.kept_consumers import REFRESH_SECONDS, KeptConsumers
from gateway.feed.sealed_cursors import CursorSeal
from gateway.identity.secret_file import create_secret, load_secret
from gateway.model.errors import Conflict, Misconfigured, Reason, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.assembly.pipeline import Pipeline


class FeedRoutes:
    """The feed, and the face that answers with it."""

    def __init__(self, pipeline: Pipeline) -> None:
        settings = pipeline.settings
        self._nodes = NodeRegister(pipeline.store, pipeline.clock, node=settings.node, url=settings.node_url)
        self._consumers = KeptConsumers(
            settings.audit_folder,
            ConsumerRegistry(settings.audit_folder),
            IndexReader(settings.audit_folder, settings.node),
            pipeline.clock,
            pipeline.telemetry.failed,
        )
        self._feed = EventFeed(
            partial(IndexReader, settings.audit_folder, settings.node),
            partial(load_seal, settings.feed_key_file),
            pipeline.clock,
            consumers=self._consumers,
            on_failure=pipeline.telemetry.failed,
        )
        self.face = EventsFace(self._feed, Readings(), pipeline.clock, self._nodes.listed)
        pipeline.more_gauges = self._feed.gauges
        pipeline.upkeep.more_chores += (
            ("feed-node", self._announce),
            ("feed-consumers", self._refresh_consumers),
        )

    def close(self) -> None:
        """Have streams end: the worker stops."""
        self._feed.close()

    async def _announce(self) -> None:
        while True:
            await self._nodes.announce()
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def _refresh_consumers(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._feed.in_thread(self._consumers.refresh)


def load_seal(path: Path) -> CursorSeal:
    """The seal of this node's cursors; its key is made by the first that needs it. Raises `Unavailable`."""
    try:
        if path.exists():
            return CursorSeal(load_secret(path))
        try:
            return CursorSeal(create_secret(path))
        except Conflict:  # another worker made it just now
            return CursorSeal(load_secret(path))
    except Misconfigured as error:
        raise Unavailable("audit", str(error), Reason.NO_AUDIT) from error
