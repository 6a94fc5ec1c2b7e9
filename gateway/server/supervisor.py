"""The supervisor, the parent process: binds the sockets, keeps the workers running, serves the ops listener.

It serves no content itself. It holds the public socket and that of the admin API, so that connections in
their accept queues survive the death of a worker, and it runs the ops listener, because a status of the whole
instance needs a process that can ask every worker. A single worker is a child process as well: there is one
code path.

A worker that ends without having been told to is started again, after a pause that grows while workers
keep ending early. One that serves no more, as its event loop hangs (in a write to a disk that does not
answer, for example), answers nobody and keeps its connections: it is killed after `hang_seconds`, and so
replaced. What counts is the number of questions in a row that it left unanswered, not the time: after a pause
of the whole machine each worker has its chance to answer.

When no worker ever got as far as serving, the start has failed, and `run` raises what the workers reported.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from msgspec.structs import replace

from gateway.model.errors import Misconfigured
from gateway.server.acceptor import Bounds
from gateway.server.listener import QuietServer, bind
from gateway.server.process import ANSWER_SECONDS, WorkerProcess
from gateway.server.protocol import GatewayHttpProtocol
from gateway.server.status import FleetStatus, Retired, combine

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from gateway.model.errors import Unavailable
    from gateway.server.serve_options import ServePlan

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0  # a worker that ran this long did not end early
POLL_SECONDS = 1.0  # at most this much of its counts is lost when a worker is killed
OPS_BOUNDS = Bounds(connections=128)  # probes and scrapers; descriptors are needed for starting workers
KILL_MARGIN_SECONDS = 2.0  # after the grace limit, for the application's own shutdown

logger = logging.getLogger(__name__)


class Supervisor:
    """All workers and the ops listener. Binds all sockets when it is made; call `run` once."""

    def __init__(self, plan: ServePlan, ops_factory: Callable[[Supervisor], Callable[..., Any]]) -> None:
        self._plan = plan
        self._public = bind(plan.host, plan.port)
        self._served = [self._public]  # by the workers
        try:
            if plan.admin_port is not None:
                self._served.append(bind(plan.admin_host, plan.admin_port))
            self._ops = bind(plan.ops_host, plan.ops_port)
        except Misconfigured:
            self._close_served()
            raise
        self.public_address = _address(self._public)
        self.ops_address = _address(self._ops)
        self.admin_address = None if plan.admin_port is None else _address(self._served[-1])
        self._ops_factory = ops_factory
        self._order = plan.worker_order()
        self._workers: list[WorkerProcess | None] = [None] * plan.workers
        self._retired = Retired()
        self.hung = 0  # workers that were killed because they did not answer
        self._hung_since: dict[int, float] = {}  # by the slot in which another one is started
        self._stopped = asyncio.Event()
        self._serving: list[asyncio.Event] = [asyncio.Event() for _ in range(plan.workers)]
        self._failed_slots: set[int] = set()
        self._failure: Misconfigured | Unavailable | None = None

    async def run(self) -> None:
        """Serve until `stop`. Raises `Misconfigured` or `Unavailable` when no worker could start."""
        ops_server = QuietServer(_ops_config(self._ops_factory(self)), bounds=OPS_BOUNDS)
        ops = asyncio.create_task(ops_server.serve(sockets=[self._ops]))
        polling = asyncio.create_task(self._poll())
        keeping = [asyncio.create_task(self._keep(slot)) for slot in range(self._plan.workers)]
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            watched: list[asyncio.Task[Any]] = [stopped, ops, *keeping]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopped.set()
            self._close_served()
            await self._end_workers(keeping)
            polling.cancel()
            ops_server.stop()
            await asyncio.wait([ops, polling])
        ops.result()
        for task in keeping:
            task.result()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop gracefully: accept nothing more, finish the answers in progress. The second call kills."""
        if self._stopped.is_set():
            for worker in filter(None, self._workers):
                worker.kill()
        self._stopped.set()

    async def wait_until_serving(self) -> bool:
        """True once all workers serve; False when it was stopped, or failed, before they did."""
        serving = asyncio.gather(*(event.wait() for event in self._serving))
        stopped = asyncio.create_task(self._stopped.wait())
        either: list[asyncio.Future[Any]] = [serving, stopped]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        is_serving = serving.done() and not self._stopped.is_set()
        serving.cancel()
        stopped.cancel()
        await asyncio.gather(serving, stopped, return_exceptions=True)
        return is_serving

    async def status(self) -> FleetStatus:
        """The status of all workers together now. Not ready while it stops."""
        workers = list(self._workers)
        answers = await asyncio.gather(*(_ask(worker) for worker in workers))
        last_known = [worker.last_status for worker in self._workers if worker is not None]
        status = combine(answers, last_known, self._retired)
        return replace(
            status,
            ready={**status.ready, "accepting": not self._stopped.is_set()},
            counters={**status.counters, "cachegate_workers_hung_total": self.hung},
        )

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.status()
                self._end_hanging()
            except Exception:  # ask again later; meanwhile only counts can be lost
                logger.exception("the workers could not be asked")

    def _end_hanging(self) -> None:
        """Count a round without an answer for each worker that gave none; kill those that hang."""
        for worker in filter(None, self._workers):
            if not worker.is_serving.is_set() or self._stopped.is_set():
                continue  # it starts, or it has the grace time
            worker.unanswered += 1  # an answer sets it to 0
            if worker.unanswered * (POLL_SECONDS + ANSWER_SECONDS) > self._plan.hang_seconds:
                logger.error(
                    "worker %d has not answered for %.0f s, as when a write hangs, and is killed",
                    worker.pid,
                    self._plan.hang_seconds,
                )
                self.hung += 1
                worker.hangs, worker.unanswered = True, 0
                worker.kill()

    async def _keep(self, slot: int) -> None:
        """Run one worker after the other in this slot until the instance stops."""
        clock = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            began = clock.time()
            ended = await self._run_one(slot)
            if self._stopped.is_set():
                return
            if clock.time() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.error("%s; another one starts in %.1f s", ended, pause)
            try:
                await asyncio.wait_for(self._stopped.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _run_one(self, slot: int) -> str:
        """Run one worker to its end; return how it ended. Stops the instance if no worker can start."""
        worker: WorkerProcess | None = None
        status = -1
        try:
            hung_since = self._hung_since.pop(slot, None)
            seconds = None if hung_since is None else asyncio.get_running_loop().time() - hung_since
            worker = self._workers[slot] = await WorkerProcess.start(
                self._order, self._served, after_hang_seconds=seconds
            )
            status = await self._run_to_end(slot, worker)
            failure = worker.failure
            ended = f"worker {worker.pid} ended with status {status}{f' ({failure})' if failure else ''}"
        except Exception as error:
            # No process or descriptor could be had, or this is a defect: the other workers go on.
            if not isinstance(error, OSError):
                logger.exception("a worker could not be looked after")
            if worker is not None:
                worker.kill()
            self._workers[slot] = None
            failure = Misconfigured("worker", f"cannot be started: {error}")
            ended = f"a worker cannot be started: {error}"
        if not self._stopped.is_set() and self._has_failed_to_start(slot, failure, status):
            self._stopped.set()
        return ended

    async def _run_to_end(self, slot: int, worker: WorkerProcess) -> int:
        """Wait until a started worker ends; add its counters to those of ended workers."""
        running = asyncio.create_task(worker.run())
        serving = asyncio.create_task(worker.is_serving.wait())
        if self._stopped.is_set():
            worker.stop()  # the instance was stopped while the process was being started
        await asyncio.wait([running, serving], return_when=asyncio.FIRST_COMPLETED)
        if worker.is_serving.is_set():
            self._serving[slot].set()
        serving.cancel()
        status = await running
        if worker.hangs:
            self._hung_since[slot] = worker.answered_at
        self._retired.add(worker.last_status)
        self._workers[slot] = None
        return status

    def _has_failed_to_start(
        self, slot: int, failure: Misconfigured | Unavailable | None, status: int
    ) -> bool:
        """Whether every worker has by now ended and none has ever served; notes the reason."""
        if any(event.is_set() for event in self._serving):
            return False
        self._failed_slots.add(slot)
        self._failure = failure or Misconfigured(
            "worker", f"ended with status {status} before it served; what it wrote is above"
        )
        return len(self._failed_slots) == self._plan.workers

    def _close_served(self) -> None:
        for listener in self._served:
            listener.close()

    async def _end_workers(self, keeping: list[asyncio.Task[None]]) -> None:
        for worker in filter(None, self._workers):
            worker.stop()
        _, late = await asyncio.wait(keeping, timeout=self._plan.grace_seconds + KILL_MARGIN_SECONDS)
        if late:
            for worker in filter(None, self._workers):
                logger.error("worker %d did not end within the grace limit and is killed", worker.pid)
                worker.kill()
            await asyncio.wait(late)


def serve(
    plan: ServePlan,
    ops_factory: Callable[[Supervisor], Callable[..., Any]],
    on_serving: Callable[[Supervisor], None],
) -> None:
    """Serve until SIGTERM or SIGINT; returns after a graceful stop.

    `on_serving` is called once all workers serve: all addresses are known then. Raises `Misconfigured`
    or `Unavailable` when the start fails.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plan, ops_factory, on_serving))


async def _serve(
    plan: ServePlan,
    ops_factory: Callable[[Supervisor], Callable[..., Any]],
    on_serving: Callable[[Supervisor], None],
) -> None:
    supervisor = Supervisor(plan, ops_factory)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    running = asyncio.create_task(supervisor.run())
    if await supervisor.wait_until_serving():
        on_serving(supervisor)
    await running


async def _ask(worker: WorkerProcess | None) -> Any:
    return None if worker is None else await worker.ask()


def _address(listener: socket) -> tuple[str, int]:
    host, port, *_ = listener.getsockname()
    return host, port


def _ops_config(app: Callable[..., Any]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=GatewayHttpProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
