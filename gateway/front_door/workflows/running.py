"""Read a request to run a workflow, and write the request that the server gets in its place.

The request that goes out holds what was described and authorised, and what is listed here, and nothing else:
whatever more the client sent does not reach the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.strict_json import write_json
from gateway.front_door.workflows.inputs import with_fetched
from gateway.model.errors import Reason, Refusal
from gateway.model.hidden_fields import shown
from gateway.model.inference import Outbound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front_door.values import ImageUrl
    from gateway.front_door.workflows.specification import Specification

_OF_THE_PLATFORM = {"is_preview": False, "inner_workflow_dispatch_depth": 0}
"""Fields of the platform's own use, which pass with the value that they have without being sent."""

MAX_EXCLUDED = 1000
"""Names of outputs that a client leaves out."""


class RunOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the body of such a request says beside the specification and the inputs."""

    excluded_fields: tuple[str, ...] | None
    disable_sinks: bool


def read_order(document: dict[str, Any]) -> RunOrder:
    """Read a body. Raises `Refusal`: MALFORMED_BODY, FORBIDDEN_FIELD."""
    for name, default in _OF_THE_PLATFORM.items():
        value = document.get(name)
        if value is not None and (type(value) is not type(default) or value != default):
            raise Refusal(Reason.FORBIDDEN_FIELD)
    disable_sinks = document.get("disable_sinks", False)
    excluded = document.get("excluded_fields")
    if not isinstance(disable_sinks, bool):
        raise Refusal(Reason.MALFORMED_BODY)
    if excluded is None:
        return RunOrder(excluded_fields=None, disable_sinks=disable_sinks)
    if not isinstance(excluded, list) or len(excluded) > MAX_EXCLUDED:
        raise Refusal(Reason.MALFORMED_BODY)
    if not all(isinstance(one, str) for one in excluded):
        raise Refusal(Reason.MALFORMED_BODY)
    return RunOrder(excluded_fields=tuple(excluded), disable_sinks=disable_sinks)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow with its inputs, as it is sent. It has a tenant's document: never printed."""

    specification: Specification
    inputs: dict[str, Any]
    images: tuple[ImageUrl, ...]
    order: RunOrder

    def __repr__(self) -> str:
        return shown(self, hidden=("inputs", "images"))


def write_run(run: Run, *, key: str, images: Sequence[str], accept: bytes | None) -> Outbound:
    """The request for the server. `images` are the fetched ones as base64, in the order of `run.images`."""
    beside: dict[str, Any] = {
        "inputs": with_fetched(run.inputs, zip(run.images, images, strict=True)),
        "disable_sinks": run.order.disable_sinks,
    }
    if run.order.excluded_fields is not None:
        beside["excluded_fields"] = list(run.order.excluded_fields)
    body = b'{"specification":%b,%b' % (run.specification.text, write_json(beside)[1:])
    headers = [(b"authorization", b"Bearer " + key.encode("ascii")), (b"content-type", b"application/json")]
    if accept is not None:
        headers.append((b"accept", accept))
    return Outbound(method="POST", target=b"/workflows/run", headers=tuple(headers), body=body)
