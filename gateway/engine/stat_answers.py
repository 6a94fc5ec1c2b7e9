"""Parse a provider's answer to `/models/v1/external/stat`: is it valid, and which model does it name.

It answers whether a key may have a model, so an error page of some proxy in between must not count as an
allow. Valid is what the engine (inference 1.8.3) reads: an object whose `modelMetadata` has the strings
`modelArchitecture` and `taskType`. An object that also reports an `error` is invalid. An invalid answer
decides nothing (I7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.engine.answers import MAX_ANSWER_BYTES
from gateway.engine.faults import undecided
from gateway.model.errors import BadNameError
from gateway.model.names import parse_model_id

if TYPE_CHECKING:
    from gateway.model.names import ModelId


class _RawHead(msgspec.Struct):
    modelArchitecture: str  # noqa: N815 -- the protocol's own names
    taskType: str  # noqa: N815
    modelId: str | None = None  # noqa: N815


class _RawStat(msgspec.Struct):
    modelMetadata: _RawHead  # noqa: N815 -- the protocol's own name
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_STATS = msgspec.json.Decoder(_RawStat)


def parse_stat(body: bytes) -> ModelId | None:
    """The model's name in the answer, if it has one. Raises `Unavailable` for an invalid answer."""
    if len(body) > MAX_ANSWER_BYTES:
        raise undecided("the answer is too large")
    try:
        answer = _STATS.decode(body)
        claimed = answer.modelMetadata.modelId
        model = None if claimed is None else parse_model_id(claimed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadNameError) as error:
        raise undecided("the answer is not JSON of the expected shape") from error
    if answer.error is not msgspec.UNSET:
        raise undecided("the answer reports an error")
    return model
