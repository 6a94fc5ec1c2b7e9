"""The routes that tell which blocks a server has, and what they look like.

Any valid key may ask. What does not depend on the caller is remembered for the process of a server that gave
it. Definitions of custom Python are code, which the server executes to describe them.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.strict_json import write_json
from gateway.front_door.workflows.asking import JSON
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal
from gateway.model.inference import Outbound

if TYPE_CHECKING:
    from gateway.front_door.values import InferenceRequest

REMEMBERED_BYTES = 48 << 20
MAX_ANSWER_BYTES = 16 << 20
"""Of one answer: the description of all blocks is about 4 MB."""

_DESCRIBE = "/workflows/blocks/describe"


class BlockAnswers:
    """Answers that are the same for everybody, by server, process and path."""

    def __init__(self) -> None:
        self.memory: BoundedMemory[tuple[str, str, str], bytes] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES, weigh=lambda _, body: getsizeof(body) + 600
        )


class BlockQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question about blocks, as it is sent."""

    outbound: Outbound
    is_the_same_for_all: bool
    has_python: bool


def read_question(inquiry: InferenceRequest) -> BlockQuestion:
    """Read a question. Raises `Refusal(MALFORMED_BODY)`."""
    route, document = inquiry.matched.route, inquiry.document
    target = route.path.encode("ascii")
    if route.method == "GET":
        outbound = Outbound(method="GET", target=target, headers=(), body=None)
        return BlockQuestion(outbound=outbound, is_the_same_for_all=True, has_python=False)
    if not isinstance(document, dict):
        raise Refusal(Reason.MALFORMED_BODY)
    has_python = False
    if route.path == _DESCRIBE:
        document = _describing(document)
        has_python = bool(document.get("dynamic_blocks_definitions"))
    outbound = Outbound(method="POST", target=target, headers=(JSON,), body=write_json(document))
    return BlockQuestion(outbound=outbound, is_the_same_for_all=False, has_python=has_python)


def _describing(document: dict[str, Any]) -> dict[str, Any]:
    """The members that the handler reads, and the key for which it asks nobody."""
    definitions = document.get("dynamic_blocks_definitions") or []
    version = document.get("execution_engine_version")
    if not isinstance(definitions, list) or not (version is None or isinstance(version, str)):
        raise Refusal(Reason.MALFORMED_BODY)
    return {
        "api_key": "local",
        "dynamic_blocks_definitions": definitions,
        "execution_engine_version": version,
    }
