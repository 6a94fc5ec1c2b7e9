"""How long one decision takes in a worker: from memory, and on facts that have to be read from Redis.

Measured in this process, on the objects that a worker serves with (`gateway.assembly.pipeline.Pipeline`),
over a real Valkey on a unix socket. `from_memory` is what the guard does for a file whose caller, path and
decision are cached, between the parsed request and the first byte, without what costs the same with any
guard: opening the file and writing the audit record. These are in the row `admit_us`. `stages` times the
parts of it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from report import quantile

from gateway.assembly.pipeline import Pipeline
from gateway.credential.extract import extract
from gateway.faces.content import FILE
from gateway.model.access import Access, WireRequest
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.configuration.settings import Settings

MODEL, PACKAGE, FILE_NAME = "bench/model/1", "pkgB1", "weights.onnx"
TURN = 100  # decisions, then the worker's own chores get a turn, or its lease would run out
_HEADERS = (
    (b"host", b"models.example"),
    (b"user-agent", b"python-requests/2.32.3"),
    (b"accept-encoding", b"identity"),
    (b"accept", b"*/*"),
)


@dataclass(frozen=True)
class Bench:
    """A worker's pipeline, and its stages called one by one."""

    pipeline: Pipeline

    @classmethod
    @asynccontextmanager
    async def over(cls, settings: Settings, url: str) -> AsyncIterator[Bench]:
        pipeline = Pipeline(settings, url)
        async with pipeline.running():
            yield cls(pipeline)

    async def from_memory(self, request: WireRequest) -> None:
        """`Guard._weigh` up to the disk, and `Guard.confirm`, on the guard's own parts."""
        guard = self.pipeline.guard
        credential = extract(request.headers, request.query)
        caller = guard.identity.recall(credential, request.client, request.received_at)
        principal, key_stamp = caller or await guard._authenticate(credential, request, FILE)
        guard.directory.verify_fresh(principal.degraded_seconds)
        access = Access(principal=principal, action=FILE.action, resource=FILE.locate(request))
        judgement = guard._recall(access) or await guard.decisions.reach(access)
        if not isinstance(judgement.verdict, Allowed):
            raise TypeError(f"the benchmark's own key was refused: {judgement.verdict}")
        stamp = key_stamp.joined(judgement.verdict.stamp)
        if not guard.directory.still_true(stamp, principal.degraded_seconds):
            raise TypeError("facts moved in a benchmark that moves none")

    async def microseconds(self, requests: Sequence[WireRequest]) -> list[float]:
        """How long each of these takes."""
        taken = []
        clock = time.perf_counter_ns
        for number, request in enumerate(requests):
            if number % TURN == 0:
                await asyncio.sleep(0.001)
            started = clock()
            await self.from_memory(request)
            taken.append((clock() - started) / 1000)
        return taken

    async def stages(self, requests: Sequence[WireRequest]) -> dict[str, list[float]]:
        """The parts of the way, each timed alone."""
        guard, clock = self.pipeline.guard, time.perf_counter_ns
        taken: dict[str, list[float]] = {
            stage: [] for stage in ("extract", "authenticate", "locate", "recall", "last_check")
        }
        for number, request in enumerate(requests):
            if number % TURN == 0:
                await asyncio.sleep(0.001)
            times = [clock()]
            credential = extract(request.headers, request.query)
            times.append(clock())
            caller = guard.identity.recall(credential, request.client, request.received_at)
            principal, key_stamp = caller or await guard._authenticate(credential, request, FILE)
            guard.directory.verify_fresh(principal.degraded_seconds)
            times.append(clock())
            access = Access(principal=principal, action=FILE.action, resource=FILE.locate(request))
            times.append(clock())
            judgement = guard.decisions.recall(access)
            if judgement is None or not isinstance(judgement.verdict, Allowed):
                raise TypeError("a caller of the benchmark is not remembered")
            times.append(clock())
            guard.directory.still_true(key_stamp.joined(judgement.verdict.stamp), principal.degraded_seconds)
            times.append(clock())
            for stage, (begun, ended) in zip(taken, pairwise(times), strict=True):
                taken[stage].append((ended - begun) / 1000)
        return taken

    async def admit_microseconds(self, requests: Sequence[WireRequest]) -> list[float]:
        """The guard's whole way with disk and audit log: admit, confirm, close."""
        from gateway.model.verdicts import WITHDRAWN, Receipt  # noqa: PLC0415 -- for this row only

        taken = []
        guard, clock = self.pipeline.guard, time.perf_counter_ns
        for number, request in enumerate(requests):
            if number % TURN == 0:
                await asyncio.sleep(0.001)
            started = clock()
            receipt = await guard.admit(request, FILE)
            if not isinstance(receipt, Receipt):
                raise TypeError(f"the benchmark's own key was refused: {receipt}")
            guard.confirm(receipt, request.received_at)
            receipt.close(WITHDRAWN)
            taken.append((clock() - started) / 1000)
        return taken


def request_of(token: str, now: float, *, model: str = MODEL) -> WireRequest:
    """What a client of this key asks: a file of a package of a model."""
    return WireRequest(
        method="GET",
        raw_path=f"/v1/models/{model}/-/{PACKAGE}/{FILE_NAME}".encode(),
        query=b"",
        headers=(*_HEADERS, (b"authorization", f"Bearer {token}".encode())),
        client="127.0.0.1",
        route=FILE.template,
        trace_id=None,
        received_at=now,
    )


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return quantile(values, 0.5)
