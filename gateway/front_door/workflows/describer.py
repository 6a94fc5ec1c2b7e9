"""Ask the server that will run a workflow what it will load and do, and remember its answer.

The server is asked with the literal key `local`, for which it sends no credential to anybody: with a real one
it would ask the platform about each model. Nothing of the workflow runs, and nobody sees the answer.

An answer holds for one text and one process of a server: its version, and the id that it gives itself at its
start, are asked for every `KNOWN_SECONDS`. A version without a table says something that was not checked, so
it runs no workflows. What cannot be compiled is remembered too, so that nobody has the server try it again.

One task asks about one text, however many wait for it, and one key has few of them under way: compiling takes
the server 30 to 60 ms, and much longer for what is made to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from http import HTTPStatus
from sys import getsizeof
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.adapters.inference_server import InferenceFailed
from gateway.front_door.message_words import plain_message
from gateway.front_door.workflows.asking import JSON
from gateway.front_door.workflows.workload import parse_workload
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.inference import Outbound
from gateway.model.singleflight import Singleflight, checked_by_callers

if TYPE_CHECKING:
    from gateway.adapters.inference_server import InferenceClient
    from gateway.front_door.servers import BalancedServer
    from gateway.front_door.workflows.specification import Specification
    from gateway.front_door.workflows.workload import Workload
    from gateway.model.access import Principal
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import KeyId
    from gateway.telemetry import Telemetry

KNOWN_SECONDS = 10.0
REMEMBERED_BYTES = 16 << 20
ANSWER_SECONDS = 10.0  # of a whole answer; what takes longer to compile is not run
MAX_ANSWER_BYTES = 4 << 20
MAX_UNDER_WAY = 4  # of one key, at all servers
_STEP_BYTES = 700  # of a step's work but for its names
_ENTRY_BYTES = 600
_INFO = Outbound(method="GET", target=b"/info", headers=(), body=None)
_NO_ROUTE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
_NOT_COMPILED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})

Place = tuple[str, str, bytes]
"""A server's URL, the id of its process, and the digest of a text."""


class _Info(msgspec.Struct, frozen=True):
    version: str
    uuid: str


class _Known(msgspec.Struct, frozen=True):
    """A process of a server."""

    process: str
    until: float


class _Cause(msgspec.Struct, frozen=True):
    """Why a text is refused, whoever sends it."""

    reason: Reason
    client_detail: str | None


class Describer:
    """What servers say about workflows. Of one worker."""

    def __init__(
        self, client: InferenceClient, clock: MonotonicClock, telemetry: Telemetry, version: str
    ) -> None:
        self._client, self._clock, self._telemetry = client, clock, telemetry
        self._version = version
        self._processes: dict[str, _Known] = {}
        self._under_way: Counter[KeyId] = Counter()
        self._asking_processes: Singleflight[str, _Known] = Singleflight(checked_by_callers)
        self._asking: Singleflight[Place, Workload | _Cause] = Singleflight(checked_by_callers)
        self.memory: BoundedMemory[Place, Workload | _Cause] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES, weigh=_held_bytes
        )

    async def describe(
        self, server: BalancedServer, specification: Specification, principal: Principal
    ) -> Workload:
        """What a workflow will load and do on this server.

        Raises `Refusal`: MALFORMED_WORKFLOW, UNKNOWN_WORKLOAD, NO_WORKFLOWS, INFERENCE_UNAVAILABLE, BUSY.
        """
        process = await self.find_process(server, principal)
        place = server.url, process, specification.digest
        found = self.memory.find(place)
        if found is None:
            work = partial(self._describe, server, specification, principal)
            found = await self._asking.run(place, work)
            self.memory.put(place, found)
        if isinstance(found, _Cause):
            raise Refusal(found.reason, client_detail=found.client_detail)
        return found

    def forget(self, server: BalancedServer) -> None:
        """Ask again which process this is: it broke off, so another one may have taken its place."""
        self._processes.pop(server.url, None)

    async def find_process(self, server: BalancedServer, principal: Principal) -> str:
        """The id of the process that answers there. Raises `Refusal`, NO_WORKFLOWS for another version."""
        known = self._processes.get(server.url)
        if known is None or self._clock.monotonic() >= known.until:
            work = partial(self._ask_process, server, principal)
            known = self._processes[server.url] = await self._asking_processes.run(server.url, work)
        return known.process

    async def _ask_process(self, server: BalancedServer, principal: Principal) -> _Known:
        until = self._clock.monotonic() + KNOWN_SECONDS
        status, body = await self._ask(server, _INFO, principal)
        try:
            info = msgspec.json.decode(body, type=_Info)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Refusal(Reason.NO_WORKFLOWS) from None
        if status != HTTPStatus.OK or info.version != self._version:
            raise Refusal(Reason.NO_WORKFLOWS)
        return _Known(info.uuid, until)

    async def _describe(
        self, server: BalancedServer, specification: Specification, principal: Principal
    ) -> Workload | _Cause:
        body = b'{"api_key":"local","specification":%b}' % specification.text
        question = Outbound(method="POST", target=b"/workflows/describe_workload", headers=(JSON,), body=body)
        status, answer = await self._ask(server, question, principal)
        if status in _NO_ROUTE:
            raise Refusal(Reason.NO_WORKFLOWS)
        if status in _NOT_COMPILED:
            return _Cause(Reason.MALFORMED_WORKFLOW, _message(answer))
        if status != HTTPStatus.OK:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        try:
            return parse_workload(answer, specification)
        except Refusal as refusal:
            return _Cause(refusal.reason, refusal.client_detail)

    async def _ask(
        self, server: BalancedServer, question: Outbound, principal: Principal
    ) -> tuple[int, bytes]:
        if self._under_way[principal.key_id] >= MAX_UNDER_WAY:
            raise Refusal(Reason.BUSY)
        self._under_way[principal.key_id] += 1
        try:
            return await self._whole(server, question, principal)
        finally:
            self._under_way[principal.key_id] -= 1
            if not self._under_way[principal.key_id]:
                del self._under_way[principal.key_id]  # the ids of keys are not kept

    async def _whole(
        self, server: BalancedServer, question: Outbound, principal: Principal
    ) -> tuple[int, bytes]:
        with server.in_use(principal.tenant) as use:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._exchange(server, question)
            except InferenceFailed as failure:
                if failure.is_of_server:
                    use.failed()
                self.forget(server)
                self._telemetry.inference_failed(server.name, failure.why)
                raise Refusal(Reason.INFERENCE_UNAVAILABLE) from failure
            except TimeoutError as error:
                self._telemetry.inference_failed(server.name, "it did not describe a workflow in time")
                raise Refusal(Reason.INFERENCE_UNAVAILABLE) from error

    async def _exchange(self, server: BalancedServer, question: Outbound) -> tuple[int, bytes]:
        answer = await self._client.send(server.url, question)
        return answer.status, await answer.read_whole(MAX_ANSWER_BYTES)


def _message(body: bytes) -> str | None:
    """Why the server does not compile it, where nothing but harmless words is left of that."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = document.get("message") if isinstance(document, dict) else None
    message = plain_message(text, names=set(), fields=set()) if isinstance(text, str) else None
    return None if message is None else f"It says: {message}"


def _held_bytes(place: Place, found: Workload | _Cause) -> int:
    held = _ENTRY_BYTES + sum(map(getsizeof, place))
    if isinstance(found, _Cause):
        return held + getsizeof(found.client_detail)
    for step in found.steps:
        names = (step.name, step.block_type, *step.models, *step.projects, *step.operations)
        held += _STEP_BYTES + sum(map(getsizeof, names))
    return held
