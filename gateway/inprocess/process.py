"""Run a worker's pipeline on a thread of its own, so that the process's other threads can ask the guard.

The engine calls its hooks synchronously, from any thread. The guard is asynchronous and needs a feed of
changes, a lease and an audit chain. So one thread runs an event loop with the whole pipeline of a worker, and
a hook hands its question over and waits. For the fleet this is one more worker: revocations wait for it, and
its decisions are in a chain of its own.

Loading a model can hold the interpreter lock for longer than a lease lasts. Then the lease has run out when
the hook asks, although nothing was missed; so a question waits a moment for the next renewal. If there is no
lease even then, the answer is `Unavailable`: a hook that raises allows nothing (I7).

A forked child has the objects and not the thread. Its first question raises an error that says so.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import msgspec
from msgspec.structs import replace

from gateway.authorized_files import AuthorizedFiles
from gateway.model.access import ResourceKind
from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.listings import ModelListing, PackageListing
from gateway.model.verdicts import Declined, Ending, Outcome
from gateway.operations.own_pipeline import own_pipeline
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.assembly.pipeline import Pipeline
    from gateway.configuration.settings import Settings
    from gateway.inprocess.hook_request import HookRequest
    from gateway.model.names import KeyId, ModelId
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Denied, Found, Receipt

ANSWER_SECONDS = 10.0  # a decision takes milliseconds; this is for a store that is slow to fail
LEASE_PATIENCE_SECONDS = 1.0  # a renewal takes milliseconds once the interpreter is free again
START_SECONDS = 30.0  # an embedded server has to read its file first
MAX_ATTEMPTS = 3  # as over HTTP: an answer whose facts changed before it was given is computed anew


class Granted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An allow that is in the audit log and was still valid when it was returned."""

    record_id: str
    key_id: KeyId
    model: ModelId


