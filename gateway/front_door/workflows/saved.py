"""Workflows that are saved on the platform: fetched with the tenant's own key, and put in literally.

The server would fetch one itself each time that it compiles a text that names it, with whatever key it was
given, and perhaps another one than was looked at. So the gateway fetches it, asks the platform as the server
does, and what goes on is a text without references.

Only the caller's own key of the platform fetches: with the operator's, a tenant could run what the operator
saved. The workspace `local` means files of the server, and is refused. What one key was given is remembered
for that key for `REMEMBERED_SECONDS`, unless the request says otherwise, as in the server.
"""

from __future__ import annotations

import hashlib
import re
from sys import getsizeof
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from gateway.front_door.strict_json import parse_strict_object
from gateway.front_door.workflows.specification import (
    INNER_WORKFLOW,
    MAX_INNER_DEPTH,
    MAX_INNER_WORKFLOWS,
    MAX_TEXT_BYTES,
    refused,
    steps_of,
    verify_embedded,
)
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal, Unavailable

if TYPE_CHECKING:
    from gateway.adapters.provider import Provider
    from gateway.model.clocks import MonotonicClock

REMEMBERED_SECONDS = 10.0
REMEMBERED_BYTES = 8 << 20
LOCAL = "local"
_ENTRY_BYTES = 600
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_REFUSED = frozenset({400, 401, 402, 403, 404, 423})
_OK = 200


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a saved workflow."""

    workspace: str
    workflow: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.workspace}/{self.workflow}"


class _Workflow(msgspec.Struct, frozen=True):
    config: str
    id: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    workflow: _Workflow


class _Remembered(msgspec.Struct, frozen=True):
    config: str
    id: str | None
    until: float


_answers = msgspec.json.Decoder(_Answer)


def read_reference(workspace: Any, workflow: Any, version: Any) -> Reference:
    """A reference. Raises `Refusal(SAVED_WORKFLOW)` for one that is none, and for files of the server."""
    texts = (workspace, workflow) if version is None else (workspace, workflow, version)
    if not all(isinstance(one, str) and _NAME.fullmatch(one) for one in texts):
        raise refused(Reason.SAVED_WORKFLOW, "The name of the saved workflow does not parse.")
    if workspace.casefold() == LOCAL:
        raise refused(Reason.SAVED_WORKFLOW, "The workspace local means files of the inference server.")
    return Reference(workspace=workspace, workflow=workflow, version=version)


def names_saved(document: Any) -> bool:
    """Whether a specification names saved workflows, at any depth within the bounds."""
    waiting = [(document, 0)]
    while waiting:
        workflow, depth = waiting.pop()
        if not isinstance(workflow, dict):
            return False
        for step in steps_of(workflow):
            if step["type"] != INNER_WORKFLOW:
                continue
            if _find_reference(step) is not None:
                return True
            if depth < MAX_INNER_DEPTH and isinstance(step.get("workflow_definition"), dict):
                waiting.append((step["workflow_definition"], depth + 1))
    return False


def _find_reference(step: dict[str, Any]) -> tuple[Any, Any, Any] | None:
    names = step.get("workflow_workspace_id"), step.get("workflow_id"), step.get("workflow_version_id")
    return None if names == (None, None, None) else names


class Saved:
    """Saved workflows, as the platform gives them to one key at a time."""

    def __init__(self, provider: Provider, clock: MonotonicClock) -> None:
        self._provider, self._clock = provider, clock
        self.memory: BoundedMemory[tuple[bytes, Reference], _Remembered] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            weigh=lambda place, one: _ENTRY_BYTES + getsizeof(one.config) + len(str(place[1])),
            is_over=lambda one: clock.monotonic() >= one.until,
        )

    async def fetch(self, reference: Reference, key: str, *, may_remember: bool) -> dict[str, Any]:
        """The specification. Raises `Refusal(SAVED_WORKFLOW)`, `Unavailable` where the platform is unsure."""
        place = hashlib.sha256(key.encode()).digest(), reference
        known = self.memory.find(place) if may_remember else None
        if known is None:
            until = self._clock.monotonic() + REMEMBERED_SECONDS
            answer = await self._ask(reference, key)
            known = _Remembered(answer.config, answer.id, until)
            self.memory.put(place, known)
        return _specification(known, reference)

    async def resolve(self, document: dict[str, Any], key: str, *, may_remember: bool) -> dict[str, Any]:
        """The same specification with all that it names put in literally. Raises as `fetch`."""
        return await _Resolution(self, key, may_remember=may_remember).workflow(document, 0)

    async def _ask(self, reference: Reference, key: str) -> _Workflow:
        query = [("api_key", key)]
        if reference.version is not None:
            query.append(("workflow_version", reference.version))
        path = f"/{reference.workspace}/workflows/{reference.workflow}"
        answer = await self._provider.ask(path, urlencode(query), ())
        if answer.status in _REFUSED:
            raise refused(Reason.SAVED_WORKFLOW, f"The platform does not give {reference} to this key.")
        if answer.status != _OK:
            raise Unavailable("upstream", f"the provider answered {answer.status}", Reason.UPSTREAM_UNDECIDED)
        try:
            workflow = _answers.decode(answer.body).workflow
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = "its answer about a workflow makes no sense"
            raise Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED) from error
        if len(workflow.config) > 2 * MAX_TEXT_BYTES:
            raise refused(Reason.MALFORMED_WORKFLOW, f"The saved workflow {reference} is too large.")
        return workflow


class _Resolution:
    """One specification on its way to a text without references."""

    def __init__(self, saved: Saved, key: str, *, may_remember: bool) -> None:
        self._saved, self._key, self._may_remember = saved, key, may_remember
        self._inner_workflows = 0
        self._fetched_bytes = 0

    async def workflow(self, document: dict[str, Any], depth: int) -> dict[str, Any]:
        """One workflow with its inner ones. The document itself stays as it is."""
        steps = [
            step if step["type"] != INNER_WORKFLOW else await self._step(step, depth)
            for step in steps_of(document)
        ]
        return document | {"steps": steps}

    async def _step(self, step: dict[str, Any], depth: int) -> dict[str, Any]:
        verify_embedded(step)
        self._inner_workflows += 1
        if depth >= MAX_INNER_DEPTH or self._inner_workflows > MAX_INNER_WORKFLOWS:
            raise refused(Reason.MALFORMED_WORKFLOW, "There are too many inner workflows, or too deep.")
        names = _find_reference(step)
        definition = step.get("workflow_definition")
        if names is not None:
            if definition:
                client_detail = f"Step {step['name']} names a saved workflow beside one of its own."
                raise refused(Reason.MALFORMED_WORKFLOW, client_detail)
            reference = read_reference(*names)
            definition = await self._saved.fetch(reference, self._key, may_remember=self._may_remember)
            self._fetched_bytes += len(msgspec.json.encode(definition))
            if self._fetched_bytes > MAX_TEXT_BYTES:
                raise refused(Reason.MALFORMED_WORKFLOW, "The saved workflows are too large together.")
        if not isinstance(definition, dict):
            raise refused(Reason.MALFORMED_WORKFLOW, f"Step {step['name']} has no workflow to run.")
        kept = {name: value for name, value in step.items() if name not in _NAMES}
        return kept | {"workflow_definition": await self.workflow(definition, depth + 1)}


_NAMES = frozenset({"workflow_workspace_id", "workflow_id", "workflow_version_id"})


def _specification(saved: _Remembered, reference: Reference) -> dict[str, Any]:
    """The specification in a saved workflow, which is JSON within JSON."""
    try:
        specification = parse_strict_object(saved.config.encode()).get("specification")
    except (Refusal, UnicodeEncodeError):
        specification = None
    if not isinstance(specification, dict):
        raise refused(Reason.MALFORMED_WORKFLOW, f"The saved workflow {reference} holds no specification.")
    return specification if saved.id is None else specification | {"id": saved.id}
