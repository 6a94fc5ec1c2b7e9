"""The chore that has the index of the audit log kept up to date: a real process, and one worker at a time."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.adapters.clock import SystemClock
from gateway.assembly import audit_indexing
from gateway.assembly.audit_indexing import AuditIndexing
from gateway.assembly.components import build_recorder
from gateway.audit import Query, read_events
from gateway.audit.index import IndexReader
from gateway.audit.index.indexer import LOCK_NAME
from gateway.audit.index.reader import search_log
from gateway.audit.usage import UsageKeeper, UsageQuery, UsageRollups, figures_of, rollups
from gateway.audit.usage.rollups import SAVE_RECORDS
from gateway.configuration.sources import load_settings
from gateway.model.errors import Reason
from gateway.model.file_lock import FileLock
from gateway.model.verdicts import Rejection
from gateway.operations.audit_indexing import Following, extend
from tests import samples

REFUSED = Rejection(
    request=samples.wire_request(client="192.0.2.1", route="/v1/models"),
    reason=Reason.NOT_PERMITTED,
    principal=samples.principal(),
)


@pytest.fixture
def settings(installation):
    return load_settings(installation.variables())


@pytest.fixture
def log(settings):
    log = build_recorder(settings, SystemClock())
    yield log
    log.close()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- the event is one of another process
            await asyncio.sleep(0.01)


def read_on(reader, seen):
    """The ids of all that is in order; `seen` has them, and the cursor behind them."""
    cursor = seen.get("cursor") or reader.start()
    while reader.has_more(cursor):
        page = reader.read(cursor, 100)
        seen |= dict.fromkeys(one.record.id for one in page.records)
        cursor = seen["cursor"] = page.cursor
    return seen


def test_it_follows_the_log_and_is_started_again_when_it_is_killed(settings, log, monkeypatch):
    started, failures, seen = [], [], {}
    start = asyncio.create_subprocess_exec

    async def noted(*arguments, **options):
        started.append(await start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(audit_indexing.asyncio, "create_subprocess_exec", noted)
    reader = IndexReader(settings.audit_folder, settings.node)

    async def run():
        chore = AuditIndexing(
            settings, lambda _lag: None, failures.append, first_seconds=0, again_seconds=0.01
        )
        other = AuditIndexing(settings, lambda _lag: None, failures.append)
        await chore.prepare()
        await other.prepare()
        task = asyncio.create_task(chore.run())
        for _ in range(2):
            record_id = log.reject(REFUSED)
            await until(lambda record_id=record_id: record_id in read_on(reader, seen))
            assert not other.leads()
            count = len(started)
            os.kill(started[-1].pid, signal.SIGKILL)
            await until(lambda count=count: len(started) > count)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await chore.close()
        assert other.leads()
        await other.close()

    asyncio.run(run())
    assert {failure.dependency for failure in failures} == {"audit-index"}


def test_a_command_extends_it_only_where_nobody_follows(settings, log):
    log.reject(REFUSED)
    folder = settings.audit_folder
    assert extend(folder, settings.node)
    reader = IndexReader(folder, settings.node)
    end = reader.end()
    log.reject(REFUSED)
    with FileLock(folder / LOCK_NAME) as lock:
        assert lock.is_taken_alone()
        assert not extend(folder, settings.node)
    assert not reader.has_more(end)
    assert extend(folder, settings.node)
    assert reader.has_more(end)


def test_a_disk_that_takes_nothing_is_told_and_tried_again(settings, log, monkeypatch):
    """The index fails; searches and records do not."""
    log.reject(REFUSED)
    told, pauses = [], []

    def full(_descriptor, _content):
        raise OSError(28, "No space left on device")

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            monkeypatch.undo()
        return len(pauses) < 4

    monkeypatch.setattr("gateway.audit.index.indexer.write_whole", full)
    Following(settings.audit_folder, settings.node, SystemClock(), pause, told.append).run()
    assert "No space left" in told[0].failed
    reader = IndexReader(settings.audit_folder, settings.node)
    assert reader.has_more(reader.start())
    query = Query(reason=str(Reason.NOT_PERMITTED))
    found = [one.line for one in search_log(settings.audit_folder, query)]
    assert found == [event.line for event in read_events(settings.audit_folder, query)]
    assert found


def test_who_follows_the_log_counts_for_usage_and_goes_on_where_that_fails(settings, log, monkeypatch):
    log.reject(REFUSED)
    looks = iter([True, True, True, False])
    follow, failures = UsageKeeper.follow, iter([OSError(28, "No space left on device")])

    def failing_once(self, now, limit=SAVE_RECORDS):
        for failure in failures:
            raise failure
        return follow(self, now, limit)

    monkeypatch.setattr(UsageKeeper, "follow", failing_once)
    told = []
    arguments = (settings.audit_folder, settings.node, SystemClock(), lambda _: next(looks), told.append)
    Following(*arguments).run()
    assert not [one for one in told if one.failed]
    monkeypatch.setattr(rollups, "MAX_TAIL_RECORDS", 0)  # what is kept, alone
    reader = IndexReader(settings.audit_folder, settings.node)
    figures = figures_of(UsageRollups(settings.audit_folder, reader).days().days, UsageQuery())
    assert sum(one.count for one in figures.refusals if one.reason == Reason.NOT_PERMITTED) > 0
