"""The office: what a command works with. Opened for a command and closed after it.

It joins the embedded Valkey or connects to the one that is configured, checks that this node holds
the pepper under which the keys were stored, and opens an audit chain only once something is changed:
reading leaves no trace, changing always does.
"""

from __future__ import annotations

import getpass
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey, RunningValkey
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_store import RedisStore
from gateway.app import build_recorder
from gateway.barrier import BarrierReport, await_workers
from gateway.directory.listing import Listing, StoreReading
from gateway.directory.operations.keys import remember_pepper
from gateway.directory.plain_facts import PlainFacts
from gateway.directory.reader import DirectoryReader
from gateway.identity.pepper import Peppers, load_peppers
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.names import TenantId
from gateway.model.verdicts import Change
from gateway.registrar import Done, Registrar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.audit.log import AuditLog
    from gateway.directory.changes import Changes
    from gateway.settings import Settings

T = TypeVar("T")

BARRIER_PATIENCE_SECONDS = 2.0  # beyond a lease: for looks that are late, and short degraded times


@dataclass(slots=True, kw_only=True)
class Office:
    """The facts, the way to change them, and whose orders it takes."""

    settings: Settings
    store: RedisStore
    directory: DirectoryReader
    listing: Listing
    peppers: Peppers
    history: HistoryFile
    clock: SystemClock
    actor: str
    unreadable: list[str] = field(default_factory=list)
    _recorder: AuditLog | None = None

    async def perform(
        self,
        action: str,
        operation: Callable[[Changes], Awaitable[T]],
        *,
        tenant: str | None = None,
        key_id: str | None = None,
        subject: tuple[str, ...] = (),
        wait: bool = True,
    ) -> Done[T]:
        """Make one change, recorded before and after, and wait until it is true in every worker (I6)."""
        await self.verify_history()
        if self._recorder is None:
            self._recorder = build_recorder(self.settings, self.clock)
        change = Change(
            actor=self.actor,
            action=action,
            tenant=tenant,
            key_id=key_id,
            subject=subject,
            received_at=self.clock.now(),
        )
        done = await Registrar(store=self.store, recorder=self._recorder).perform(change, operation)
        return replace(done, barrier=await self._await_workers(done.generation, tenant)) if wait else done

    async def verify_history(self) -> None:
        """Refuse to change facts that are not the ones this node knew: a restored or lagging server."""
        generation, history = await self.store.generation(), await self.store.history() or ""
        if not self.history.accepts(history, generation):
            raise Unavailable(
                "redis",
                f"{self.store.display} holds another history of the facts than this node saw last, or an "
                "older state of it; revocations may be missing. If that is meant, run "
                "`cachegate directory accept`",
            )

    async def _await_workers(self, generation: int, tenant: str | None) -> BarrierReport:
        self.history.note(await self.store.history() or "", generation)
        tenants = await self.listing.list_tenants() if tenant is None else []
        if tenant is not None and (found := await self.listing.find_tenant(TenantId(tenant))) is not None:
            tenants = [found]
        return await await_workers(
            self.store,
            generation,
            lease_seconds=self.settings.lease_milliseconds / 1000,
            degraded_seconds=max((one.degraded_seconds for one in tenants), default=0.0),
            patience_seconds=self.settings.lease_milliseconds / 1000 + BARRIER_PATIENCE_SECONDS,
            clock=self.clock,
        )

    async def verify_peppers(self) -> None:
        """Note the fingerprints of new peppers; refuse to go on with a pepper that is not the known one."""
        for pepper_id, fingerprint in self.peppers.fingerprints().items():
            known = await self.listing.find_pepper_fingerprint(pepper_id)
            if known is None:
                await self.perform(
                    "peppers.remember",
                    lambda changes, pepper_id=pepper_id, fingerprint=fingerprint: remember_pepper(  # type: ignore[misc]
                        changes, pepper_id=pepper_id, fingerprint=fingerprint
                    ),
                    subject=(pepper_id,),
                )
            elif known != fingerprint:
                raise Misconfigured(
                    str(self.settings.pepper_folder / f"{pepper_id}.pepper"),
                    "is not the pepper under which the keys in Redis were stored: copy the pepper folder "
                    "from the node that made them, or use the Redis that belongs to this state folder",
                )

    def close(self) -> None:
        """Sign the last head of this command's chain, if it changed anything."""
        if self._recorder is not None:
            self._recorder.close()


def fact_server(settings: Settings) -> RunningValkey | nullcontext[str]:
    """The URL of the server that holds the facts, for as long as it is used."""
    if settings.redis_url is not None:
        return nullcontext(settings.redis_url)
    return EmbeddedValkey(settings.state).running()


@asynccontextmanager
async def open_office(settings: Settings) -> AsyncIterator[Office]:
    """Everything a command needs, for as long as it runs."""
    peppers = load_peppers(settings.pepper_folder)
    async with fact_server(settings) as url:
        store = RedisStore(url)
        unreadable: list[str] = []
        office = Office(
            settings=settings,
            store=store,
            directory=DirectoryReader(store, PlainFacts(store), on_unreadable=unreadable.append),
            listing=Listing(StoreReading(store), on_unreadable=unreadable.append),
            peppers=peppers,
            history=HistoryFile(settings.history_file),
            clock=SystemClock(),
            actor=f"cli:{_user()}",
            unreadable=unreadable,
        )
        try:
            await office.verify_peppers()
            yield office
        finally:
            try:
                office.close()
            finally:
                with suppress(Unavailable):
                    await store.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unnamed"
