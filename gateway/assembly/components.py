"""Builds, from the settings, the components that workers and commands have in common.

Each function makes one of them as this installation needs it. `pipeline.py` connects them for a worker,
`operations/` for a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.adapters.key_set_client import KeySetClient
from gateway.adapters.provider import Provider
from gateway.adapters.seen_cache_file import SeenCacheFile
from gateway.assembly.signing import load_earlier_keys, load_signing_key
from gateway.audit.grouped_log import GroupedLog
from gateway.audit.limits import Durability, Limits
from gateway.audit.log import AuditLog
from gateway.audit.record import QuarantineRecord
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.access_tokens import AccessTokens
from gateway.issuers.bindings import NEW_PER_SECOND, Bindings
from gateway.issuers.key_sets import KeySets
from gateway.issuers.outside import IssuerServices
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model_metadata.attestations import Attestations
from gateway.model_metadata.links import Links
from gateway.pinning.ledger import PinLedger
from gateway.platform.asking import SharedQuestions
from gateway.platform.authority import Authority
from gateway.platform.budget import Budget
from gateway.platform.stat import Platform
from gateway.platform.unknown_keys import UnknownKeys
from gateway.registrar import Registrar
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.clock import SystemClock
    from gateway.adapters.redis_store import RedisStore
    from gateway.configuration.settings import Settings
    from gateway.directory.memory.near_facts import NearFacts
    from gateway.identity.links import LinkKeys
    from gateway.identity.pepper import Peppers
    from gateway.model.clocks import Clock, MonotonicClock
    from gateway.model.pins import Pin
    from gateway.model.ports import Directory
    from gateway.telemetry import Telemetry


def build_worker_log(settings: Settings, clock: Clock, on_left: Callable[[], None]) -> AuditLog | GroupedLog:
    """The audit log of a worker, whose event loop does not wait for a disk.

    With `process`, a write is a copy into the kernel's memory: it is made on the loop, where it costs least.
    """
    if settings.audit_durability is Durability.PROCESS:
        return build_recorder(settings, clock, on_left)
    return GroupedLog(
        folder=settings.audit_folder,
        node=settings.node,
        signing_key=load_signing_key(settings.signing_key_file),
        earlier_keys=load_earlier_keys(settings.signing_key_file),
        clock=clock,
        limits=audit_limits(settings),
    )


def audit_limits(settings: Settings) -> Limits:
    """The limits of the audit log of one process."""
    return Limits(
        anonymous_per_source=settings.audit_refusals_per_second,
        segment_bytes=settings.audit_segment_megabytes << 20,
        segment_seconds=settings.audit_segment_hours * 3600.0,
        patience_seconds=float(settings.audit_patience_seconds),
    )


def build_recorder(settings: Settings, clock: Clock, on_left: Callable[[], None] | None = None) -> AuditLog:
    """The audit log of a command, which waits for the disk where that was promised."""
    return AuditLog(
        folder=settings.audit_folder,
        node=settings.node,
        signing_key=load_signing_key(settings.signing_key_file),
        earlier_keys=load_earlier_keys(settings.signing_key_file),
        clock=clock,
        durability=settings.audit_durability,
        limits=audit_limits(settings),
        on_left=on_left,
    )


def build_registrar(
    settings: Settings, store: RedisStore, clock: Clock, on_left: Callable[[], None] | None = None
) -> Registrar:
    """What makes the changes of facts of this process, and records them in its audit log."""
    if on_left is None:
        return Registrar(store=store, recorder=build_recorder(settings, clock))
    return Registrar(store=store, recorder=build_worker_log(settings, clock, on_left))


def build_catalogue(settings: Settings, clock: Clock, *, is_command: bool = False) -> DiskCatalogue:
    """The catalogue of the disk. A command delays no requests, so it reads large manifests in its thread."""
    return DiskCatalogue(
        CatalogueSettings(root=settings.cache_root, alias_roots=settings.alias_roots),
        clock,
        seen=SeenCacheFile(settings.seen_cache_file),
        reads_all_here=is_command,
    )


def build_ledger(registrar: Registrar, clock: Clock, telemetry: Telemetry, *, actor: str) -> PinLedger:
    """The ledger by which this process agrees on pins."""
    store = registrar.store

    def on_quarantined(pin: Pin) -> None:
        telemetry.quarantined(pin)
        try:
            note_quarantine(registrar, pin, source=actor)
        except Unavailable as failure:  # the change is made, and recorded as such
            telemetry.failed(failure)

    return PinLedger(
        store=store,
        listing=Listing(PlainFacts(store), on_unreadable=telemetry.unreadable),
        perform=registrar.perform,
        clock=clock,
        actor=actor,
        on_pinned=telemetry.pinned,
        on_quarantined=on_quarantined,
    )


def note_quarantine(registrar: Registrar, pin: Pin, *, source: str) -> None:
    """Record that a blob is in quarantine. Raises `Unavailable`."""
    if pin.quarantine is not None:
        found = pin.quarantine.found_sha256
        registrar.recorder.note(QuarantineRecord, md5=pin.md5, found=found, pinned=pin.sha256, source=source)


def build_links(settings: Settings, keys: LinkKeys | None, clock: Clock) -> Links | None:
    """What makes signed URLs; None without a public URL, as clients could not use them."""
    if settings.public_url is None or keys is None:
        return None
    return Links(public_url=settings.public_url, keys=keys, link_seconds=settings.link_seconds, clock=clock)


def build_tokens(settings: Settings) -> AccessTokens | None:
    """What makes and verifies access tokens; None without a public URL, which they are issued by and for."""
    if settings.public_url is None:
        return None
    return AccessTokens(issuer=settings.public_url.rstrip("/"), seconds=settings.token_seconds)


def build_provider(settings: Settings, clock: MonotonicClock) -> Provider | None:
    """The client of the weights provider; None where none is configured."""
    if settings.upstream is None:
        return None
    return Provider(settings.upstream, private_upstreams=settings.private_upstreams, clock=clock)


def build_authority(
    settings: Settings,
    provider: Provider | None,
    store: RedisStore,
    facts: NearFacts,
    registrar: Registrar,
    peppers: Peppers,
    clock: SystemClock,
    worker: str,
) -> Authority | None:
    """The platform authority for its own keys; None where only our own facts decide."""
    if settings.authority != "platform":
        return None
    if provider is None:
        why = "`platform` asks the provider, and no upstream is set: set it, or take `local`"
        raise Misconfigured("authority", why)
    return Authority(
        platform=Platform(provider=provider),
        store=store,
        source=facts,
        forget=facts.changed,
        perform=registrar.perform,
        questions=SharedQuestions(store, worker=worker),
        unknown_keys=UnknownKeys(
            source=facts,
            budget=Budget(per_second=settings.unknown_key_questions, now=clock.monotonic),
            clock=clock,
        ),
        peppers=peppers,
        clock=clock,
        actor=f"worker:{worker}",
        allow_seconds=settings.allow_seconds,
        deny_seconds=settings.deny_seconds,
    )


def build_outside_issuers(
    settings: Settings,
    store: RedisStore,
    facts: NearFacts,
    registrar: Registrar,
    clock: SystemClock,
    worker: str,
    telemetry: Telemetry,
) -> IssuerServices:
    """What has the keys of outside issuers fetched and binds their subjects."""
    return IssuerServices(
        key_sets=KeySets(
            client=KeySetClient(private_issuers=settings.private_issuers),
            store=store,
            perform=registrar.perform,
            forget=facts.changed,
            clock=clock,
            worker=worker,
            on_failure=telemetry.failed,
        ),
        bindings=Bindings(
            store=store,
            perform=registrar.perform,
            forget=facts.changed,
            budget=Budget(per_second=NEW_PER_SECOND, now=clock.monotonic),
            clock=clock,
            worker=worker,
        ),
    )


def build_attestations(
    settings: Settings,
    facts: NearFacts,
    directory: Directory,
    catalogue: DiskCatalogue,
    registrar: Registrar,
    clock: Clock,
) -> Attestations | None:
    """What decides which links across owners count; None where all do."""
    if settings.shared_links != "attested":
        return None
    return Attestations(
        directory=directory,
        source=facts,
        catalogue=catalogue,
        perform=registrar.perform,
        clock=clock,
        actor="worker:attestations",
    )
