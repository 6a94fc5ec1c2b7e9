"""Ask the provider which models a model brings: the one behind its name, and those that it depends on.

The inference server loads them with the key that it is sent, and does not list them in its answer. So
what the provider says to that very key is authorised before the request is sent. What the provider
refuses to this key brings nothing: the server cannot load it either. Where the provider does not answer,
nothing is sent (I7).

An answer is remembered for `REMEMBERED_SECONDS`: a new dependency may be unknown for so long. Without a
provider in the settings nobody can be asked, and what a model depends on is not authorised.
"""

from __future__ import annotations

import hashlib
from sys import getsizeof
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import BadNameError, Reason, Unavailable
from gateway.model.names import parse_model_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.provider import Provider
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import ModelId

WEIGHTS_PATH = "/models/v1/external/weights"
REMEMBERED_SECONDS = 10.0  # as long as the server remembers the platform's metadata
REMEMBERED_BYTES = 4 << 20
_ENTRY_BYTES = 700  # of an entry but for its names

_REFUSED = frozenset({401, 402, 403, 404, 423})
_OK = 200


class _Dependency(msgspec.Struct, frozen=True, rename="camel"):
    model_id: str


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    model_id: str | None = None
    model_dependencies: list[_Dependency] | None = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    model_metadata: _Head


_answers = msgspec.json.Decoder(_Answer)


class _Remembered(msgspec.Struct, frozen=True):
    models: tuple[ModelId, ...]
    until: float


class Dependencies:
    """What models bring, as the provider says it to one key at a time."""

    def __init__(self, provider: Provider, clock: MonotonicClock) -> None:
        self._provider = provider
        self._clock = clock
        self.memory: BoundedMemory[tuple[bytes, ModelId], _Remembered] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            weigh=lambda place, one: _ENTRY_BYTES + sum(map(getsizeof, (place[1], *one.models))),
            is_over=lambda one: clock.monotonic() >= one.until,
        )

    async def find(self, model: ModelId, key: str) -> Sequence[ModelId]:
        """The models that this one brings. Raises `Unavailable` where that cannot be known now."""
        place = hashlib.sha256(key.encode()).digest(), model
        known = self.memory.find(place)
        if known is not None:
            return known.models
        until = self._clock.monotonic() + REMEMBERED_SECONDS
        answer = await self._provider.ask(
            WEIGHTS_PATH,
            urlencode({"modelId": model}),
            ((b"authorization", b"Bearer " + key.encode("ascii")),),
        )
        models = _read(answer.status, answer.body, model)
        self.memory.put(place, _Remembered(models, until))
        return models


def _read(status: int, body: bytes, model: ModelId) -> tuple[ModelId, ...]:
    if status in _REFUSED:
        return ()
    if status != _OK:
        raise Unavailable("upstream", f"the provider answered {status}", Reason.UPSTREAM_UNDECIDED)
    try:
        head = _answers.decode(body).model_metadata
        named = [] if head.model_id is None else [head.model_id]
        named += [one.model_id for one in head.model_dependencies or ()]
        found = dict.fromkeys(parse_model_id(one) for one in named)
    except (msgspec.MsgspecError, UnicodeDecodeError, BadNameError):
        why = "its answer about a model makes no sense"
        raise Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED) from None
    return tuple(one for one in found if one != model)
