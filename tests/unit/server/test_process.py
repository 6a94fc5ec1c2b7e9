"""One real worker process, used through its control channel."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.model.errors import Misconfigured
from gateway.server.listener import bind
from gateway.server.process import WorkerProcess
from gateway.server.status import WorkerStatus
from gateway.server.worker import WorkerOrder


@pytest.fixture(autouse=True)
def importable(application_folder, monkeypatch):
    monkeypatch.syspath_prepend(application_folder)


@asynccontextmanager
async def started(**argument):
    """A worker that serves, or has already ended, and the task that reads its messages."""
    order = WorkerOrder(
        factory="served_application:build", argument=argument, grace_seconds=2, keep_alive_seconds=5, tls={}
    )
    with bind("127.0.0.1", 0) as listener:
        worker = await WorkerProcess.start(order, [listener])
        running = asyncio.create_task(worker.run())
        serving = asyncio.create_task(worker.is_serving.wait())
        await asyncio.wait([running, serving], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        try:
            yield worker, running
        finally:
            worker.kill()
            await running


def test_a_worker_answers_until_it_is_told_to_stop():
    async def scenario():
        async with started() as (worker, running):
            assert worker.is_serving.is_set()
            status = await worker.ask()
            assert status == worker.last_status
            assert status.ready == {"policy": True}
            assert status.counters == {
                "requests": 0,
                "cachegate_connections_refused_total": 0,
                "cachegate_connections_stalled_total": 0,
            }
            assert status.gauges == {"cachegate_connections": 0}
            worker.stop()
            assert await asyncio.wait_for(running, 15) == 0
            assert await worker.ask() is None

    asyncio.run(scenario())


def test_the_connections_of_both_listeners_are_counted():
    async def scenario():
        order = WorkerOrder(
            factory="served_application:build",
            argument={"has_admin": True},
            grace_seconds=2,
            keep_alive_seconds=5,
            tls={},
        )
        with bind("127.0.0.1", 0) as public, bind("127.0.0.1", 0) as admin:
            worker = await WorkerProcess.start(order, [public, admin])
            running = asyncio.create_task(worker.run())
            try:
                await asyncio.wait_for(worker.is_serving.wait(), 30)
                with ExitStack() as stack:
                    for listener in (public, admin):
                        client = stack.enter_context(socket.create_connection(listener.getsockname(), 30))
                        client.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
                        assert await asyncio.to_thread(client.recv, 9)  # it is accepted by now
                    status = await worker.ask()
                assert status.gauges == {"cachegate_connections": 2}
            finally:
                worker.kill()
                await running

    asyncio.run(scenario())


def test_many_questions_at_once_each_get_an_answer():
    async def scenario():
        async with started() as (worker, _):
            answers = await asyncio.gather(*(worker.ask() for _ in range(50)))
            assert None not in answers

    asyncio.run(scenario())


def status_of(line):
    """What the supervisor reads from one line of a worker."""
    worker = WorkerProcess(process=None, reader=None, writer=None)
    worker._receive(line)
    return worker.last_status


def test_a_workers_line_is_read():
    line = b'{"id":1,"status":{"ready":{"redis":true},"counters":{"requests":2},"gauges":{"lag":0.5}}}'
    assert status_of(line) == WorkerStatus(
        ready={"redis": True}, counters={"requests": 2}, gauges={"lag": 0.5}
    )


def test_a_line_without_values_of_the_moment_is_a_status_too():
    assert status_of(b'{"status":{"ready":{},"counters":{}}}').gauges == {}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        b'{"status":{}}',
        b'{"status":{"ready":{"a":1},"counters":{}}}',
        b'{"status":{"ready":{},"counters":{},"gauges":{"lag":"x"}}}',
    ],
)
def test_a_line_that_is_no_status_counts_as_no_answer(line):
    assert status_of(line) is None


def test_a_killed_worker_is_known_by_its_signal():
    async def scenario():
        async with started() as (worker, running):
            worker.kill()
            assert await asyncio.wait_for(running, 15) == -9

    asyncio.run(scenario())


def test_a_worker_whose_report_raises_serves_on_and_says_that_it_is_not_ready():
    async def scenario():
        async with started(fails_at="report") as (worker, running):
            for _ in range(2):
                status = await worker.ask()
                assert status is not None
                assert status.ready == {"report": False}
            worker.stop()
            assert await asyncio.wait_for(running, 15) == 0

    asyncio.run(scenario())


def test_why_a_worker_could_not_start_arrives_as_it_was_raised():
    async def scenario():
        async with started(fails_at="factory") as (worker, running):
            assert await asyncio.wait_for(running, 15) == 2
            assert isinstance(worker.failure, Misconfigured)
            assert worker.failure.where == "cachegate.toml:3"
            assert not worker.is_serving.is_set()

    asyncio.run(scenario())


def content(path):
    return Path(path).read_bytes()


def open_files(process):
    return {path.name: path.readlink() for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()}


def test_what_a_worker_is_told_is_on_no_command_line_and_in_no_environment():
    async def scenario():
        async with started(pepper="S3cretS3cret") as (worker, _):
            for name in ("cmdline", "environ"):
                assert b"S3cretS3cret" not in content(f"/proc/{worker.pid}/{name}")

    asyncio.run(scenario())


def test_what_a_worker_is_told_crosses_as_json_and_as_nothing_else():
    async def scenario():
        with pytest.raises(TypeError):
            async with started(code=object()):
                pass

    asyncio.run(scenario())


def test_a_worker_holds_no_end_of_its_parents_other_channels():
    async def scenario():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with started() as (worker, _):
                own = open_files("self")
                held = open_files(worker.pid).values()
                assert own[str(ours.fileno())] not in held
                assert own[str(theirs.fileno())] not in held

    asyncio.run(scenario())
