"""The audit log of a worker that promises durability against a power failure: group commit on a thread.

One thread owns the writer, and with it every file of the log. The event loop encodes the records, hands them
over in groups, and gets a future for each call: it never waits for a disk. While the thread writes and syncs
one group, the next one collects, so that any number of requests share one `fdatasync`.

    record_all ─▶ future        ┌─────────── the thread ───────────┐
    admit      ─▶ future ─group─▶ seal, write, fdatasync, or a fault ─▶ the futures of the group
    outcomes   ─▶ (deferred)    └──────────────────────────────────┘

A future has its result only after the sync of its group (I5). What nobody waits for (outcomes, summaries)
goes with the next group, or with one of its own shortly after.

A disk that does not answer blocks the thread and nothing else. Once a group has taken `patience_seconds`, its
futures and all later calls fail with `Unavailable` until the thread is back. Then the log says so itself: the
allows of that group, which nobody got, are closed as withdrawn, and a `gap` record has the time and the
number of calls that were refused.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gateway.audit.disk_space import DiskSpace, find_disk_space
from gateway.audit.event_bodies import EventBodies
from gateway.audit.folder import parse_node, verify_own, verify_writable
from gateway.audit.gap import OpenGap
from gateway.audit.head import Signer
from gateway.audit.limits import Durability, Limits
from gateway.audit.record import MAX_LINE_BYTES
from gateway.audit.record_body import RecordBodies
from gateway.audit.refusal_limiter import AnonymousCaller, RefusalLimiter
from gateway.audit.scrub import source_of
from gateway.audit.timeline import RecordIds
from gateway.audit.writer import Writer
from gateway.model.errors import Reason, Unavailable
from gateway.model.questions import Evaluated
from gateway.model.verdicts import WITHDRAWN, ChangeReceipt, Receipt, Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from gateway.audit.chain import Ready
    from gateway.audit.gap import Gap
    from gateway.audit.record import Event
    from gateway.audit.record_body import Body
    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.verdicts import Admission, Change, Outcome

T = TypeVar("T")

OUTCOME_SECONDS = 0.05  # how long what nobody waits for may wait for a group to go with
MOST_WAITING = 10_000  # records of calls that wait: some 10 MB; more are refused
SWITCH_SECONDS = 0.0005  # after a sync the thread needs the interpreter; the default lets it wait for 5 ms
"""Set for the process: `sys.setswitchinterval`."""


class _Call:
    """One call that waits for its records: what they are, and what it returns once they are written.

    `withdraw` is called if they were written after all, when the caller had been told that they were not.
    """

    __slots__ = ("future", "is_request", "ready", "result", "withdraw")

    def __init__(
        self, ready: list[Ready], result: Any, withdraw: Callable[[], None], *, is_request: bool = True
    ) -> None:
        self.is_request = is_request
        self.ready = ready
        self.result = result
        self.withdraw = withdraw
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)


class _Group(msgspec.Struct, frozen=True):
    """What the thread writes at once. `left` is what nobody waits for; a tick does what is due by time."""

    calls: list[_Call]
    left: list[Ready]
    is_tick: bool = False


class GroupedLog:
    """A worker's audit log (a `Recorder`) with group commit. Called on the event loop of one thread.

    Open it after forking and close it at the end. Raises what `AuditLog` does.
    """

    def __init__(
        self,
        *,
        folder: Path,
        node: str,
        signing_key: Ed25519PrivateKey,
        earlier_keys: Sequence[Ed25519PublicKey] = (),
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._node = parse_node(node)
        self._folder = folder.absolute()
        verify_own(self._folder)
        self._clock = clock
        self._bodies = RecordBodies(node)
        self._events = EventBodies(node)
        self._ids = RecordIds()  # the writer's own are the thread's
        self._limiter = RefusalLimiter(per_source=limits.anonymous_per_source, total=limits.anonymous_total)
        self._writer = Writer(
            self._folder, node, Signer(signing_key, earlier_keys), Durability.POWER, limits, clock.now()
        )
        self._groups: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_groups, name="audit", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: list[_Call] = []
        self._left: list[Ready] = []
        self._waiting_records = 0
        self._is_tick_due = False
        self._is_dispatch_due = False
        self._at_work: _Group | None = None  # the group that the thread has
        self._failure: Unavailable | None = None  # of the last group
        self._gap = OpenGap()  # while the thread does not come back
        self._is_stuck = False
        self._is_closed = False
        self._space: DiskSpace | None = None

    # What is waited for

    def admit(self, admission: Admission) -> asyncio.Future[Receipt]:
        """Record an allow; its receipt."""
        now = self._verify_open()
        receipt = self._receipt(self._ids.next(now), admission)
        ready: list[Ready] = [(receipt.record_id, self._bodies.of_allow(admission))]
        ready += self._asked(receipt.record_id, admission, now)
        return self._submit(_Call(ready, receipt, partial(self._withdraw, [receipt])))

    def record_all(self, decisions: Sequence[Admission | Rejection]) -> asyncio.Future[list[Receipt | str]]:
        """Record several decisions in one group: all of them are recorded, or none."""
        now = self._verify_open()
        ready: list[Ready] = []
        recorded: list[Receipt | str] = []
        for decision, record_id in zip(decisions, self._ids.take(now, len(decisions)), strict=True):
            if isinstance(decision, Rejection):
                recorded.append(self._add_refusal(decision, record_id, now, ready))
                continue
            ready.append((record_id, self._bodies.of_allow(decision)))
            ready += self._asked(record_id, decision, now)
            recorded.append(self._receipt(record_id, decision))
        receipts = [one for one in recorded if isinstance(one, Receipt)]
        return self._submit(_Call(ready, recorded, partial(self._withdraw, receipts)))

    def reject(self, rejection: Rejection) -> asyncio.Future[str]:
        """Record a refusal; the id of its record, or of the summary beyond the rate limit."""
        now = self._verify_open()
        ready: list[Ready] = []
        record_id = self._add_refusal(rejection, self._ids.next(now), now, ready)
        return self._submit(_Call(ready, record_id, _do_nothing))

    def change(self, change: Change) -> asyncio.Future[ChangeReceipt]:
        """Record that a change is about to be made."""
        now = self._verify_open()
        record_id = self._ids.next(now)
        body = self._events.of_change(change)
        if sum(map(len, body)) > MAX_LINE_BYTES // 2:
            raise Unavailable("audit", "the change names too much for one record; split it", Reason.NO_AUDIT)
        receipt = ChangeReceipt(record_id=record_id, on_close=partial(self._close_change, record_id, change))
        not_made = partial(self._close_change, record_id, change, None, "unavailable: recorded too late")
        return self._submit(_Call([(record_id, body)], receipt, not_made))

    def tick(self, _now: float) -> asyncio.Future[None]:
        """Write what is due by time: summaries and the signed head. The server calls it every second."""
        self._verify_open(is_request=False)
        self._is_tick_due = True
        return self._submit(_Call([], None, _do_nothing, is_request=False))

    # What is known without waiting

    def check(self) -> None:
        """Raises `Unavailable`, saying what to do, unless the last group was written, and in time."""
        if self._is_stuck:
            raise self._not_answering()
        if self._failure is not None:
            raise self._failure

    def is_healthy(self) -> bool:
        """Whether `check` passes: for readiness. `tick` keeps it up to date."""
        return not self._is_stuck and self._failure is None

    def note_gap(self, gap: Gap) -> None:
        """Defer the record of a time in which another process could not record."""
        self._leave(self._ids.next(self._clock.now()), self._events.of_gap(gap))

    def note(self, kind: type[Event], **fields: Any) -> str:
        """Defer the record of what is no decision and no change of facts; its id."""
        record_id = self._ids.next(self._clock.now())
        self._leave(record_id, self._events.of_event(kind, fields))
        return record_id

    def gauges(self) -> dict[str, float]:
        """How far the log is behind, and the room on its disk as the thread saw it last."""
        waiting, queued = self._waiting_records + len(self._left), self._writer.chain.waiting
        if self._at_work is not None:
            queued = max(queued, len(self._at_work.left))  # the thread adds them to the queue
            waiting += sum(len(call.ready) for call in self._at_work.calls)
        space = self._space
        return {
            "cachegate_audit_lag_seconds": self._writer.unproven_seconds(self._clock.now()),
            "cachegate_audit_waiting_records": float(waiting + queued),
            **(space.gauges() if space is not None else {}),
        }

    def flush(self) -> None:
        """Hand over what nobody waits for."""
        if self._left:
            self._dispatch_soon()

    def close(self) -> None:
        """Write what waits, sign the last head, close the files. Raises `Unavailable` if it cannot.

        It blocks, for as long as a group may take: the worker ends.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._take_summaries(None)
        calls, left = self._take()
        if not self._thread.ident:
            self._thread.start()
        self._groups.put(_Group(calls, left))
        self._groups.put(None)
        self._thread.join(self._limits.patience_seconds)
        if self._thread.is_alive():
            raise self._not_answering()
        if self._failure is not None:
            raise self._failure

    # On the loop

    def _verify_open(self, *, is_request: bool = True) -> float:
        """The time now. Raises `Unavailable` when no call can be recorded for certain."""
        if self._is_closed:
            raise Unavailable("audit", "the log is closed", Reason.NO_AUDIT)
        if self._is_stuck:
            self._gap.count(is_request)
            raise self._not_answering()
        if self._waiting_records >= MOST_WAITING:
            raise Unavailable("audit", "too many records wait for the disk", Reason.NO_AUDIT)
        now = self._clock.now()
        self._take_summaries(int(now))
        return now

    def _not_answering(self) -> Unavailable:
        seconds = self._limits.patience_seconds
        why = f"the disk of {self._folder} has not answered for {seconds:g} s; check the device and the mount"
        return Unavailable("audit", why, Reason.NO_AUDIT)

    def _receipt(self, record_id: str, admission: Admission) -> Receipt:
        principal = admission.allowed.access.principal
        on_close = partial(self._leave_outcome, record_id, principal)
        return Receipt(record_id=record_id, admission=admission, on_close=on_close)

    def _asked(self, decision_id: str, admission: Admission, now: float) -> list[Ready]:
        """The records of the questions of an admission. Only a request about access has any."""
        if not isinstance(admission.found, Evaluated):
            return []
        bodies = self._bodies.of_questions(decision_id, admission)
        return list(zip(self._ids.take(now, len(bodies)), bodies, strict=True))

    def _add_refusal(self, rejection: Rejection, record_id: str, now: float, ready: list[Ready]) -> str:
        if rejection.principal is None:
            whose = rejection.claimed_key_id, rejection.claimed_tenant, rejection.claimed_tenant_record
            caller = AnonymousCaller(source_of(rejection.request.client), *whose)
            new_id = partial(self._ids.next, now)
            counted = self._limiter.count(caller, rejection.reason.value, int(now), new_id)
            if counted is not None:
                if counted.is_own:  # of a key that is known: recorded whole, behind the answer
                    self._leave(counted.record_id, self._bodies.of_refusal(rejection))
                return counted.record_id
        ready.append((record_id, self._bodies.of_refusal(rejection)))
        return record_id

    def _take_summaries(self, second: int | None) -> None:
        while (summary := self._limiter.first_due(second)) is not None:
            self._leave(summary.record_id, self._events.of_summary(summary))
            self._limiter.drop_first()

    def _leave_outcome(self, record_id: str, principal: Principal, outcome: Outcome) -> None:
        body = self._bodies.of_outcome(record_id, principal, outcome)
        self._leave(self._ids.next(self._clock.now()), body)

    def _withdraw(self, receipts: Sequence[Receipt]) -> None:
        """Record that nothing was sent on these allows. Their files were closed when the call failed."""
        for one in receipts:
            self._leave_outcome(one.record_id, one.admission.allowed.access.principal, WITHDRAWN)

    def _close_change(
        self,
        change_id: str,
        change: Change,
        generation: int | None,
        result: str,
        digests: tuple[str, str] | None = None,
    ) -> None:
        body = self._events.of_change_outcome(change_id, change, generation, result, digests)
        self._leave(self._ids.next(self._clock.now()), body)

    def _leave(self, record_id: str, body: Body) -> None:
        """Defer a record. The first one has a group made soon, if no call does before."""
        self._left.append((record_id, body))
        if len(self._left) == 1 and self._loop is not None and not self._is_closed:
            self._loop.call_later(OUTCOME_SECONDS, self._dispatch)

    def _submit(self, call: _Call) -> asyncio.Future[Any]:
        self._calls.append(call)
        self._waiting_records += len(call.ready)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
            self._thread.start()
        self._dispatch_soon()
        return call.future

    def _dispatch_soon(self) -> None:
        """Hand over at the end of this iteration of the event loop, what comes until then included."""
        if self._at_work is None and not self._is_dispatch_due and self._loop is not None:
            self._is_dispatch_due = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_dispatch_due = False
        if self._at_work is not None or self._loop is None or self._is_closed:
            return
        is_tick, self._is_tick_due = self._is_tick_due, False
        calls, left = self._take()
        if not (calls or left):
            return
        group = self._at_work = _Group(calls, left, is_tick)
        self._groups.put(group)
        self._loop.call_later(self._limits.patience_seconds, self._look_after, group)

    def _take(self) -> tuple[list[_Call], list[Ready]]:
        calls, self._calls = self._calls, []
        left, self._left = self._left, []
        self._waiting_records = 0
        return calls, left

    def _look_after(self, group: _Group) -> None:
        """Give up waiting for a group that the thread still has; nothing new is accepted until it is back."""
        if self._at_work is not group:
            return
        self._is_stuck = True
        failure = self._not_answering()
        self._gap.begin(self._clock.now() - self._limits.patience_seconds, failure.why)
        waiting, self._calls, self._waiting_records = self._calls, [], 0
        for call in (*group.calls, *waiting):
            if not call.future.done():
                self._gap.count(call.is_request)
                call.future.set_exception(failure)

    def _end_group(self, group: _Group, failure: BaseException | None) -> None:
        """Give the calls of a group their results. It runs on the loop, after the thread is done with it."""
        self._at_work = None
        was_stuck, self._is_stuck = self._is_stuck, False
        self._failure = failure if isinstance(failure, Unavailable) else None
        for call in group.calls:
            if call.future.done():
                if was_stuck and failure is None:
                    call.withdraw()
            elif failure is not None:
                call.future.set_exception(failure)
            else:
                call.future.set_result(call.result)
        until = self._clock.now()
        gap = self._gap.end(until)
        if gap is not None:
            self._leave(self._ids.next(until), self._events.of_gap(gap))
        if self._calls or self._left:
            self._dispatch_soon()

    # On the thread

    def _write_groups(self) -> None:
        while (group := self._groups.get()) is not None:
            failure: BaseException | None = None
            try:
                self._write(group)
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the calls of the group get it
                failure = error
            if self._is_closed:
                self._end_last(group, failure)
            elif self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(self._end_group, group, failure)
                except RuntimeError:  # the loop ended without `close`
                    return
        try:
            self._writer.close(self._clock.now())
        except Unavailable as error:
            self._failure = error

    def _write(self, group: _Group) -> None:
        now, writer = self._clock.now(), self._writer
        writer.chain.leave(group.left)
        ready = [record for call in group.calls for record in call.ready]
        try:
            if group.is_tick:
                writer.tick(now)
                verify_writable(self._folder)
                self._space = find_disk_space(self._folder)
            writer.ready(now)
            if ready or writer.chain.is_behind:
                writer.append_all(ready, now)
        except Unavailable:
            writer.note_unrecorded(sum(call.is_request for call in group.calls))
            raise

    def _end_last(self, group: _Group, failure: BaseException | None) -> None:
        """The group that `close` handed over: its futures belong to a loop that is ending."""
        if isinstance(failure, Unavailable):
            self._failure = failure
        if self._loop is not None and not self._loop.is_closed():
            for call in group.calls:
                self._loop.call_soon_threadsafe(_settle, call, failure)


def _do_nothing() -> None:
    return


def _settle(call: _Call, failure: BaseException | None) -> None:
    if call.future.done():
        return
    if failure is not None:
        call.future.set_exception(failure)
    else:
        call.future.set_result(call.result)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception, so that asyncio does not warn when the waiter was cancelled."""
    if not future.cancelled():
        future.exception()
