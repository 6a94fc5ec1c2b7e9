"""Builds the ASGI app around the pipeline, and what answers at once.

`admin/worker.py` adds the administration, and is what a worker process runs. The pipeline itself is built in
`pipeline.py`.
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
from gateway.assembly.feed_routes import FeedRoutes
from gateway.assembly.front_door import front_door_routes
from gateway.assembly.hook_routes import hook_routes
from gateway.assembly.pipeline import Pipeline, soon
from gateway.assembly.question_routes import question_routes
from gateway.assembly.token_routes import token_routes
from gateway.assembly.usage_routes import usage_routes
from gateway.configuration.settings import Settings
from gateway.credential.client import parse_trusted_networks
from gateway.delivery.file_answer import Means
from gateway.faces import audit, check, content, identity
from gateway.faces.route import declarations
from gateway.middleware.at_once import SynchronousCore
from gateway.middleware.guard import ChokePoint
from gateway.middleware.health import HEALTH_PATH, HealthMiddleware
from gateway.middleware.routes import UNROUTED
from gateway.model.access import WireRequest
from gateway.model.errors import Unavailable
from gateway.model.verdicts import Rejection
from gateway.resource.proxied_paths import ProxiedPaths
from gateway.telemetry import configure_logs

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.faces.route import FaceRoute
    from gateway.middleware.routes import Declared
    from gateway.model.routes import PublicRoute
    from gateway.model.verdicts import Declined, Receipt
    from gateway.server.early_refusal import EarlyRefusal


class Worker:
    """The pipeline of one worker, with HTTP in front of it."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.pipeline = Pipeline(settings, redis_url)
        means = Means(accel_prefix=settings.accel_redirect_prefix, on_hashed=self.pipeline.pins.attest)
        self._endpoints = [
            *content.routes(means),
            *identity.routes(),
            *engine_routes(self.pipeline, means),
            *check.routes(self._checks(settings)),
        ]
        self._endpoints += audit.routes(audit.AuditFace(settings.audit_folder, self.pipeline.clock))
        self.feed = FeedRoutes(self.pipeline)
        self._endpoints += self.feed.face.routes()
        self._endpoints += usage_routes(self.pipeline)
        of_tokens, public = token_routes(self.pipeline)
        of_questions, about_questions = question_routes(self.pipeline)
        self._endpoints += [*of_tokens, *of_questions]
        self._forwarded = front_door_routes(self.pipeline)
        self._routes: list[Declared] = [
            *declarations(self._endpoints),
            *public,
            *about_questions,
            *hook_routes(self.pipeline),
            *declarations(self._forwarded),  # last: at the root it matches every path
        ]
        self._trusted_proxies = parse_trusted_networks(settings.trusted_proxies)

    def add(self, endpoints: Sequence[FaceRoute], public: Sequence[PublicRoute]) -> None:
        """Add routes to the public application, before it is made."""
        self._endpoints += endpoints
        own = len(self._routes) - len(self._forwarded)
        self._routes[own:own] = [*declarations(endpoints), *public]

    def _checks(self, settings: Settings) -> check.Checks:
        """What the check face decides about: paths of the routes of this very worker."""
        return check.Checks(
            checkable=check.checkable_routes(has_links=self.pipeline.links is not None),
            is_answered=lambda raw_path: any(route.matches(raw_path) for route in self._routes),
            paths=ProxiedPaths(settings.check_prefixes),
        )

    def app(self) -> Starlette:
        """The ASGI app: the guard in front of every route."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            async with self.pipeline.running():
                yield

        in_front = [Middleware(HealthMiddleware)] if self.pipeline.links is not None else []
        return Starlette(
            routes=[*self._forwarded, *self._endpoints],  # each only takes what was admitted for it
            middleware=[*in_front, self._guard(self._routes)],
            lifespan=lifespan,
        )

    def app_of(self, endpoints: Sequence[FaceRoute], public: Sequence[PublicRoute]) -> Starlette:
        """A further app over the same pipeline, for a listener of its own: these routes and no others."""
        return Starlette(routes=endpoints, middleware=[self._guard([*declarations(endpoints), *public])])

    def _guard(self, routes: Sequence[Declared]) -> Middleware:
        return Middleware(
            ChokePoint,
            guard=self.pipeline.guard,
            routes=routes,
            clock=self.pipeline.clock,
            telemetry=self.pipeline.telemetry,
            transfers=self.pipeline.transfers,
            trusted_proxies=self._trusted_proxies,
        )

    def at_once(self) -> SynchronousCore:
        """What answers without waiting."""
        return SynchronousCore(
            guard=self.pipeline.guard,
            routes=self._routes,
            clock=self.pipeline.clock,
            seconds=self.pipeline.clock.monotonic,
            soon=soon,
            telemetry=self.pipeline.telemetry,
            transfers=self.pipeline.transfers,
            trusted_proxies=self._trusted_proxies,
            unguarded=frozenset({HEALTH_PATH}),
        )

    def refused_early(self, refusal: EarlyRefusal, client: str, answer: Callable[[str | None], None]) -> None:
        """Record what the HTTP server itself refused, as from an anonymous caller; then have it answered.

        `answer` gets the id of the record, or None if there is none.
        """
        self.pipeline.telemetry.refused_by_server(refusal.reason)
        request = WireRequest(
            method="-",
            raw_path=b"",
            query=b"",
            headers=(),
            client=client,
            route=UNROUTED,
            trace_id=None,
            received_at=self.pipeline.clock.now(),
        )
        rejection = Rejection(request=request, reason=refusal.reason)
        try:
            recorded = self.pipeline.guard.record_all([rejection])
        except Unavailable as failure:
            self.pipeline.telemetry.failed(failure)
            answer(None)
            return
        if isinstance(recorded, list):
            answer(recorded[0].record_id)
            return

        def answer_recorded(recording: Future[list[Receipt | Declined]]) -> None:
            failure = recording.exception()
            if isinstance(failure, Unavailable):
                self.pipeline.telemetry.failed(failure)
            answer(None if failure else recording.result()[0].record_id)

        recorded.add_done_callback(answer_recorded)


def worker_argument(settings: Settings, redis_url: str) -> Any:
    """The argument of a worker process, in JSON's types: it is sent to another process."""
    return msgspec.to_builtins((settings, redis_url), enc_hook=str)  # the only other type is Path


def parse_argument(argument: Any) -> tuple[Settings, str]:
    """The settings and the URL of the Redis server, in the worker process; its logs are set up."""
    configure_logs(is_terminal=sys.stderr.isatty())
    return msgspec.convert(argument, tuple[Settings, str], dec_hook=_path)


def _path(kind: type, text: str) -> Path:
    if kind is not Path:
        raise TypeError(f"settings hold no {kind.__name__}")
    return Path(text)
