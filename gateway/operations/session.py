"""The session of one command: opens the facts, the peppers and, for changes, an audit chain.

It joins the embedded Valkey or connects to the one that is configured, checks that this node holds the pepper
under which the keys were stored, and opens an audit chain only once something is changed: reads are not
recorded, changes always are.
"""

from __future__ import annotations

import getpass
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from dataclasses import replace as dataclass_replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey, RunningValkey
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_errors import lacking
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_url import verify_local_files
from gateway.barrier import MARGIN_SECONDS, BarrierReport, await_workers
from gateway.directory.edits.peppers import find_pepper_not_held, remember_peppers
from gateway.directory.reading.degraded_modes import load_degraded_periods
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.pepper import Peppers, load_peppers
from gateway.model.errors import Conflict, Misconfigured, Unavailable
from gateway.model.facts import MAX_DEGRADED_SECONDS
from gateway.model.names import BindingId, KeyId, TenantId
from gateway.model.stores import GroupSize
from gateway.model.verdicts import Change
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from gateway.configuration.settings import Settings
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.degraded_modes import DegradedPeriod
    from gateway.model.access import Principal
    from gateway.model.errors import Reason
    from gateway.model.facts import Key
    from gateway.model.issuers import Binding
    from gateway.model.pins import Pin
    from gateway.model.stores import Moment
    from gateway.registrar import Done, Registrar

T = TypeVar("T")

MAX_SUBJECT_BYTES = 64 * 1024  # of a record, whose line may have a megabyte
BARRIER_PATIENCE_SECONDS = 2.0  # beyond a lease: for late polls, and short degraded periods


