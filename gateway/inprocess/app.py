"""`Cachegate`: the guard of a process whose ASGI app is somebody else's.

    app.add_middleware(GuardMiddleware, process=Cachegate(), routes=[...])

It reads the same settings as the gateway, when it starts and not when it is made: so a module may be
imported where there are none, and a server may fork after it has imported the app. Each process is a worker
of the fleet. The middleware starts it with the app. Where the app is mounted in another one and gets no
messages of the server, the outer app's lifespan does:

    async def lifespan(app):
        async with cachegate.running():
            yield

For the operator's own processes only: they hold the pepper and reach Redis.
"""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from gateway.configuration.sources import load_settings
from gateway.credential.client import parse_trusted_networks
from gateway.delivery.file_answer import Means
from gateway.middleware.in_app.running import Running
from gateway.operations.own_pipeline import own_pipeline
from gateway.telemetry import configure_logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.assembly.pipeline import Pipeline
    from gateway.configuration.settings import Settings


class Cachegate:
    """The guard of this process. One is enough for all apps of a process."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Without settings, those of file and environment are read at the start."""
        self._settings = settings
        self._pipeline: Pipeline | None = None
        self._running: Running | None = None
        self._process_id = 0
        self._users = 0

    @property
    def now_running(self) -> Running | None:
        """The guard, while it runs in this very process; a forked child has the objects and not the tasks."""
        return self._running if self._process_id == os.getpid() else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the guard. Raises `Misconfigured` or `Unavailable`, as `cachegate serve` does.

        Within another context of the same object it only joins: the outermost one starts and ends the guard.
        """
        if self._users:
            self._users += 1
            try:
                yield
            finally:
                self._users -= 1
            return
        settings = self._settings or load_settings()
        if not structlog.is_configured():  # its default prints local variables, and a key is one (I8)
            configure_logs(is_terminal=sys.stderr.isatty())
        async with own_pipeline(settings) as pipeline:
            self._begin(pipeline, settings)
            try:
                yield
            finally:
                self._users, self._running, self._pipeline = 0, None, None

    def readiness(self) -> dict[str, bool]:
        """Each check of readiness by its name; none while the guard does not run. For the app's own probe."""
        if self._pipeline is None or self.now_running is None:
            return {"running": False}
        ready = self._pipeline.report()["ready"]
        return {"running": True, **{name: bool(is_ready) for name, is_ready in ready.items()}}

    def _begin(self, pipeline: Pipeline, settings: Settings) -> None:
        self._users, self._process_id, self._pipeline = 1, os.getpid(), pipeline
        self._running = Running(
            guard=pipeline.guard,
            clock=pipeline.clock,
            telemetry=pipeline.telemetry,
            transfers=pipeline.transfers,
            trusted_proxies=parse_trusted_networks(settings.trusted_proxies),
            means=Means(on_hashed=pipeline.pins.attest),
        )
