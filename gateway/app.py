"""The composition root: Settings -> objects -> an ASGI app. The only place that builds things.

`worker_app` is what a worker process runs. What a command works with is built in `office.py`, of the
same rooms and from the same settings.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from gateway.adapters.clock import SystemClock
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_feed import RedisFeed
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_url import RedisLimits, parse_redis_url
from gateway.audit.log import AuditLog
from gateway.audit.terms import Limits
from gateway.canary import Canary
from gateway.credential.client import parse_trusted_networks
from gateway.decision.rulebook import Rulebook
from gateway.decisions import Decisions
from gateway.directory.follower import Follower
from gateway.directory.lease import Lease
from gateway.directory.names import FACTS
from gateway.directory.near_cache import NearCache
from gateway.directory.near_facts import NearFacts
from gateway.directory.reader import DirectoryReader
from gateway.faces import content, identity
from gateway.faces.route import declarations
from gateway.guard import Guard
from gateway.holdings import Holdings
from gateway.identity.authenticate import Authenticator
from gateway.identity.last_uses import LastUses
from gateway.identity.pepper import load_peppers
from gateway.middleware.guard import UNROUTED, GuardMiddleware
from gateway.model.access import WireRequest
from gateway.model.errors import Unavailable
from gateway.model.verdicts import Rejection
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.server.worker import WorkerApp
from gateway.signing import load_signing_key
from gateway.telemetry import Telemetry, configure_logs, freshness_counters
from gateway.transfers import Transfers
from gateway.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.model.ports import Clock
    from gateway.server.early_refusal import EarlyRefusal
    from gateway.settings import Settings

RENEWALS_PER_LEASE = 0.3  # a lease of 1 s is renewed every 300 ms: two renewals may be lost


def build_recorder(settings: Settings, clock: Clock) -> AuditLog:
    """This process's audit log."""
    return AuditLog(
        folder=settings.audit_folder,
        node=settings.node,
        signing_key=load_signing_key(settings.signing_key_file),
        clock=clock,
        durability=settings.audit_durability,
        limits=Limits(nobody_per_source=settings.audit_refusals_per_second),
    )


def build_catalogue(settings: Settings, clock: Clock) -> DiskCatalogue:
    """What is on disk."""
    return DiskCatalogue(CatalogueSettings(root=settings.cache_root, alias_roots=settings.alias_roots), clock)


class Worker:
    """One worker's rooms, its app, and what it does beside requests."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.telemetry = Telemetry()
        self.store = RedisStore(redis_url)
        self.name = f"{settings.node}:{os.getpid()}:{secrets.token_hex(4)}"
        self.facts, self.follower, self.feed = self._follow(redis_url)
        self.directory = DirectoryReader(self.store, self.facts, on_unreadable=self.telemetry.unreadable)
        self.catalogue = build_catalogue(settings, self.clock)
        self.recorder = build_recorder(settings, self.clock)
        last_uses = LastUses()
        self.decisions = Decisions(
            directory=self.directory,
            rules=Rulebook(),
            max_entries=settings.near_cache_entries,
            max_bytes=settings.near_cache_megabytes << 20,
        )
        authenticator = Authenticator(self.directory, load_peppers(settings.pepper_folder))
        self.transfers = Transfers(identity=authenticator, directory=self.directory, clock=self.clock)
        self.guard = Guard(
            identity=last_uses.noting(authenticator),
            directory=self.directory,
            decisions=self.decisions,
            holdings=Holdings(directory=self.directory, decisions=self.decisions, catalogue=self.catalogue),
            recorder=self.recorder,
        )
        self.upkeep = self._keep(last_uses)

    def _keep(self, last_uses: LastUses) -> Upkeep:
        """What this worker does beside requests."""
        settings = self.settings
        canary = Canary(
            store=self.store,
            worker=self.name,
            seconds=settings.canary_seconds,
            lease_seconds=settings.lease_milliseconds / 1000,
            clock=self.clock,
            on_lag=self.telemetry.canary_measured,
            on_failure=self.telemetry.failed,
        )
        return Upkeep(
            worker=self.name,
            clock=self.clock,
            store=self.store,
            facts=self.facts,
            follower=self.follower,
            feed=self.feed,
            directory=self.directory,
            catalogue=self.catalogue,
            recorder=self.recorder,
            transfers=self.transfers,
            last_uses=last_uses,
            canary=canary if settings.canary_seconds else None,
            scan_seconds=settings.scan_seconds,
            telemetry=self.telemetry,
        )

    def _follow(self, redis_url: str) -> tuple[NearFacts, Follower, RedisFeed]:
        """What this worker remembers, and how it hears of changes."""
        settings = self.settings
        cache = NearCache(
            max_entries=settings.near_cache_entries, max_bytes=settings.near_cache_megabytes << 20
        )
        lease = Lease(settings.lease_milliseconds / 1000)
        facts = NearFacts(self.store, cache, lease, self.clock)
        feed = RedisFeed(
            parse_redis_url(redis_url),
            RedisLimits(),
            worker=self.name,
            prefix=FACTS,
            renew_seconds=lease.seconds * RENEWALS_PER_LEASE,
            clock=self.clock,
        )
        return facts, Follower(facts, lease, HistoryFile(settings.history_file)), feed

    def app(self) -> Starlette:
        """The ASGI app: the guard in front of every route."""
        routes = [*content.routes(), *identity.routes()]

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            async with self.running():
                yield

        guard = Middleware(
            GuardMiddleware,
            guard=self.guard,
            routes=declarations(routes),
            clock=self.clock,
            telemetry=self.telemetry,
            transfers=self.transfers,
            trusted_proxies=parse_trusted_networks(self.settings.trusted_proxies),
        )
        return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Look after everything while requests are served; close all after."""
        return self.upkeep.running()

    def report(self) -> dict[str, Any]:
        """Readiness, check by check, and the counters: what the parent asks for. Waits for nothing."""
        ready = {
            "lease": self.facts.is_leased(),
            "history": self.follower.is_history_known,
            "policy": self.upkeep.has_policy,
            "audit": self.recorder.is_healthy(),
            "chores": self.upkeep.is_whole,
            "cache": self.catalogue.state().survey.is_readable,
        }
        counters = {
            **self.telemetry.values(),
            **freshness_counters(self.facts, self.decisions),
            "cachegate_feed_reconnects_total": self.feed.reconnects,
        }
        gauges = {**self.telemetry.gauges, "cachegate_transfers_under_way": len(self.transfers)}
        return {"ready": ready, "counters": counters, "gauges": gauges}

    def refused_early(self, refusal: EarlyRefusal, client: str) -> None:
        """Record what the HTTP server refused before it was a request: a refusal of nobody."""
        self.telemetry.refused_by_server(refusal.reason)
        request = WireRequest(
            method="-",
            raw_path=b"",
            query=b"",
            headers=(),
            client=client,
            route=UNROUTED,
            trace_id=None,
            received_at=self.clock.now(),
        )
        try:
            self.guard.decline(Rejection(request=request, reason=refusal.reason))
        except Unavailable as failure:
            self.telemetry.failed(failure)


def worker_app(argument: tuple[Settings, str]) -> WorkerApp:
    """What a worker process runs: called in it with the settings and the URL of the fact server."""
    configure_logs(is_terminal=sys.stderr.isatty())
    worker = Worker(*argument)
    return WorkerApp(app=worker.app(), report=worker.report, on_refused=worker.refused_early)