@dataclass(slots=True, kw_only=True)
class OperatorSession:
    """The facts, the way to change them, and the actor that audit records name."""

    settings: Settings
    store: RedisStore
    directory: DirectoryReader
    listing: Listing
    peppers: Peppers
    history: HistoryFile
    clock: SystemClock
    actor: str
    verify_first: Callable[[Changes], Awaitable[None]] | None = None
    unreadable: list[str] = field(default_factory=list)
    _registrar: Registrar | None = None

    def as_actor(self, actor: str) -> OperatorSession:
        """The same session for another actor: a worker's is used by many."""
        return dataclass_replace(self, actor=actor)

    def verifying(self, verify: Callable[[Changes], Awaitable[None]]) -> OperatorSession:
        """The same session, for an operation of several changes: in the transaction of the first it verifies.

        `verify` raises where the operation must not begin any more; then nothing is changed.
        """
        return dataclass_replace(self, verify_first=verify)

    async def perform(
        self,
        action: str,
        operation: Callable[[Changes], Awaitable[T]],
        *,
        tenant: str | None = None,
        tenant_record: str | None = None,
        key_id: str | None = None,
        subject: tuple[str, ...] = (),
        wait: bool = True,
    ) -> Done[T]:
        """Make one change, recorded before and after, and wait until every worker has applied it (I6)."""
        change = Change(
            actor=self.actor,
            action=action,
            tenant=tenant,
            tenant_record=tenant_record or await self._record_id_of(tenant),
            key_id=key_id,
            subject=bounded_subject(subject),
            received_at=self.clock.now(),
            is_digested=True,
        )
        verify, self.verify_first = self.verify_first, None
        if verify is not None:
            operation = _verified(verify, operation)
        before = await self._degraded_periods_if_known(change) if wait else []
        done = await (await self.registrar()).perform(change, operation)
        if wait:
            return replace(done, barrier=await self.await_workers(change, done.moment, before))
        with suppress(Unavailable):  # noted if every server has it already: always so with a single server
            await self.store.hold_by_all(done.moment, seconds=0.0)
            self.history.note(done.moment)
        return done

    async def note_refused(
        self, action: str, reason: Reason, principal: Principal, subject: tuple[str, ...]
    ) -> None:
        """Record that somebody who may administer asked for a change that was refused, and why."""
        registrar = await self.registrar()
        registrar.note_refused(
            actor=self.actor,
            action=action,
            reason=reason.value,
            principal=principal,
            subject=bounded_subject(subject),
        )

    async def _record_id_of(self, tenant: str | None) -> str | None:
        """The id of a tenant's record before a change, for the change's own record."""
        try:
            found = None if tenant is None else await self.listing.find_tenant(TenantId(tenant))
        except Conflict:
            return None  # it does not parse; the change says so
        return None if found is None else found.record_id

    async def record(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Done[T]:
        """Make a change that a component describes itself, without waiting for the workers."""
        return await (await self.registrar()).perform(change, operation)

    def note_quarantine(self, pin: Pin) -> None:
        """Record that this session put a blob into quarantine; the change itself is recorded anyway."""
        if self._registrar is not None:
            from gateway.assembly.components import note_quarantine  # noqa: PLC0415 -- as below

            with suppress(Unavailable):
                note_quarantine(self._registrar, pin, source=self.actor)

    async def registrar(self) -> Registrar:
        """What makes and records changes; the first use opens the audit chain.

        Raises `UnknownHistory` where the facts are not the ones this node knew: a restored or lagging server.
        """
        await self.store.verify_history()
        if self._registrar is None:
            # Only a change needs the audit log and all that it imports.
            from gateway.assembly.components import build_registrar  # noqa: PLC0415

            self._registrar = build_registrar(self.settings, self.store, self.clock)
        return self._registrar

    async def await_workers(
        self, change: Change, moment: Moment, before: Sequence[DegradedPeriod] | None = None
    ) -> BarrierReport:
        """Wait until every worker has applied a change that was made.

        The change is made whatever the wait comes to, and its result (a key, say) must still be shown: so a
        lost server makes the report unsure and raises no error. `before` holds the degraded periods from
        before the change, for when they cannot be read any more; None counts as the longest possible.
        """
        lease_seconds = self.settings.lease_milliseconds / 1000
        started = self.clock.monotonic()
        try:
            report = await await_workers(
                self.store,
                moment,
                lease_seconds=lease_seconds,
                patience_seconds=lease_seconds + BARRIER_PATIENCE_SECONDS,
                clock=self.clock,
                degraded_periods=[*(before or ()), *await self._degraded_periods(change)],
                is_settled=self.settings.redis_url is None,
            )
        except (Unavailable, Conflict) as failure:
            longest = MAX_DEGRADED_SECONDS
            if before is not None and change.action not in {"tenants.degraded", "tenants.change"}:
                longest = max((one.seconds for one in before), default=0.0)
            return BarrierReport(
                generation=moment.generation,
                workers=0,
                acknowledged=0,
                milliseconds=round((self.clock.monotonic() - started) * 1000, 3),
                is_sure=False,
                sure_in_seconds=lease_seconds + MARGIN_SECONDS + longest,
                held=0,
                why=f"the workers could not be asked ({failure}). If the server comes back with the change, "
                "it is true everywhere by then; look, or repeat the command",
            )
        if report.held >= report.servers:
            self.history.note(moment)
        return report

    async def unsure(self, change: Change, moment: Moment) -> BarrierReport:
        """The report of a change that nobody waited for: when no worker acts on what was before any more."""
        periods = await self._degraded_periods_if_known(change)
        longest = MAX_DEGRADED_SECONDS
        if periods is not None and change.action not in {"tenants.degraded", "tenants.change"}:
            longest = max((one.seconds for one in periods), default=0.0)
        return BarrierReport(
            generation=moment.generation,
            workers=0,
            acknowledged=0,
            milliseconds=0.0,
            is_sure=False,
            sure_in_seconds=self.settings.lease_milliseconds / 1000 + MARGIN_SECONDS + longest,
            why="it was not waited for",
        )

    async def _degraded_periods_if_known(self, change: Change) -> list[DegradedPeriod] | None:
        try:
            return await self._degraded_periods(change)
        except (Unavailable, Conflict):
            return None

    async def remember_group(self) -> None:
        """Note how many servers replicate each other: once, and more when more are seen.

        A number that an operator has set stays; `doctor` compares it with the servers that are seen.
        """
        known = await self.store.group()
        if known is not None and known.is_set:
            return
        with suppress(Unavailable):  # if the history is not the known one, nothing is written
            servers = await self.store.count_servers()
            if known is None or servers > known.servers:
                await self.set_group(GroupSize(servers=servers))

    async def set_group(self, group: GroupSize, *, wait: bool = False) -> Done[None]:
        """Write how many servers hold the facts and may be promoted."""

        async def operation(changes: Changes) -> None:
            await changes.put_group(group)

        return await self.perform(
            "directory.group", operation, subject=(f"{group.servers} servers",), wait=wait
        )

    async def _degraded_periods(self, change: Change) -> list[DegradedPeriod]:
        """The degraded periods of the tenants that a change concerns.

        A key, a binding, a grant and a tenant concern one tenant. Changes of models and of the policy concern
        all tenants that may read the models.
        """
        if change.action.startswith(("keys.", "bindings.", "grants.", "tenants.")):
            concerned = change.tenant
            if concerned is None and change.key_id is not None:
                held: Key | Binding | None
                if change.action.startswith("bindings."):
                    held = await self.listing.find_binding_by_id(BindingId(change.key_id))
                else:
                    held = await self.listing.find_key(KeyId(change.key_id))
                concerned = None if held is None else held.tenant
            # By name: with a hundred thousand tenants, listing them would take most of a revocation's time.
            found = None if concerned is None else await self.listing.find_tenant(TenantId(concerned))
            tenants = [] if found is None else [found]
        else:
            tenants = await self.listing.list_tenants()
        return await load_degraded_periods(PlainFacts(self.store), tenants)

    async def verify_peppers(self) -> None:
        """Note the fingerprints of new peppers; raise unless all that keys are stored under are held here."""
        held, known = self.peppers.fingerprints(), await self.listing.pepper_fingerprints()
        missing = find_pepper_not_held(held, known)
        if missing is not None:
            found = "is not the pepper" if missing in held else "is missing: it is the pepper"
            raise Misconfigured(
                str(self.settings.pepper_folder / f"{missing}.pepper"),
                f"{found} under which keys in Redis were stored: copy the pepper folder from the node that "
                "made them, or use the Redis that belongs to this state folder",
            )
        new = tuple(sorted(held.keys() - known.keys()))
        if new:
            await self.perform(
                "peppers.remember", lambda changes: remember_peppers(changes, held=held), subject=new
            )

    def close(self) -> None:
        """Sign the last head of this command's chain, if it changed anything."""
        if self._registrar is not None:
            self._registrar.recorder.close()


def _verified(
    verify: Callable[[Changes], Awaitable[None]], operation: Callable[[Changes], Awaitable[T]]
) -> Callable[[Changes], Awaitable[T]]:
    async def verify_and_operate(changes: Changes) -> T:
        await verify(changes)
        return await operation(changes)

    return verify_and_operate


def bounded_subject(subject: tuple[str, ...]) -> tuple[str, ...]:
    """A record's subject in bounded space: a command line may name 100,000 patterns.

    A record has to fit a line that every reader of the log accepts. What is left out is counted, and the
    whole is covered by its SHA-256.
    """
    size, kept = 0, 0
    for name in subject:
        size += len(name.encode())
        if size > MAX_SUBJECT_BYTES:
            break
        kept += 1
    if kept == len(subject):
        return subject
    digest = sha256("".join(f"{name}\n" for name in subject).encode()).hexdigest()
    return (*subject[:kept], f"{len(subject) - kept} more; sha256 of all {digest}")


def fact_server(settings: Settings) -> RunningValkey | nullcontext[str]:
    """The URL of the server that holds the facts, for as long as it is used."""
    if settings.redis_url is not None:
        verify_local_files(settings.redis_url)
        return nullcontext(settings.redis_url)
    verify_state(settings)  # the server writes to the state folder
    return EmbeddedValkey(settings.state).running()


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[OperatorSession]:
    """Everything a command needs, for as long as it runs."""
    verify_state(settings)
    peppers = load_peppers(settings.pepper_folder)
    async with fact_server(settings) as url:
        history = HistoryFile(settings.history_file)
        store = RedisStore(url, history=history)
        unreadable: list[str] = []
        session = OperatorSession(
            settings=settings,
            store=store,
            directory=DirectoryReader(
                store, PlainFacts(store), on_unreadable=unreadable.append, clock=SystemClock()
            ),
            listing=Listing(PlainFacts(store), on_unreadable=unreadable.append),
            peppers=peppers,
            history=history,
            clock=SystemClock(),
            actor=actor(),
            unreadable=unreadable,
        )
        try:
            async with diagnosed(url):
                await session.verify_peppers()
                await session.remember_group()
            yield session
        finally:
            try:
                session.close()
            finally:
                with suppress(Unavailable):
                    await store.close()


async def verify_rights(session: OperatorSession) -> None:
    """Raises `Unavailable` when the server does not let our user do all that a worker does."""
    missing = await session.store.missing_rights()
    if missing:
        raise Unavailable("redis", f"{session.store.display} {lacking(missing)}")


def actor() -> str:
    """Who audit records say ran a command: the user of this process."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return "cli:unnamed"
