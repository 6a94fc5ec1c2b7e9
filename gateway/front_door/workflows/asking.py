"""What a request asks of the server's workflow routes, and the request that the server gets in its place.

All of them compile what they are given: validating a workflow, or describing blocks of custom Python,
executes the caller's code as running it does. So each is authorised as running is, and what goes out is the
text that was described. Only a run gets the caller's key, or the operator's: the others ask the platform
nothing, so they get the literal key `local`, for which the server sends no credential to anybody.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.front_door.table import parse_served_id
from gateway.front_door.workflows.saved import Reference, read_reference
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.inference import Outbound

if TYPE_CHECKING:
    from gateway.front_door.values import InferenceRequest, Matched
    from gateway.front_door.workflows.specification import Specification
    from gateway.model.names import ModelId

JSON = (b"content-type", b"application/json")


class Purpose(StrEnum):
    """What is to be done with a workflow."""

    RUN = "run"
    DESCRIBE_INTERFACE = "describe_interface"
    DESCRIBE_WORKLOAD = "describe_workload"
    VALIDATE = "validate"


def purpose_of(matched: Matched) -> Purpose:
    """What a route does, by the last part of its path; the other ones run a workflow."""
    last = matched.route.path.rpartition("/")[2]
    return Purpose(last) if last in set(Purpose) else Purpose.RUN


def find_document(inquiry: InferenceRequest) -> Any:
    """The specification in a request; None where its path names a saved one. Raises `Refusal`."""
    matched, document = inquiry.matched, inquiry.document
    if not isinstance(document, dict):
        raise Refusal(Reason.MALFORMED_BODY)
    if purpose_of(matched) is Purpose.VALIDATE:
        return document
    if "workflow_id" in matched.values:
        if "specification" in document:
            raise Refusal(Reason.MALFORMED_BODY)
        return None
    if "specification" not in document or document.get("workflow_version_id") is not None:
        raise Refusal(Reason.MALFORMED_BODY)
    return document["specification"]


def find_named(document: Any) -> tuple[ModelId, ...]:
    """At most one model that a specification names: by it an unknown key may become known, and no more."""
    steps = document.get("steps") if isinstance(document, dict) else None
    for step in steps if isinstance(steps, list) else ():
        named = step.get("model_id") if isinstance(step, dict) else None
        if isinstance(named, str):
            with suppress(BadNameError):
                return (parse_served_id(named),)
    return ()


def find_reference(inquiry: InferenceRequest) -> Reference:
    """The saved workflow that a path names. Raises `Refusal`."""
    values, document = inquiry.matched.values, inquiry.document
    version = document.get("workflow_version_id") if isinstance(document, dict) else None
    return read_reference(values["workspace_name"], values["workflow_id"], version)


def may_remember(inquiry: InferenceRequest) -> bool:
    """Whether a saved workflow may be the one that was fetched a moment ago. Raises `Refusal`."""
    use_cache = inquiry.document.get("use_cache", True) if isinstance(inquiry.document, dict) else True
    if not isinstance(use_cache, bool):
        raise Refusal(Reason.MALFORMED_BODY)
    return use_cache


def write_question(purpose: Purpose, specification: Specification) -> Outbound:
    """The request for the server where nothing is run."""
    if purpose is Purpose.VALIDATE:
        target, body = b"/workflows/validate?api_key=local", specification.text
    else:
        target = b"/workflows/" + purpose.encode("ascii")
        body = b'{"api_key":"local","specification":%b}' % specification.text
    return Outbound(method="POST", target=target, headers=(JSON,), body=body)
