"""The chore that has the log delivered: one process of a node, which ends with its worker."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal

import pytest

from gateway.assembly.audit_consumers import AuditConsumers
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.configuration.sources import load_settings

NOW = "2030-01-31T12:00:00.000000Z"


@pytest.fixture
def settings(installation):
    return dataclasses.replace(load_settings(installation.variables()), redis_url=None)


class Chore:
    """The chore, with what it reported."""

    def __init__(self, settings):
        self.reports, self.failures = asyncio.Queue(), []
        self.chore = AuditConsumers(
            settings, "redis://127.0.0.1:1", self.reports.put_nowait, self.failures.append
        )

    async def __aenter__(self):
        await self.chore.prepare()
        self.task = asyncio.create_task(self.chore.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.chore.close()

    async def await_report(self, holds):
        async with asyncio.timeout(60):
            while not holds(report := await self.reports.get()):
                pass
            return report


@pytest.mark.slow
def test_a_process_delivers_reports_is_started_again_when_killed_and_ends_with_the_chore(
    settings, monkeypatch
):
    monkeypatch.setattr("gateway.assembly.audit_consumers.FIRST_PAUSE_SECONDS", 0.01)
    registry = ConsumerRegistry(settings.audit_folder)
    registry.add(
        "siem", "push", {"url": "http://127.0.0.1:1/", "plain": "yes", "secret_file": "/none"}, now=NOW
    )

    async def run():
        async with Chore(settings) as running:
            running.chore._pause = 0.01
            report = await running.await_report(lambda one: one.consumers)
            assert [one.name for one in report.consumers] == ["siem"]
            first = running.chore._process
            os.kill(first.pid, signal.SIGKILL)
            await running.await_report(lambda one: not one.consumers)  # it is gone
            await running.await_report(lambda one: one.consumers)
            second = running.chore._process
            assert second.pid != first.pid
            assert [one.dependency for one in running.failures] == ["audit"]
        assert second.returncode == 0

    asyncio.run(run())


def test_one_worker_of_a_folder_leads_and_without_consumers_no_process_is_started(settings):
    async def run():
        async with Chore(settings) as one, Chore(settings) as two:
            assert (one.chore.leads(), two.chore.leads()) == (True, False)
            assert not await one.chore._has_work()
            ConsumerRegistry(settings.audit_folder).add("siem", "push", now=NOW)
            assert await one.chore._has_work()
            await one.chore.close()
            assert two.chore.leads()

    asyncio.run(run())
