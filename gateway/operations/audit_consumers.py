"""Deliver the log of a node to its consumers, in the process that `assembly/audit_consumers.py` starts.

It reads its order from standard input, says on standard output every second how each consumer is doing, and
ends when standard input ends. One process of a folder does it, by a lock. Here the targets are made of their
registrations.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.adapters.push_client import PushClient
from gateway.adapters.redis_stream import RedisStream, StreamFullError
from gateway.adapters.syslog_connection import SyslogConnection
from gateway.assembly.audit_consumers import ConsumersOrder, ConsumersReport
from gateway.assembly.signing import load_earlier_keys, load_signing_key
from gateway.audit.consumers.dead_letters import SUFFIX, DeadLetters
from gateway.audit.consumers.delivery import Delivery, DeliveryLimits
from gateway.audit.consumers.push import PushTarget, parse_secrets
from gateway.audit.consumers.registry import CONSUMERS_NAME, ConsumerRegistry
from gateway.audit.consumers.runner import ConsumerRunner, ConsumerStatus
from gateway.audit.consumers.stream import StreamTarget
from gateway.audit.consumers.syslog import FACILITY, MOST_MESSAGE_BYTES, SyslogTarget
from gateway.audit.index import IndexReader
from gateway.audit.log import AuditLog
from gateway.audit.record import ExportRecord
from gateway.audit.timeline import time_text
from gateway.model.errors import CachegateError, Misconfigured, Unavailable
from gateway.model.file_lock import FileLock
from gateway.model.trusted_files import make_own_folder, read_trusted, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.audit.consumers.delivery import DeliveryTarget
    from gateway.audit.consumers.registry import Consumer, Registration

LOCK_NAME = "runner.lock"
STREAM_NAME = "stream"
NICE = 5  # requests come first
LOCK_LOOK_SECONDS = 0.2
REFUSALS_SECONDS = 60.0  # between two records about refusals of one consumer
MOST_SECRET_FILE_BYTES = 4096
_LIMITS = {
    # Some milliseconds of the server, where so much waits: each append may wait for its disk.
    "stream": DeliveryLimits(records=1000, bytes=1 << 20),
    "push": DeliveryLimits(records=1000, bytes=1 << 20),
    "syslog": DeliveryLimits(records=500, bytes=512 << 10),
}


class RefusalNotes:
    """Records what consumers refused for good: the first at once, then at most once a minute for each.

    The bound matters: the record about a refusal is itself delivered, and refused.
    """

    def __init__(self, open_log: Callable[[], AuditLog], monotonic: Callable[[], float]) -> None:
        self._open_log = open_log
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._waiting: dict[str, tuple[int, str]] = {}
        self._noted_at: dict[str, float] = {}

    def add(self, name: str, count: int, why: str) -> None:
        """Count refused records. Thread-safe."""
        with self._mutex:
            before, _ = self._waiting.get(name, (0, ""))
            self._waiting[name] = (before + count, why)

    def write_due(self, *, is_last: bool = False) -> None:
        """Record what is due. Raises `Unavailable`; then it is recorded later."""
        now = self._monotonic()
        with self._mutex:
            due = {
                name: waiting
                for name, waiting in self._waiting.items()
                if is_last or now - self._noted_at.get(name, -REFUSALS_SECONDS) >= REFUSALS_SECONDS
            }
        if not due:
            return
        log = self._open_log()
        try:
            for name, (count, why) in due.items():
                log.note(ExportRecord, target=name, state="refused", records=count, reason=why)
                self._noted_at[name] = now
                with self._mutex:
                    left = self._waiting[name][0] - count
                    if left:
                        self._waiting[name] = (left, self._waiting[name][1])
                    else:
                        del self._waiting[name]
        finally:
            log.close()


class ConsumerTargets:
    """Makes deliveries for registrations."""

    def __init__(self, order: ConsumersOrder, notes: RefusalNotes) -> None:
        self._order = order
        self._folder = Path(order.folder)
        self._notes = notes
        self._registry = ConsumerRegistry(self._folder)

    def make(self, consumer: Consumer, is_ending: Callable[[], bool]) -> Delivery:
        """The delivery to a consumer. Raises `Misconfigured`."""
        return Delivery(
            self._folder,
            consumer,
            self._registry,
            IndexReader(self._folder, self._order.node),  # one each: it is locked while it reads
            self._target(consumer.registration),
            is_ending=is_ending,
            now=SystemClock().now,
            limits=_LIMITS[consumer.registration.kind],
        )

    def _target(self, registration: Registration) -> DeliveryTarget:
        order, options, now = self._order, registration.options, SystemClock().now
        match registration.kind:
            case "stream":
                stream = RedisStream(order.redis_url, order.node, cap_bytes=order.stream_bytes)
                return StreamTarget(stream, full=StreamFullError)
            case "push":
                return PushTarget(
                    PushClient(
                        options["url"],
                        ca_file=_path(options, "ca_file"),
                        may_be_plain=options.get("plain") == "yes",
                    ),
                    DeadLetters(self._folder / CONSUMERS_NAME / f"{registration.name}{SUFFIX}"),
                    node=order.node,
                    load_secrets=lambda: load_secrets(Path(options["secret_file"])),
                    note_refusal=lambda count, why: self._notes.add(registration.name, count, why),
                    now=now,
                )
            case "syslog":
                return SyslogTarget(
                    SyslogConnection(
                        options["host"],
                        int(options["port"]),
                        ca_file=_path(options, "ca_file"),
                        certificate_file=_path(options, "certificate_file"),
                        key_file=_path(options, "key_file"),
                    ),
                    now=now,
                    facility=int(options.get("facility", FACILITY)),
                    most_bytes=int(options.get("max_bytes", MOST_MESSAGE_BYTES)),
                )
            case _:
                raise Misconfigured(registration.name, "is a consumer that nothing is delivered to from here")


def load_secrets(path: Path) -> Sequence[bytes]:
    """The secrets of a target, from their file. Raises `Misconfigured`, which repeats none."""
    try:
        return parse_secrets(read_trusted(path, max_bytes=MOST_SECRET_FILE_BYTES, is_secret=True))
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({refusal_of(path, error)})") from error
    except ValueError as error:
        raise Misconfigured(str(path), str(error)) from None


def run_consumers(
    order: ConsumersOrder, say: Callable[[ConsumersReport], None], ended: threading.Event
) -> None:
    """Deliver until `ended`. Raises `CachegateError` and `OSError`."""
    folder, clock = Path(order.folder), SystemClock()
    key_file = Path(order.signing_key_file)
    key, earlier = load_signing_key(key_file), load_earlier_keys(key_file)

    def open_log() -> AuditLog:
        return AuditLog(folder=folder, node=order.node, signing_key=key, earlier_keys=earlier, clock=clock)

    registry = ConsumerRegistry(folder)
    notes = RefusalNotes(open_log, time.monotonic)
    make_own_folder(folder / CONSUMERS_NAME, is_private=False)
    with FileLock(folder / CONSUMERS_NAME / LOCK_NAME) as lock:
        while not lock.is_taken_alone():  # the one before is still ending
            if ended.wait(LOCK_LOOK_SECONDS):
                return
            say(ConsumersReport())
        try:
            register_stream(registry, order, clock.now())
        except CachegateError as failure:  # a damaged registration, or too many: the others go on
            say(ConsumersReport(failed=f"the audit stream is not registered: {failure}"))

        def report(statuses: list[ConsumerStatus]) -> None:
            failed = None
            try:
                notes.write_due()
            except Unavailable as failure:
                failed = str(failure)
            say(ConsumersReport(consumers=statuses, damaged=registry.damaged()))
            if failed is not None:
                say(ConsumersReport(failed=failed))

        runner = ConsumerRunner(
            registry,
            IndexReader(folder, order.node),
            ConsumerTargets(order, notes).make,
            report,
            now=clock.now,
            monotonic=time.monotonic,
        )
        threading.Thread(target=_end_with, args=(ended, runner), daemon=True).start()
        runner.run()
        notes.write_due(is_last=True)


def register_stream(registry: ConsumerRegistry, order: ConsumersOrder, now: float) -> None:
    """Make the registry say what the setting says: the stream is a consumer, or none."""
    found = registry.find(STREAM_NAME)
    if order.has_stream and found is None:
        registry.add(STREAM_NAME, "stream", now=time_text(now))
    elif not order.has_stream and found is not None and found.registration.kind == "stream":
        registry.remove(STREAM_NAME)


def main() -> None:
    """Read an order from standard input, and deliver until that ends."""
    os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=ConsumersOrder)
    ended = threading.Event()
    threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    status = 0
    try:
        run_consumers(order, _say, ended)
    except CachegateError as failure:
        _say(ConsumersReport(failed=str(failure)))
        status = 1
    except BrokenPipeError:
        status = 1  # nobody listens any more
    except OSError as error:
        _say(ConsumersReport(failed=f"the consumers' folder cannot be used ({error.strerror})"))
        status = 1
    os._exit(status)  # threads that hang, as in a name server's answer, are not waited for


def _say(report: ConsumersReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _watch_input(ended: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    ended.set()


def _end_with(ended: threading.Event, runner: ConsumerRunner) -> None:
    ended.wait()
    runner.end()


def _path(options: dict[str, str], name: str) -> Path | None:
    return Path(options[name]) if name in options else None
