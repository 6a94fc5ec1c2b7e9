"""One call of an operation: who calls, what was read, and the one way in which it changes something.

`Call.change` makes a change in this order. In the transaction itself the decision is confirmed once more: a
caller may be revoked while its change waits for something. There the precondition (If-Match) and the
idempotency key are checked too, so that of two operators at once one is refused. Then comes the edit, which
the commands use as well; then the wait until every worker has applied it (I6). A change that is made is never
answered with an error: what cannot be sure yet is 202, also where an earlier request made it.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.admin.documents import Barrier, Changed, Missing, moment
from gateway.admin.idempotency import RUNNING_SECONDS, Note, Replayed, note_done, verify_new
from gateway.model.errors import FieldProblem, Reason, Refusal, Unavailable, UnknownOutcome
from gateway.model.names import KeyId
from gateway.model.roles import Giver
from gateway.model.stores import Moment
from gateway.model.verdicts import Change
from gateway.operations.known_names import find_nearest
from gateway.registrar import Done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.admin.idempotency import Ticket
    from gateway.barrier import BarrierReport
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.directory.reading.listing import Listing
    from gateway.model.access import Action, Principal
    from gateway.model.names import TenantId
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue

    Find = Callable[[Listing], Awaitable[str | None]]
    """Reads the state of what is changed, as its ETag says it; None where it is not there."""

PROOF_SECONDS = 60.0  # how long it can be found out whether a change was made
LOOKS, LOOK_SECONDS = 20, 0.25
MAX_COMPARED = 1_000  # pairs of names: about 10 ms, during which the worker answers nobody else
REPLAYED = "This was done before, with the same Idempotency-Key."


def _unconfirmed() -> None:
    raise TypeError("a change is made under a receipt")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler answers with. `next_after` is the place from which a list goes on."""

    document: Any
    status: int = 200
    location: str | None = None  # the path of what was made, below the API's own
    generation: int | None = None  # of the record: its ETag
    etag: str | None = None  # where that is not the generation
    next_after: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call. `own` is the tenant of a caller that administers its own tenant, and nothing else."""

    action: Action
    session: OperatorSession
    catalogue: DiskCatalogue
    principal: Principal
    own: TenantId | None
    now: float
    id: str = ""
    query: Any = None
    body: Any = None
    if_match: tuple[str, ...] | None = None
    ticket: Ticket | None = None
    on_progress: Callable[[], None] | None = None
    confirm: Callable[[], None] = _unconfirmed
    """The guard's last check. Raises `WithdrawnError`, or `Unavailable` without a lease."""

    @property
    def listing(self) -> Listing:
        """The facts as they are now."""
        return self.session.listing

    @property
    def giver(self) -> Giver:
        """The caller, as one who hands out keys."""
        return Giver(
            tenant=self.principal.tenant,
            role=self.principal.role,
            scopes=self.principal.scopes,
            is_token=self.principal.token_id is not None,
            networks=self.principal.networks,
        )

    async def change(
        self,
        edit: Callable[[Changes], Awaitable[Effect]],
        *,
        find: Find | None = None,
        tenant: str | None = None,
        tenant_record: str | None = None,
        key_id: str | None = None,
        subject: tuple[str, ...] = (),
        made: str | None = None,
        location: str | None = None,
        status: int = 200,
        may_miss: bool = False,
    ) -> Done[Effect]:
        """Make one change. `made` and `location` name what it is about, for a later replay.

        `may_miss`: of many things that are taken away, some may not be there; the rest is done, as by a
        command, and the answer names them. Otherwise nothing is done, and the answer is 404.

        `tenant_record` is the record of the tenant, where it may be another than the one of that name now.
        Raises `Replayed` where it was made before, and `WithdrawnError` where the caller may no longer make
        it: then nothing was changed, and the request is decided anew.
        """
        proof = b"{cachegate}:made:" + secrets.token_hex(16).encode()
        effects: list[Effect] = []

        async def operation(changes: Changes) -> Effect:
            self.confirm()  # in each run of the transaction: it is run again when any fact has changed
            kept = None
            await self._verify_caller(changes)
            if self.ticket is not None:
                kept = await verify_new(changes, self.ticket, self.now)
            await self._verify_match(changes, find)
            effect = await edit(changes)
            if effect.missing and not may_miss:
                raise Refusal(Reason.ABSENT)
            if self.ticket is not None and kept is not None:
                note = Note(
                    request=self.ticket.request,
                    made_at=self.now,
                    status=status,
                    subject=made,
                    location=location,
                    generation=changes.generation,
                )
                await note_done(changes, self.ticket, kept, note)
            if effect.is_changed:
                await changes.put_for(PROOF_SECONDS, proof, b"%d" % changes.generation)
            effects[:] = [effect]
            return effect

        change = Change(
            actor=self.session.actor, action=self.action, tenant=tenant, key_id=key_id, received_at=self.now
        )
        async with self._running():
            try:
                done = await self.session.perform(
                    self.action.value,
                    operation,
                    tenant=tenant,
                    tenant_record=tenant_record,
                    key_id=key_id,
                    subject=subject,
                    wait=self.query.wait,
                )
            except UnknownOutcome:
                done = await self._find_out(proof, effects)
            except Replayed as replayed:
                raise Replayed(replayed.note, await self._barrier_now(change)) from None
        if done.barrier is not None:
            return done
        return replace(done, barrier=await self.session.unsure(change, done.moment))

    @property
    def beginning(self) -> OperatorSession:
        """The session for an operation of several changes, which begins only while the caller may make it.

        What has begun is carried out to its end: half of it would be worse than all of it.
        """

        async def verify(changes: Changes) -> None:
            self.confirm()
            await self._verify_caller(changes)

        return self.session.verifying(verify)

    async def _verify_caller(self, changes: Changes) -> None:
        """Refuse a change of a caller whose key, or whose own tenant, ended since it was admitted.

        In the transaction itself: once a revocation has returned, nothing that the key began is made (I6).
        Who has stolen a key may have any number of changes under way.
        """
        key = await changes.find_key(KeyId(self.principal.key_id))  # the token of an outside issuer has none
        if key is not None and key.is_ended:
            raise Refusal(Reason.DISABLED_KEY if key.revoked_at is None else Reason.REVOKED_KEY)
        if self.own is None:
            return
        tenant = await changes.find_tenant(self.own)
        if tenant is None or tenant.record_id != self.principal.tenant_record:
            raise Refusal(Reason.REMOVED_TENANT)
        if tenant.is_suspended:
            raise Refusal(Reason.SUSPENDED_TENANT)

    async def _barrier_now(self, change: Change) -> BarrierReport:
        """How far a change that was made earlier is in force: what is true of this moment is true of it."""
        moment, _ = await self.session.store.read([])
        if self.query.wait:
            return await self.session.await_workers(change, moment)
        return await self.session.unsure(change, moment)

    async def _find_out(self, proof: bytes, effects: list[Effect]) -> Done[Effect]:
        """Find out whether a change was made whose answer was lost: one that was is answered as done.

        Raises `Unavailable` where it was not, or nobody can say.
        """
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            try:
                _, [generation] = await self.session.store.read([proof])
            except Unavailable:
                continue
            if generation is None:
                raise Unavailable("redis", "the change was not made")
            return Done(effects[0], Moment(generation=int(generation)))
        raise Unavailable(
            "redis", "it cannot be found out whether the change was made: look, or send it again"
        )

    async def _verify_match(self, changes: Changes, find: Find | None) -> None:
        """Refuse a change that is meant for another state than there is."""
        if self.if_match is None or find is None:
            return
        tag = await find(changes)
        if tag is None:  # a state that is not there is no state (RFC 9110, 13.1.1)
            raise Refusal(Reason.ABSENT if self.id else Reason.PRECONDITION_FAILED)
        if "*" not in self.if_match and f'"{tag}"' not in self.if_match:
            raise Refusal(Reason.PRECONDITION_FAILED)

    def verify_read(self, tag: str | None) -> None:
        """Refuse a read that is meant for another state than there is."""
        if self.if_match is not None and "*" not in self.if_match and f'"{tag}"' not in self.if_match:
            raise Refusal(Reason.PRECONDITION_FAILED)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Let no other request with the same idempotency key run meanwhile."""
        if self.ticket is None:
            yield
            return
        holder, store = secrets.token_hex(8), self.session.store
        if not await store.hold(self.ticket.lock, holder, seconds=RUNNING_SECONDS):
            raise Refusal(Reason.STILL_RUNNING)
        try:
            yield
        finally:
            with suppress(Unavailable):  # it ends by itself
                await asyncio.shield(store.release(self.ticket.lock, holder))


def changed(
    done: Done[Effect], call: Call, *, made: str | None, kind: type[Changed] = Changed, **more: Any
) -> Reply:
    """The answer to a change: 200, or 202 while it is not sure that no worker acts on what was before.

    `kind` has the members `more` as well.
    """
    barrier, now = done.barrier, call.session.clock.now()
    if barrier is None:
        raise TypeError("a change comes with its report")
    is_sure, is_asked = barrier.is_sure, barrier.is_sure or barrier.workers > 0
    sure_at = None
    if not is_sure and barrier.sure_in_seconds is not None:
        sure_at = now + barrier.sure_in_seconds
    members: dict[str, Any] = {
        "id": made,
        "changed": done.result.is_changed,
        "generation": done.generation,
        "sure": is_sure,
        "sure_at": moment(None if sure_at is None else sure_at + 1.0),  # to the second, and not too early
        "workers": barrier.workers if is_asked else None,
        "milliseconds": barrier.milliseconds if is_asked else None,
        "messages": (*done.result.sentences, *([barrier.why] if barrier.why else ())),
        "replayed": False,
        "barrier": barrier_told(barrier),
        "missing": _missing(done.result),
    }
    return Reply(
        document=kind(**members, **more),
        status=HTTPStatus.OK if is_sure else HTTPStatus.ACCEPTED,
        generation=done.generation if done.result.is_changed else None,
    )


def _missing(effect: Effect) -> list[Missing]:
    """What was not there, each with the nearest name, where comparing them takes no time to speak of."""
    is_short = len(effect.missing) * len(effect.known) <= MAX_COMPARED
    known = effect.known if is_short else ()
    return [Missing(name=name, nearest=find_nearest(name, known)) for name in effect.missing]


def barrier_told(barrier: BarrierReport) -> Barrier:
    """How a change came into force, as it is answered."""
    return Barrier(
        workers=barrier.workers,
        acknowledged=barrier.acknowledged,
        milliseconds=barrier.milliseconds,
        sure=barrier.is_sure,
        sure_in_seconds=None if barrier.sure_in_seconds is None else round(barrier.sure_in_seconds, 3),
        held_by=barrier.held,
        servers=barrier.servers,
        why=barrier.why,
    )


def created(reply: Reply, location: str) -> Reply:
    """The same, for something new: 201, or 202, and where it is."""
    status = HTTPStatus.CREATED if reply.status == HTTPStatus.OK else reply.status
    return replace(reply, status=status, location=location)


def impossible(pointer: str, why: object) -> Refusal:
    """The refusal of a value that cannot be."""
    return Refusal(Reason.IMPOSSIBLE_VALUE, fields=(FieldProblem(pointer, str(why)),))
