"""Group commit: nothing has a result before the sync of its group, and the event loop waits for no disk."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from contextlib import contextmanager
from datetime import datetime

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.audit import Limits, read_events
from gateway.audit.grouped_log import GroupedLog
from gateway.audit.record import ModeRecord
from gateway.audit.report import Verdict
from gateway.model.access import Action
from gateway.model.errors import Reason, Unavailable
from gateway.model.questions import Answered, Evaluated, Question
from gateway.model.verdicts import Change, Ending
from tests.record_schema import findings_in


@pytest.fixture
def grouped(audit):
    """Runs a test's coroutine with a log, which it may close."""
    logs = []

    def opened(**limits):
        log = GroupedLog(
            folder=audit.folder,
            node="node-1",
            signing_key=audit.key,
            clock=SystemClock(),
            limits=Limits(**limits),
        )
        logs.append(log)
        return log

    yield opened
    for log in logs:
        log.close()
    assert audit.verify().is_intact


class Syncs:
    """Counts the syncs of segments, and may hold them."""

    def __init__(self, monkeypatch):
        self.gate = threading.Event()
        self.gate.set()
        self.held = threading.Event()
        self.count = 0
        self.threads = set()
        sync = os.fdatasync

        def counted(descriptor):
            self.threads.add(threading.current_thread().name)
            self.count += 1
            self.held.set()
            self.gate.wait()
            sync(descriptor)

        monkeypatch.setattr(os, "fdatasync", counted)

    @contextmanager
    def hanging(self):
        self.held.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    async def until_held(self):
        await asyncio.to_thread(self.held.wait)


@pytest.fixture
def syncs(monkeypatch):
    return Syncs(monkeypatch)


def of_kind(audit, kind):
    return [
        one
        for one in map(json.loads, (event.line for event in read_events(audit.folder)))
        if one["kind"] == kind
    ]


async def until(is_so):
    while not is_so():  # noqa: ASYNC110 -- what another thread does is no event of this loop
        await asyncio.sleep(0.005)


def admission(audit):
    return audit.held_admission()  # its file is in memory: nothing has to be closed


def test_a_receipt_is_there_only_after_the_sync(grouped, audit, syncs):
    log = grouped()

    async def run():
        with syncs.hanging():
            waiting = log.admit(admission(audit))
            await syncs.until_held()
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
        receipt = await waiting
        assert receipt.record_id in {one["id"] for one in of_kind(audit, "decision")}
        receipt.close(audit.outcome())

    asyncio.run(run())
    log.close()
    assert [one["ending"] for one in of_kind(audit, "outcome")] == ["complete"]
    assert audit.verify().verdict is Verdict.INTACT


def test_no_file_of_the_log_is_touched_on_the_event_loop(grouped, audit, syncs, monkeypatch):
    log = grouped(head_records=3, segment_bytes=3000)
    touched = set()

    def watched(name, call):
        def noted(*arguments, **more):
            if threading.current_thread() is threading.main_thread() and arguments[0] != os.devnull:
                touched.add(name)
            return call(*arguments, **more)

        return noted

    for name in ("open", "write", "lstat", "fstat", "pread", "ftruncate", "rename", "fdatasync", "fsync"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))

    async def run():
        for _ in range(10):
            recorded = await log.record_all([admission(audit) for _ in range(4)] + [audit.denial()])
            for receipt in recorded[:4]:
                receipt.close(audit.outcome())
            await log.reject(audit.nobody())
            receipt = await log.change(Change(actor="a", action="b", received_at=0.0))
            receipt.close(generation=1, result="done")
            await log.tick(0.0)
            log.flush()
            log.check()
            assert log.is_healthy()

    asyncio.run(run())
    assert touched == set()
    monkeypatch.undo()
    assert len(audit.segments) > 3


def test_calls_share_a_sync(grouped, audit, syncs):
    log = grouped()

    async def run():
        await log.tick(0.0)
        before = syncs.count
        syncs.threads.clear()
        await asyncio.gather(*(log.reject(audit.denial()) for _ in range(50)))
        assert syncs.count == before + 1
        with syncs.hanging():
            first = log.reject(audit.denial())
            await syncs.until_held()
            others = [log.reject(audit.denial()) for _ in range(50)]
        await asyncio.gather(first, *others)
        assert syncs.count == before + 3  # those that came during a sync wait for one more

    asyncio.run(run())
    assert syncs.threads == {"audit"}


def test_what_nobody_waits_for_is_written_soon(grouped, audit, syncs):
    log = grouped()

    async def run():
        receipt = await log.admit(admission(audit))
        receipt.close(audit.outcome())
        await until(lambda: of_kind(audit, "outcome"))

    asyncio.run(run())


