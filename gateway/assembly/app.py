"""The pipeline behind HTTP: the ASGI app, the answers from memory, and what a worker process runs.

`worker_app` is called in the worker process. What decides is built in `rooms.py`.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway.assembly.engine_faces import engine_routes
from gateway.assembly.hook_routes import hook_routes
from gateway.assembly.rooms import Rooms, soon
from gateway.configuration.settings import Settings
from gateway.credential.client import parse_trusted_networks
from gateway.delivery.file import Means
from gateway.faces import content, identity
from gateway.faces.route import declarations
from gateway.middleware.guard import GuardMiddleware
from gateway.middleware.health import Health
from gateway.middleware.immediate import ImmediateAnswers
from gateway.middleware.routes import UNROUTED
from gateway.model.access import WireRequest
from gateway.model.errors import Unavailable
from gateway.model.verdicts import Rejection
from gateway.server.worker import WorkerApp
from gateway.telemetry import configure_logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.server.early_refusal import EarlyRefusal


class Worker:
    """One worker's rooms, and HTTP in front of them."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.rooms = Rooms(settings, redis_url)

    def app(self) -> Starlette:
        """The ASGI app: the guard in front of every route."""
        means = Means(
            accel_prefix=self.rooms.settings.accel_redirect_prefix, on_hashed=self.rooms.pins.attest
        )
        routes = [*content.routes(means), *identity.routes()]
        routes += engine_routes(self.rooms, means)

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            async with self.rooms.running():
                yield

        guard = Middleware(
            GuardMiddleware,
            guard=self.rooms.guard,
            routes=[*declarations(routes), *hook_routes(self.rooms)],
            clock=self.rooms.clock,
            telemetry=self.rooms.telemetry,
            transfers=self.rooms.transfers,
            trusted_proxies=parse_trusted_networks(self.rooms.settings.trusted_proxies),
        )
        in_front = [Middleware(Health)] if self.rooms.links is not None else []
        return Starlette(routes=routes, middleware=[*in_front, guard], lifespan=lifespan)

    def immediate(self) -> ImmediateAnswers | None:
        """What is answered without the app; nothing where small files, too, are for a proxy to send."""
        if self.rooms.settings.accel_redirect_prefix is not None:
            return None
        immediate = ImmediateAnswers(
            guard=self.rooms.guard,
            routes=declarations(content.routes()),
            clock=self.rooms.clock,
            seconds=self.rooms.clock.monotonic,
            soon=soon,
            max_bytes=self.rooms.settings.held_files_megabytes << 20,
            telemetry=self.rooms.telemetry,
            trusted_proxies=parse_trusted_networks(self.rooms.settings.trusted_proxies),
        )
        self.rooms.sweep(*immediate.memories)
        return immediate

    def refused_early(self, refusal: EarlyRefusal, client: str) -> str | None:
        """Record what the HTTP server refused before it was a request: a refusal of nobody."""
        self.rooms.telemetry.refused_by_server(refusal.reason)
        request = WireRequest(
            method="-",
            raw_path=b"",
            query=b"",
            headers=(),
            client=client,
            route=UNROUTED,
            trace_id=None,
            received_at=self.rooms.clock.now(),
        )
        try:
            return self.rooms.guard.decline(Rejection(request=request, reason=refusal.reason)).record_id
        except Unavailable as failure:
            self.rooms.telemetry.failed(failure)
            return None


def worker_argument(settings: Settings, redis_url: str) -> Any:
    """What `worker_app` is to be called with, in JSON's own types: it crosses to another process."""
    return msgspec.to_builtins((settings, redis_url), enc_hook=str)  # all that is no such type is a path


def worker_app(argument: Any) -> WorkerApp:
    """What a worker process runs: called in it with the settings and the URL of the fact server."""
    configure_logs(is_terminal=sys.stderr.isatty())
    settings, redis_url = msgspec.convert(argument, tuple[Settings, str], dec_hook=_path)
    worker = Worker(settings, redis_url)
    return WorkerApp(
        app=worker.app(),
        report=worker.rooms.report,
        on_refused=worker.refused_early,
        at_once=worker.immediate(),
    )


def _path(kind: type, text: str) -> Path:
    if kind is not Path:
        raise TypeError(f"settings hold no {kind.__name__}")
    return Path(text)
