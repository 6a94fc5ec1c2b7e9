"""Builds the pipeline of one process from the settings: everything that decides and records.

`Pipeline` also contains what runs beside requests. Others put an interface in front of it: `app.py` HTTP,
`inprocess/` an engine in the same process. What workers and commands have in common is in `components.py`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.adapters.clock import SystemClock
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.measurement_file import MeasurementFile
from gateway.adapters.redis_feed import RedisFeed
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_url import RedisLimits, parse_redis_url
from gateway.assembly.audit_consumers import AuditConsumers
from gateway.assembly.audit_indexing import AuditIndexing
from gateway.assembly.audit_keeping import AuditKeeping
from gateway.assembly.canary import Canary
from gateway.assembly.components import (
    build_attestations,
    build_authority,
    build_catalogue,
    build_ledger,
    build_links,
    build_outside_issuers,
    build_provider,
    build_registrar,
    build_tokens,
)
from gateway.assembly.credential_marks import marker
from gateway.assembly.key_watch import KeyWatch
from gateway.assembly.stamp_watch import StampWatch
from gateway.assembly.token_keys import TokenKeyWatch, report_no_tokens
from gateway.assembly.upkeep import Upkeep
from gateway.audit.gap import Gap
from gateway.authorized_files import AuthorizedFiles
from gateway.decision.rulebook import Rulebook
from gateway.decisions import Decisions
from gateway.delivery.file_answer import describe_whole
from gateway.directory.memory.follower import Follower
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.pins import NearPins
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records.names import FACTS
from gateway.guard import Guard
from gateway.identity.any_credential import AnyAuthenticator
from gateway.identity.authenticate import Authenticator
from gateway.identity.authenticate_link import LinkAuthenticator
from gateway.identity.authenticate_token import TokenAuthenticator
from gateway.identity.key_networks import KeyNetworks
from gateway.identity.keys_by_id import KeysById
from gateway.identity.last_uses import LastUses
from gateway.identity.links import load_link_keys
from gateway.identity.outside_tokens import OutsideTokens
from gateway.identity.pepper import load_peppers
from gateway.identity.subjects import Subjects
from gateway.model.errors import Unavailable
from gateway.model.stores import GroupSize
from gateway.model.verdicts import Change
from gateway.pinning.ahead import PinningAhead
from gateway.pinning.checks import PinChecks
from gateway.pinning.measuring import Measurer
from gateway.questions import Questions
from gateway.resource.held_files import HeldFiles
from gateway.resource.held_listings import HeldListings
from gateway.telemetry import (
    Telemetry,
    freshness_counters,
    issuer_counters,
    unknown_key_counters,
    upstream_counters,
)
from gateway.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from gateway.configuration.settings import Settings
    from gateway.directory.edits.changes import Changes
    from gateway.model.bounded_memory import BoundedMemory

HELD_LISTINGS_BYTES = 16 << 20  # some 3,000 listings of packages with four files
RENEWALS_PER_LEASE = 0.3  # a lease of 1 s is renewed every 300 ms: two renewals may be lost


class Pipeline:
    """The pipeline of one process, and what runs beside its requests."""

    def __init__(self, settings: Settings, redis_url: str, *, keeps_audit: bool = True) -> None:
        self.settings = settings
        self._keeps_audit = keeps_audit
        self.more_gauges: Callable[[], dict[str, float]] = dict  # of what others build around it
        self.clock = SystemClock()
        self.telemetry = Telemetry()
        self.history = HistoryFile(settings.history_file)
        self.store = RedisStore(redis_url, history=self.history)
        self.name = f"{settings.node}:{os.getpid()}:{secrets.token_hex(4)}"
        self.facts, self.follower, self.feed = self._follow(redis_url)
        self.directory = DirectoryReader(
            self.store, self.facts, on_unreadable=self.telemetry.unreadable, clock=self.clock
        )
        self.catalogue = build_catalogue(settings, self.clock)
        self.registrar = build_registrar(settings, self.store, self.clock, self._audit_is_behind)
        self.recorder = self.registrar.recorder
        peppers = load_peppers(settings.pepper_folder)
        networks = KeyNetworks()
        last_uses = LastUses(marker(peppers), networks)
        rules = Rulebook()
        self.decisions = Decisions(
            directory=self.directory,
            rules=rules,
            max_entries=settings.near_cache_entries,
            max_bytes=settings.near_cache_megabytes << 20,
        )
        self.authenticator = authenticator = Authenticator(self.directory, peppers, self.telemetry.decoy_used)
        self.provider = build_provider(settings, self.clock)
        self.authority = build_authority(
            settings, self.provider, self.store, self.facts, self.registrar, peppers, self.clock, self.name
        )
        self.ledger = build_ledger(self.registrar, self.clock, self.telemetry, actor=f"worker:{self.name}")
        self.measurer = Measurer(MeasurementFile(settings.pins_folder))
        self.pins = PinChecks(
            reader=NearPins(self.facts, on_unreadable=self.telemetry.unreadable),
            ledger=self.ledger,
            measurer=self.measurer,
            on_failure=self.telemetry.failed,
        )
        # Without a public URL no link is handed out that could come back.
        self.link_keys = load_link_keys(settings.link_key_file) if settings.public_url else None
        self.links = build_links(settings, self.link_keys, self.clock)
        self.attestations = build_attestations(
            settings, self.facts, self.directory, self.catalogue, self.registrar, self.clock
        )
        self.held_listings = HeldListings(
            root=settings.cache_root, clock=self.clock, max_bytes=HELD_LISTINGS_BYTES
        )
        by_id = KeysById(self.directory)
        self.tokens = build_tokens(settings)
        self.token_authenticator = TokenAuthenticator(authenticator, by_id, self.tokens)
        links = LinkAuthenticator(authenticator, by_id, self.link_keys, self.token_authenticator)
        self.outside_issuers = build_outside_issuers(
            settings, self.store, self.facts, self.registrar, self.clock, self.name, self.telemetry
        )
        outside = OutsideTokens(authenticator, self.directory, self.outside_issuers, self.clock)
        identity = AnyAuthenticator(authenticator, links, self.token_authenticator, outside)
        self.transfers = Transfers(
            identity=identity,
            directory=self.directory,
            clock=self.clock,
            stall_seconds=settings.stall_seconds,
        )
        self.guard = Guard(
            identity=last_uses.noting(identity),
            directory=self.directory,
            decisions=self.decisions,
            authorized_files=AuthorizedFiles(
                directory=self.directory,
                decisions=self.decisions,
                catalogue=self.catalogue,
                pins=self.pins,
                views_bytes=settings.near_cache_megabytes << 20,
                held_files=HeldFiles(
                    root=settings.cache_root,
                    catalogue=self.catalogue,
                    clock=self.clock,
                    describe=describe_whole,
                    max_bytes=settings.held_files_megabytes << 20,
                ),
                held_listings=self.held_listings,
                attestations=self.attestations,
            ),
            recorder=self.recorder,
            authority=self.authority,
        )
        self.questions = Questions(
            subjects=Subjects(self.directory, authenticator, by_id, self.clock),
            decisions=self.decisions,
            authorized_files=self.guard.authorized_files,
            is_platform_asked=self.authority is not None,
        )
        self.upkeep = self._keep(redis_url, last_uses, self._watch_keys(networks))
        self.sweep(
            *self.decisions.memories,
            rules.memory,
            *identity.memories,
            *self.guard.authorized_files.memories,
            *([] if self.attestations is None else [self.attestations.memory]),
            *([] if self.authority is None else [self.authority.unknown_keys.memory]),
        )

    def sweep(self, *memories: BoundedMemory[Any, Any]) -> None:
        """Add memories to the regular sweep, which drops what is no longer current."""
        self.upkeep.memories += memories

    def _watch_keys(self, networks: KeyNetworks) -> KeyWatch:
        return KeyWatch(
            store=self.store,
            listing=Listing(PlainFacts(self.store), on_unreadable=self.telemetry.unreadable),
            networks=networks,
            recorder=self.recorder,
            telemetry=self.telemetry,
            clock=self.clock,
            worker=self.name,
        )

    def _keep(self, redis_url: str, last_uses: LastUses, key_watch: KeyWatch) -> Upkeep:
        """Build what this worker runs beside requests."""
        settings, token_keys = self.settings, self._watch_token_keys()
        keeping = AuditKeeping(settings, self.telemetry.audit_kept, self.telemetry.failed)
        consumers = AuditConsumers(
            settings,
            redis_url,
            lambda report: self.telemetry.consumers_reported(report.consumers, report.damaged),
            self.telemetry.failed,
        )
        indexing = AuditIndexing(settings, self.telemetry.index_lags, self.telemetry.failed)
        keepings: list[AuditKeeping | AuditConsumers | AuditIndexing] = (
            [keeping, consumers, indexing] if self._keeps_audit else []
        )
        keeping_chores = zip(("audit-keeping", "audit-consumers", "audit-index"), keepings, strict=False)
        ahead = PinningAhead(
            root=settings.cache_root,
            lock_file=settings.pins_folder / "ahead.lock",
            measurer=self.measurer,
            ledger=self.ledger,
            clock=self.clock,
            on_failure=self.telemetry.failed,
            on_items_failed=partial(self.telemetry.items_failed, "pin-ahead"),
        )
        canary = Canary(
            store=self.store,
            worker=self.name,
            seconds=settings.canary_seconds,
            lease_seconds=settings.lease_milliseconds / 1000,
            clock=self.clock,
            on_lag=self.telemetry.canary_measured,
            on_failure=self.telemetry.failed,
            is_settled=settings.redis_url is None,
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
            pins=self.pins,
            pinning_ahead=ahead if settings.pin_in_background else None,
            canary=canary if settings.canary_seconds else None,
            settling=StampWatch(
                store=self.store,
                worker=self.name,
                lease_seconds=settings.lease_milliseconds / 1000,
                clock=self.clock,
                grow=self._note_group,
                on_failure=self.telemetry.failed,
            ),
            scan_seconds=settings.scan_seconds,
            telemetry=self.telemetry,
            at_the_start=(
                *(one.prepare for one in keepings),
                *(() if token_keys is None else (token_keys.try_to_look,)),
            ),
            more_chores=(
                ("key-networks", key_watch.keep_networks),
                ("key-report", key_watch.run),
                *((name, one.run) for name, one in keeping_chores),
                (
                    "token-keys",
                    partial(report_no_tokens, self.store, self.name)
                    if token_keys is None
                    else token_keys.run,
                ),
            ),
            at_the_end=(
                key_watch.note_networks,
                *(
                    part.close
                    for part in (self.outside_issuers, self.authority, self.provider, *keepings)
                    if part is not None
                ),
            ),
        )

    def _watch_token_keys(self) -> TokenKeyWatch | None:
        if self.tokens is None:
            return None
        return TokenKeyWatch(
            tokens=self.tokens,
            folder=self.settings.token_key_folder,
            store=self.store,
            listing=Listing(PlainFacts(self.store), on_unreadable=self.telemetry.unreadable),
            worker=self.name,
            clock=self.clock,
            on_failure=self.telemetry.failed,
        )

    async def _note_group(self, servers: int) -> None:
        """Note how many servers replicate each other by now. What an operator set, or is larger, stays."""
        change = Change(
            actor=f"worker:{self.name}",
            action="directory.group",
            subject=(f"{servers} servers",),
            received_at=self.clock.now(),
        )

        async def grow(changes: Changes) -> None:
            known = await self.store.group()
            if known is None or not (known.is_set or known.servers >= servers):
                await changes.put_group(GroupSize(servers=servers))

        await self.registrar.perform(change, grow)

    def _follow(self, redis_url: str) -> tuple[NearFacts, Follower, RedisFeed]:
        """Build the near cache, and what keeps it up to date."""
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
            lease_seconds=lease.seconds,
            clock=self.clock,
            place=self.store.place,
        )
        return facts, Follower(facts, lease, self.history), feed

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run everything that is needed while requests are served; close all of it afterwards."""
        return self.upkeep.running()

    def report(self) -> dict[str, Any]:
        """Readiness, check by check, and the counters, for the supervisor. Does not block."""
        ready = {
            "lease": self.facts.is_leased(),
            "history": self.follower.is_history_known,
            "policy": self.upkeep.has_policy,
            "audit": self.recorder.is_healthy(),
            "chores": not self.upkeep.chores.down,
            "cache": self.catalogue.state().survey.is_readable,
        }
        counters = {
            **self.telemetry.values(),
            **freshness_counters(self.facts, self.decisions),
            "cachegate_feed_reconnects_total": self.feed.reconnects,
            "cachegate_hashed_bytes_total": self.measurer.counts.bytes,
            **upstream_counters(self.provider),
            **unknown_key_counters(self.authority),
            **issuer_counters(self.outside_issuers),
        }
        gauges = {
            **self.telemetry.gauges,
            **self.more_gauges(),
            **self.recorder.gauges(),
            "cachegate_chores_down": float(len(self.upkeep.chores.down)),
            "cachegate_transfers_under_way": len(self.transfers),
            "cachegate_upstream_left_alone": float(self.provider is not None and self.provider.is_left_alone),
            "cachegate_upstream_left_alone_by_strangers": float(
                self.provider is not None and self.provider.is_left_alone_by_unknown_keys
            ),
        }
        return {"ready": ready, "counters": counters, "gauges": gauges}

    def note_hang(self, seconds: float) -> None:
        """Record that the worker which this one replaces hung: since then it answered nobody."""
        now = self.clock.now()
        why = "a worker did not answer, as when a write hangs, and was killed; this one replaces it"
        self.recorder.note_gap(Gap(since=now - seconds, until=now, refused=0, why=why))

    def _audit_is_behind(self) -> None:
        """Write the waiting outcome records, before the event loop waits for anything.

        Not in the very next iteration but in the one after it: under load, requests come in the next one, and
        their records and these outcomes are one write.
        """
        soon(partial(soon, self._catch_up_audit))

    def _catch_up_audit(self) -> None:
        try:
            self.recorder.flush()
        except Unavailable as failure:
            self.telemetry.failed(failure)


def soon(chore: Callable[[], None]) -> None:
    """Call this after everything else that is ready in this event loop iteration."""
    asyncio.get_running_loop().call_soon(chore)