def test_a_disk_that_hangs_fails_what_waits_and_then_everything_at_once(grouped, audit, syncs):
    log = grouped(patience_seconds=0.05)

    async def run():
        receipt = await log.admit(admission(audit))
        with syncs.hanging():
            waiting = [log.admit(admission(audit)), log.reject(audit.denial())]
            await syncs.until_held()
            late = log.reject(audit.denial())
            for one in (*waiting, late):
                with pytest.raises(Unavailable, match="has not answered"):
                    await one
            for call in (
                lambda: log.admit(admission(audit)),
                lambda: log.reject(audit.denial()),
                lambda: log.record_all([audit.denial()]),
                lambda: log.change(Change(actor="a", action="b", received_at=0.0)),
                log.check,
            ):
                with pytest.raises(Unavailable, match="has not answered"):
                    call()
            assert not log.is_healthy()
            receipt.close(audit.outcome())  # a transfer that was under way ends
        await until(log.is_healthy)
        (await log.admit(admission(audit))).close(audit.outcome())
        await log.tick(0.0)

    asyncio.run(run())
    log.close()
    [gap] = of_kind(audit, "gap")
    assert gap["refused"] == 7  # three that waited, four calls
    assert gap["since"] < gap["until"]
    assert "has not answered" in gap["why"]
    allows = [one["id"] for one in of_kind(audit, "decision") if one["decision"] == "allow"]
    endings = {one["decision_id"]: one["ending"] for one in of_kind(audit, "outcome")}
    # The allow that was written after all, and that nobody got, says so.
    assert [endings[one] for one in allows] == ["complete", Ending.WITHDRAWN, "complete"]


@pytest.fixture
def full_pipe():
    """The end of a pipe to write to; a write blocks until the other end is read or closed."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield reading, writing
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_a_write_that_hangs_blocks_the_thread_alone(grouped, audit, full_pipe):
    """A FIFO in place of the segment: the write blocks in the kernel, as on a device that does not answer."""
    log = grouped(patience_seconds=0.05, pause_seconds=0.01)
    reading, writing = full_pipe

    async def run():
        await log.reject(audit.denial())
        segment = log._writer._segment
        os.dup2(writing, segment._descriptor)
        assert stat.S_ISFIFO(os.fstat(segment._descriptor).st_mode)
        with pytest.raises(Unavailable, match="has not answered"):
            await log.reject(audit.denial())
        await asyncio.to_thread(os.read, reading, 1 << 20)  # it returns; a pipe cannot be synced
        while True:
            try:
                await log.reject(audit.denial())
                break
            except Unavailable:
                await asyncio.sleep(0.01)
        await log.tick(0.0)

    asyncio.run(run())
    log.close()
    assert of_kind(audit, "gap")


def test_a_full_disk_refuses_the_group_and_goes_on_when_there_is_room(grouped, audit):
    import resource  # noqa: PLC0415

    log = grouped()

    async def run():
        await log.reject(audit.denial())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (audit.segments[0].stat().st_size + 100, hard))
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match="largest size"):
                    await log.reject(audit.denial())
            assert not log.is_healthy()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await log.tick(0.0)
        assert log.is_healthy()

    asyncio.run(run())
    log.close()
    [gap] = of_kind(audit, "gap")
    assert gap["refused"] == 3
    assert datetime.fromisoformat(gap["since"]) <= datetime.fromisoformat(gap["until"])


def test_refusals_of_strangers_beyond_the_limit_wait_for_the_disk_as_well(grouped, audit, syncs):
    log = grouped(anonymous_per_source=1, patience_seconds=0.05)

    async def run():
        ids = {await log.reject(audit.nobody()) for _ in range(5)}
        assert len(ids) <= 4
        with syncs.hanging():
            first = log.reject(audit.denial())
            await syncs.until_held()
            with pytest.raises(Unavailable):
                await log.reject(audit.nobody())
            with pytest.raises(Unavailable):
                await first
        await until(log.is_healthy)

    asyncio.run(run())
    log.close()
    assert sum(one["count"] for one in of_kind(audit, "summary")) >= 3


def test_a_closed_log_takes_nothing_and_has_its_last_head(grouped, audit):
    log = grouped()

    async def run():
        await log.reject(audit.denial())
        log.close()
        with pytest.raises(Unavailable, match="closed"):
            log.reject(audit.denial())

    asyncio.run(run())
    assert audit.verify().verdict is Verdict.INTACT
    assert audit.listed()[-1]["state"] == "closed"


def test_events_and_questions_are_recorded_and_what_waits_is_shown(grouped, audit, syncs):
    log = grouped()
    asked = Answered(question=Question(action=Action.READ), is_yes=False, reason=Reason.NOT_PERMITTED)
    one = replace(admission(audit), found=Evaluated(answers=(asked, asked), is_batch=True))

    async def run():
        await log.tick(0.0)
        record_id = log.note(ModeRecord, worker="w", mode="no-lease", generation=7)
        with syncs.hanging():
            waiting = [log.admit(one), log.record_all([one])]
            await syncs.until_held()
            assert log.gauges()["cachegate_audit_waiting_records"] == 7.0  # with that of the event
        receipts = [await waiting[0], *(await waiting[1])]
        assert log.gauges()["cachegate_audit_disk_bytes"] > 0
        for receipt in receipts:
            receipt.close(audit.outcome())
        return record_id, [receipt.record_id for receipt in receipts]

    mode_id, ask_ids = asyncio.run(run())
    log.close()
    assert [event["id"] for event in of_kind(audit, "mode")] == [mode_id]
    assert [(event["ask_id"], event["item"]) for event in of_kind(audit, "question")] == [
        (ask_id, item) for ask_id in ask_ids for item in (0, 1)
    ]
    assert list(findings_in(audit.folder)) == []
    assert audit.verify().verdict is Verdict.INTACT
