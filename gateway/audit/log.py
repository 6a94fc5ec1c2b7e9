"""The audit log of one process: record each decision and change before it takes effect, return receipts.

`admit` and `reject` build a record field by field from values whose origin is known; nothing copies the
request as a whole. When a method returns, the record is as durable as configured; when it raises, nothing
may be served (I5).

Refusals of anonymous callers are rate-limited before they are recorded. The summary of the excess is
written by the next event after its second, by `tick`, or at `close`. Summaries are counted in memory: a
process killed within a second loses the counts of that second, but never a record. Beyond the limits a known
key still gets a record for each reason and second; it is left like an outcome, and written after the answer.

Not here: deciding who is allowed (`decision`), and reading the log (`events`, `verify`).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.audit.disk_space import find_disk_space
from gateway.audit.event_bodies import EventBodies
from gateway.audit.folder import parse_node, verify_own, verify_writable
from gateway.audit.head import Signer
from gateway.audit.limits import Durability, Limits
from gateway.audit.record import MAX_LINE_BYTES
from gateway.audit.record_body import RecordBodies
from gateway.audit.refusal_limiter import AnonymousCaller, RefusalLimiter
from gateway.audit.scrub import source_of
from gateway.audit.writer import Writer
from gateway.model.errors import Reason, Unavailable
from gateway.model.questions import Evaluated
from gateway.model.verdicts import ChangeReceipt, Receipt, Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from gateway.audit.chain import Ready
    from gateway.audit.event_bodies import RetentionEvent
    from gateway.audit.gap import Gap
    from gateway.audit.record import Event
    from gateway.audit.record_body import Body
    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.verdicts import Admission, Change, Outcome

    _Ending = tuple[str, Principal, Outcome]
    """How an admission ended: the id of its record, its caller, the outcome."""


class AuditLog:
    """A process's audit log (a `Recorder`): one thread, one chain.

    Outcomes of answers that were recorded together (`record_all`) are deferred, and `on_left` is called so
    that the caller schedules `flush` before the event loop waits; without `on_left`, each is written at once.

    Open it after forking and close it at the end. Raises `Unavailable` when the folder cannot be
    written, `Misconfigured` when the path is not a folder or others can write to it, and for a node's name
    that cannot be part of a file name.
    """

    def __init__(
        self,
        *,
        folder: Path,
        node: str,
        signing_key: Ed25519PrivateKey,
        earlier_keys: Sequence[Ed25519PublicKey] = (),
        clock: Clock,
        durability: Durability = Durability.PROCESS,
        limits: Limits | None = None,
        on_left: Callable[[], None] | None = None,
    ) -> None:
        limits = limits or Limits()
        self._node = parse_node(node)
        self._folder = folder.absolute()
        verify_own(self._folder)
        self._clock = clock
        self._bodies = RecordBodies(node)
        self._events = EventBodies(node)
        self._on_left = on_left
        self._endings: list[_Ending] = []  # of receipts that were closed, and are not yet left to the chain
        self._refusals: list[tuple[str, Rejection]] = []  # of known keys beyond the limits; the same
        self._limiter = RefusalLimiter(per_source=limits.anonymous_per_source, total=limits.anonymous_total)
        self._writer = Writer(
            self._folder, node, Signer(signing_key, earlier_keys), durability, limits, clock.now()
        )

    def admit(self, admission: Admission) -> Receipt:
        """Record an allow and return its receipt."""
        now = self._ready()
        record_id = self._new_id(now)
        self._write_all(
            [(record_id, self._bodies.of_allow(admission)), *self._asked(record_id, admission, now)], now
        )
        return Receipt(
            record_id=record_id,
            admission=admission,
            on_close=partial(self._close_now, record_id, admission.allowed.access.principal),
        )

    def record_all(self, decisions: Sequence[Admission | Rejection]) -> list[Receipt | str]:
        """Record several decisions in one write: all of them are recorded, or none.

        For each in order: the receipt of an allow, the record's id of a refusal (or that of a summary).
        """
        now = self._ready()
        bodies, close = self._bodies, self._close_left
        ready: list[Ready] = []
        recorded: list[Receipt | str] = []
        for decision, record_id in zip(
            decisions, self._writer.envelopes.ids.take(now, len(decisions)), strict=True
        ):
            if isinstance(decision, Rejection):
                later_id = self._count(decision, now)
                recorded.append(later_id or record_id)
                if later_id is None:
                    ready.append((record_id, bodies.of_refusal(decision)))
                continue
            ready.append((record_id, bodies.of_allow(decision)))
            ready += self._asked(record_id, decision, now)
            on_close = partial(close, record_id, decision.allowed.access.principal)
            recorded.append(Receipt(record_id=record_id, admission=decision, on_close=on_close))
        if ready:
            self._write_all(ready, now)
        return recorded

    def _asked(self, decision_id: str, admission: Admission, now: float) -> list[Ready]:
        """The records of the questions of an admission. Only a request about access has any."""
        if not isinstance(admission.found, Evaluated):
            return []
        bodies = self._bodies.of_questions(decision_id, admission)
        return list(zip(self._writer.envelopes.ids.take(now, len(bodies)), bodies, strict=True))

    def _new_id(self, now: float) -> str:
        return self._writer.envelopes.ids.next(now)

    def _count(self, rejection: Rejection, now: float) -> str | None:
        """The id of the record that stands for a refusal of an anonymous caller beyond its limit.

        None where it has to be recorded now.
        """
        if rejection.principal is not None:
            return None
        whose = rejection.claimed_key_id, rejection.claimed_tenant, rejection.claimed_tenant_record
        caller = AnonymousCaller(source_of(rejection.request.client), *whose)
        counted = self._limiter.count(caller, rejection.reason.value, int(now), partial(self._new_id, now))
        if counted is None:
            return None
        if counted.is_own:
            self._refusals.append((counted.record_id, rejection))
            self._tell_left()
        return counted.record_id

    def reject(self, rejection: Rejection) -> str:
        """Record a refusal and return the record's id, beyond the rate limit that of one written later."""
        now = self._ready()
        later_id = self._count(rejection, now)
        if later_id is not None:
            return later_id
        return self._append(self._bodies.of_refusal(rejection), now)

    def change(self, change: Change) -> ChangeReceipt:
        """Record that a change is about to be made."""
        now = self._ready()
        body = self._events.of_change(change)
        if sum(map(len, body)) > MAX_LINE_BYTES // 2:
            raise Unavailable("audit", "the change names too much for one record; split it", Reason.NO_AUDIT)
        record_id = self._append(body, now)
        return ChangeReceipt(record_id=record_id, on_close=partial(self._close_change, record_id, change))

    def note_gap(self, gap: Gap) -> None:
        """Defer the record of a time in which another process could not record."""
        record_id = self._new_id(self._clock.now())
        self._writer.chain.leave([(record_id, self._events.of_gap(gap))])

    def note_retention(self, event: RetentionEvent) -> str:
        """Record what retention is about to do; the record's id."""
        return self._append(self._events.of_retention(event), self._ready())

    def note(self, kind: type[Event], **fields: Any) -> str:
        """Record what happened that is no decision and no change of facts. Returns the record's id.

        Text is cleaned as names are; no field may hold text that a client chose.
        """
        return self._append(self._events.of_event(kind, fields), self._ready())

    def tick(self, now: float) -> None:
        """Write what is due by time: summaries and the signed head. The server calls it every second."""
        self._leave_outcomes(now)
        self._writer.tick(now)
        self._write_summaries(now, int(now))

    def flush(self) -> None:
        """Write the deferred outcomes; `on_left` asks for it."""
        now = self._clock.now()
        self._leave_outcomes(now)
        self._writer.flush(now)

    def check(self) -> None:
        """Raises `Unavailable`, saying what to do, unless the next record can be accepted.

        It also tries to recover: a balancer sends no request to an unready worker, so none would.
        """
        self._writer.check(self._clock.now())
        verify_writable(self._folder)

    def is_healthy(self) -> bool:
        """Whether `check` passes: for readiness."""
        try:
            self.check()
        except Unavailable:
            return False
        return True

    def gauges(self) -> dict[str, float]:
        """How far the log is behind, and the room on its disk; without the latter where it cannot be told.

        What waits is written first, so what is counted as waiting cannot be written.
        """
        with suppress(Unavailable):
            self.flush()
        space = find_disk_space(self._folder)
        return {
            "cachegate_audit_lag_seconds": self._writer.unproven_seconds(self._clock.now()),
            "cachegate_audit_waiting_records": float(len(self._endings) + self._writer.chain.waiting),
            **({} if space is None else space.gauges()),
        }

    def close(self) -> None:
        """Write pending summaries, sign the last head, close the files. Raises `Unavailable` if it cannot."""
        now = self._clock.now()
        try:
            self._leave_outcomes(now)
            self._write_summaries(now, None)
        finally:
            self._writer.close(now)

    def _ready(self) -> float:
        """The time now. Raises `Unavailable` when no record could be accepted."""
        now = self._clock.now()
        try:
            self._leave_outcomes(now)
            self._write_summaries(now, int(now))
            self._writer.ready(now)  # after the summaries: they may make a head due
        except Unavailable:
            self._writer.note_unrecorded()
            raise
        return now

    def _append(self, body: Body, now: float) -> str:
        """Write one record after `_ready`; its id."""
        record_id = self._new_id(now)
        self._write_all([(record_id, body)], now)
        return record_id

    def _write_all(self, ready: Sequence[Ready], now: float) -> None:
        try:
            self._writer.append_all(ready, now)
        except Unavailable:
            self._writer.note_unrecorded()
            raise

    def _write_summaries(self, now: float, second: int | None) -> None:
        while (summary := self._limiter.first_due(second)) is not None:
            self._writer.ready(now)
            self._writer.append_all([(summary.record_id, self._events.of_summary(summary))], now)
            self._limiter.drop_first()  # only now: one that could not be written stays due

    def _close_left(self, decision_id: str, principal: Principal, outcome: Outcome) -> None:
        """Defer the outcome of an answer that was recorded together with others."""
        if self._on_left is None:
            self._close_now(decision_id, principal, outcome)
            return
        self._endings.append((decision_id, principal, outcome))
        self._tell_left()

    def _tell_left(self) -> None:
        """Ask for a flush with the first record that is left; without anybody to ask, make it."""
        if self._on_left is None:
            self.flush()
        elif len(self._endings) + len(self._refusals) == 1:
            self._on_left()

    def _close_now(self, decision_id: str, principal: Principal, outcome: Outcome) -> None:
        """Write the outcome. One that cannot be written now stays deferred."""
        self._endings.append((decision_id, principal, outcome))
        self.flush()

    def _leave_outcomes(self, now: float) -> None:
        """Encode what was left since the last call; it is written in front of the next record."""
        if self._refusals:
            refusals, self._refusals = self._refusals, []
            of_refusal = self._bodies.of_refusal
            self._writer.chain.leave([(one_id, of_refusal(one)) for one_id, one in refusals])
        endings = self._endings
        if not endings:
            return
        self._endings = []
        of_outcome, ids = self._bodies.of_outcome, self._writer.envelopes.ids.take(now, len(endings))
        self._writer.chain.leave(
            [
                (record_id, of_outcome(decision_id, principal, outcome))
                for record_id, (decision_id, principal, outcome) in zip(ids, endings, strict=True)
            ]
        )

    def _close_change(
        self,
        change_id: str,
        change: Change,
        generation: int | None,
        result: str,
        digests: tuple[str, str] | None = None,
    ) -> None:
        now = self._ready()
        self._append(self._events.of_change_outcome(change_id, change, generation, result, digests), now)
