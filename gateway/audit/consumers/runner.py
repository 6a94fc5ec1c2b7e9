"""Run the deliveries of a node: a thread for each consumer, so that none holds up another.

The runner looks at the registry every second: it starts a delivery for what was added, and again, after a
pause that grows, for one that ended by itself; one whose consumer was removed ends by itself. A thread that
hangs stays where it is and is reported as such; the process around all of them ends without waiting for it.

Non-goals: how a target is made (the caller passes that in), and that one process of a node does this.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.audit.consumers.delivery import age_of
from gateway.audit.consumers.registry import RUN_HERE
from gateway.audit.index import parse_cursor
from gateway.model.errors import CachegateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.audit.consumers.delivery import Delivery
    from gateway.audit.consumers.registry import Consumer, ConsumerProgress, ConsumerRegistry
    from gateway.audit.index import IndexReader

ROUND_SECONDS = 1.0
FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS = 1.0, 60.0
HANG_SECONDS = 60.0  # longer than any delivery may take
END_SECONDS = 5.0  # for threads, together


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one consumer is doing, for metrics and the log."""

    name: str
    kind: str
    state: str
    error: str | None = None
    delivered: int = 0
    refused: int = 0
    missed: int = 0
    failures: int = 0
    lag_records: int = 0
    lag_seconds: float = 0.0

    @property
    def is_well(self) -> bool:
        """Whether nothing hinders its delivery, as far as is known."""
        return self.state in {"new", "running", "stopped"}


class MakeDelivery(Protocol):
    """Makes the delivery for a consumer, in the thread that runs it. Raises `CachegateError`."""

    def __call__(self, consumer: Consumer, is_ending: Callable[[], bool]) -> Delivery:
        """Make it."""


class _Running:
    """One delivery in its thread."""

    def __init__(self, consumer: Consumer, make: MakeDelivery, is_ending: Callable[[], bool]) -> None:
        self.consumer = consumer
        self.failure: str | None = None
        self.delivery: Delivery | None = None
        self.beat_seen, self.beat_at = -1, 0.0
        self._make = make
        self._is_ending = is_ending
        self.thread = threading.Thread(
            target=self._run, name=f"consumer-{consumer.registration.name}", daemon=True
        )
        self.thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self.thread.is_alive()

    def _run(self) -> None:
        try:
            self.delivery = self._make(self.consumer, self._is_ending)
            asyncio.run(self.delivery.run())
        except CachegateError as failure:
            self.failure = str(failure)
        except OSError as error:
            self.failure = f"the log cannot be read ({error.strerror}); check the disk"
        except Exception as defect:  # noqa: BLE001 -- the boundary of a consumer: the others go on
            self.failure = f"a defect: {type(defect).__name__}: {defect}"


class ConsumerRunner:
    """The deliveries of one node. `report` gets the status of all consumers after each round."""

    def __init__(
        self,
        registry: ConsumerRegistry,
        reader: IndexReader,
        make: MakeDelivery,
        report: Callable[[list[ConsumerStatus]], None],
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._make = make
        self._report = report
        self._now = now
        self._monotonic = monotonic
        self._ending = threading.Event()
        self._running: dict[str, _Running] = {}
        self._left: list[_Running] = []  # of consumers that were removed, until they have ended
        self._pauses: dict[str, tuple[float, float]] = {}  # restarts: not before, and the pause after that

    def end(self) -> None:
        """Have `run` return. May be called from any thread and from a signal handler."""
        self._ending.set()

    def run(self, round_seconds: float = ROUND_SECONDS) -> None:
        """Run deliveries until `end`. Raises `Unavailable` when the registry cannot be read."""
        try:
            while not self._ending.is_set():
                self._report(self._make_round())
                self._ending.wait(round_seconds)
        finally:
            self._ending.set()
            until = self._monotonic() + END_SECONDS
            for one in [*self._running.values(), *self._left]:
                one.thread.join(max(until - self._monotonic(), 0.0))

    def _make_round(self) -> list[ConsumerStatus]:
        consumers = {one.registration.id: one for one in self._registry.load_all()}
        for gone in self._running.keys() - consumers.keys():
            self._left.append(self._running.pop(gone))
            self._pauses.pop(gone, None)
        self._left = [one for one in self._left if one.is_alive]
        return [self._status(key, consumer) for key, consumer in consumers.items()]

    def _status(self, key: str, consumer: Consumer) -> ConsumerStatus:
        if consumer.registration.kind not in RUN_HERE:
            return self._reading(consumer)
        running = self._running.get(key)
        if running is None or (not running.is_alive and self._may_start(key)):
            running = self._running[key] = _Running(consumer, self._make, self._ending.is_set)
        progress = consumer.progress if running.delivery is None else running.delivery.progress
        if running.failure is not None:
            return _status_of(consumer, progress, state="failing", error=running.failure)
        if self._hangs(running):
            return _status_of(consumer, progress, state="hanging", error="it has not answered for a minute")
        return _status_of(consumer, progress)

    def _may_start(self, key: str) -> bool:
        """Whether what ended by itself may start again; the first time it is asked begins the pause."""
        now = self._monotonic()
        not_before, pause = self._pauses.get(key, (None, FIRST_RESTART_SECONDS))
        if not_before is None or now > not_before + LONGEST_RESTART_SECONDS:
            self._pauses[key] = (now + FIRST_RESTART_SECONDS, FIRST_RESTART_SECONDS)
            return False
        if now < not_before:
            return False
        pause = min(2 * pause, LONGEST_RESTART_SECONDS)
        self._pauses[key] = (now + pause, pause)
        return True

    def _hangs(self, running: _Running) -> bool:
        """Whether its loop did not go on for longer than a delivery may take."""
        now, beat = self._monotonic(), running.delivery.beat if running.delivery is not None else 0
        if beat != running.beat_seen:
            running.beat_seen, running.beat_at = beat, now
        return now - running.beat_at > HANG_SECONDS

    def _reading(self, consumer: Consumer) -> ConsumerStatus:
        """The status of one that comes and takes: how much waits for it."""
        try:
            cursor = self._reader.start() if consumer.cursor is None else parse_cursor(consumer.cursor)
            if not self._reader.has_more(cursor):
                return _status_of(consumer, consumer.progress, lag_records=0, lag_seconds=0.0)
            page = self._reader.read(cursor, 1)
            end = self._reader.end()
        except (CachegateError, ValueError) as failure:
            return _status_of(consumer, consumer.progress, error=str(failure))
        if not page.records:
            return _status_of(consumer, consumer.progress, lag_records=0, lag_seconds=0.0)
        waiting = max(end.place - cursor.place, 1) if end.order == cursor.order else 1
        age = age_of(page.records[0], self._now())
        return _status_of(consumer, consumer.progress, lag_records=waiting, lag_seconds=age)


def _status_of(consumer: Consumer, progress: ConsumerProgress, **changed: object) -> ConsumerStatus:
    values: dict[str, object] = {
        "name": consumer.registration.name,
        "kind": consumer.registration.kind,
        **{name: getattr(progress, name) for name in _FROM_PROGRESS},
        **changed,
    }
    return msgspec.convert(values, ConsumerStatus)


_FROM_PROGRESS = (
    *("state", "error", "delivered", "refused", "missed", "failures", "lag_records", "lag_seconds"),
)