class GuardedProcess:
    """A guard for the threads of this process, from `start` to `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._started: Future[_Live] = Future()
        self._process_id = os.getpid()

    def start(self) -> Self:
        """Start following the facts. Raises the same errors as `cachegate serve`."""
        if self._thread is not None:
            raise Misconfigured("GuardedProcess", "it was started before; make another one")
        verify_state(self._settings)
        # A daemon thread, so that a process that never calls `close` can end; then it is closed at exit.
        self._thread = threading.Thread(target=self._run, name="cachegate", daemon=True)
        self._process_id = os.getpid()
        self._thread.start()
        try:
            self._started.result(START_SECONDS)
        except FutureTimeoutError as error:
            self._started.add_done_callback(_stop_late)
            raise Unavailable("in-process guard", f"did not start within {START_SECONDS:g} s") from error
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """Sign the last head of the audit chain and leave the fleet. Later questions are refused."""
        atexit.unregister(self.close)
        if self._thread is None or self._process_id != os.getpid():
            return
        if self._started.done() and not self._started.exception():
            self._started.result().stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, question: HookRequest) -> Granted | Declined:
        """Decide and record, from any thread. Raises `Unavailable` when that cannot be done in time."""
        if self._process_id != os.getpid():
            raise Unavailable(
                "in-process guard", "this process was forked after it started; start one in the child"
            )
        if not self._started.done() or self._thread is None or not self._thread.is_alive():
            raise Unavailable("in-process guard", "it is not running")
        return self._started.result().ask(question, ANSWER_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as failure:  # raised in `start`, whatever it is
            if self._started.done():
                raise
            self._started.set_exception(failure)

    async def _live(self) -> None:
        # Blobs are hashed ahead by gateways that serve the cache, not by a process that computes predictions.
        settings = dataclasses.replace(self._settings, pin_in_background=False)
        async with own_pipeline(settings) as pipeline:
            live = _Live(pipeline, asyncio.get_running_loop())
            self._started.set_result(live)
            await live.stopped.wait()


class _Live:
    """What runs on the thread: a worker's pipeline, its guard, and the entry for other threads."""

    def __init__(self, pipeline: Pipeline, loop: asyncio.AbstractEventLoop) -> None:
        self.stopped = asyncio.Event()
        self._pipeline = pipeline
        self._loop = loop
        authorized_files = _NamesAlone(
            directory=pipeline.directory,
            decisions=pipeline.decisions,
            catalogue=pipeline.catalogue,
            pins=pipeline.pins,
            views_bytes=0,  # no listing is asked for
        )
        self._guard = replace(pipeline.guard, authorized_files=authorized_files)

    def stop(self) -> None:
        with suppress(RuntimeError):  # it was stopped before, and its loop is closed
            self._loop.call_soon_threadsafe(self.stopped.set)

    def ask(self, question: HookRequest, seconds: float) -> Granted | Declined:
        coroutine = self._answer(question)
        try:
            answer = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as error:  # the loop was closed meanwhile
            coroutine.close()
            raise Unavailable("in-process guard", "it is not running") from error
        try:
            return answer.result(seconds)
        except FutureTimeoutError as error:
            answer.cancel()
            raise Unavailable("in-process guard", f"no decision within {seconds:g} s") from error
        except asyncio.CancelledError as error:
            raise Unavailable("in-process guard", "it was closed meanwhile") from error

    async def _answer(self, question: HookRequest) -> Granted | Declined:
        clock, telemetry = self._pipeline.clock, self._pipeline.telemetry
        await self._await_lease()
        route = question.route()
        request = question.request(clock.now())
        for _ in range(MAX_ATTEMPTS):
            began = clock.monotonic()
            answer = await self._guard.admit(request, route)
            if isinstance(answer, Declined):
                telemetry.decided(route.template, answer.reason)
                return answer
            # From here to the answer nothing is awaited: this is the last check before it is given (I6).
            try:
                self._guard.confirm(answer, clock.now())
            except WithdrawnError:
                telemetry.withdrawn()
                continue
            telemetry.decided(route.template, Reason.PERMITTED)
            return _granted(answer, (clock.monotonic() - began) * 1000)
        return await self._guard.give_up(request)

    async def _await_lease(self) -> None:
        deadline = self._pipeline.clock.monotonic() + LEASE_PATIENCE_SECONDS
        while not self._pipeline.directory.is_leased() and self._pipeline.clock.monotonic() < deadline:  # noqa: ASYNC110 -- a lease is no event: it runs out
            await asyncio.sleep(0.02)


class _NamesAlone(AuthorizedFiles):
    """Authorized files without the disk: the answer is a right and no bytes.

    A model that is permitted and not in the cache yet is about to be fetched, so the disk is not read.
    """

    async def answer_to(self, denied: Denied) -> Reason:
        return denied.reason

    async def find(self, allowed: Allowed) -> tuple[Found, Stamp]:
        resource, model = allowed.access.resource, allowed.model
        if model is None:
            raise Refusal(Reason.NO_ROUTE)
        if resource.kind is ResourceKind.PACKAGE and resource.package is not None:
            return PackageListing(model=model, package=resource.package, files=()), allowed.stamp
        return ModelListing(model=model, packages=()), allowed.stamp


def _stop_late(started: Future[_Live]) -> None:
    """Stop a thread that started after `start` timed out."""
    if started.exception() is None:
        started.result().stop()


def _granted(receipt: Receipt, milliseconds: float) -> Granted:
    allowed = receipt.admission.allowed
    key_id, model = allowed.access.principal.key_id, allowed.model
    # Nothing is sent here, so the record ends with the answer: status and bytes stay 0.
    receipt.close(Outcome(ending=Ending.COMPLETE, status=0, bytes_sent=0, milliseconds=milliseconds))
    if model is None:
        raise Unavailable("decision", "an allow without a model", Reason.INTERNAL)
    return Granted(record_id=receipt.record_id, key_id=key_id, model=model)
