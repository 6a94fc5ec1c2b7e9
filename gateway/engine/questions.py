"""Parse a request of the engine: the query of `/models/v1/external/weights` and of `/stat`.

    modelId=acme%2Fcars%2F1&startAfter=next&includeCoreMLPackages=true

The decision must be about exactly what the provider will read. So the query is parsed once, and what goes
upstream is written anew from the parsed parameters (`upstream_query`); no byte of the original is sent. Where
two parsers could still differ, the request is refused:

* `modelId` and `startAfter` come once, spelled exactly so. `modelid`, `model_id` and `modelId[]` are refused:
  to some framework each of them is the same parameter, and would ask for another model than ours.
* Names are plain ASCII; a parameter without `=`, an empty one and a broken escape are refused.

Removed, silently, because the request is complete without it:

* any parameter named like a key. The guard reads keys from headers; URLs are kept in logs.
* `service_secret` and `countinference`, the query form of the provider's internal headers: the provider may
  trust the network that the gateway is in, and the gateway must not lend that trust to a caller.

The other parameters pass in their order, repeated names too: the engine lets its callers add parameters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.model.names import parse_model_id
from gateway.model.queries import split_query

if TYPE_CHECKING:
    from gateway.model.names import ModelId

MODEL = "modelId"
START_AFTER = "startAfter"

MAX_VALUE_CHARACTERS = 1024  # a provider's page mark is the longest value seen, below 200

_NAME = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}")
_NOT_A_LETTER = re.compile(r"[^A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # could split a header or a log line
# such a byte, unescaped, shows that another parser split the request differently
_NEVER_RAW = re.compile(rb"[^\x21-\x7e]|#")

_LOOK_ALIKES = frozenset({"modelid", "modelids", "startafter"})
_KEYS = frozenset(
    {"apikey", "xapikey", "key", "token", "accesstoken", "xaccesstoken", "authorization", "bearer"}
)
_INTERNAL = frozenset({"servicesecret", "internalservicesecret", "countinference"})


class WeightsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The model and page that are requested, and the other parameters for the provider."""

    model: ModelId
    start_after: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def upstream_query(self) -> str:
        """The query to send to the provider, encoded as the engine encodes its own."""
        pairs = [(MODEL, str(self.model))]
        if self.start_after is not None:
            pairs.append((START_AFTER, self.start_after))
        return urlencode([*pairs, *self.extra])


def parse_question(raw_query: bytes) -> WeightsQuery:
    """Parse a raw query. Raises `Refusal`: PATH_TOO_LONG or MALFORMED_QUERY."""
    if len(raw_query) > MAX_TARGET_BYTES:
        raise Refusal(Reason.PATH_TOO_LONG)
    try:
        return _question(_pairs(raw_query))
    except BadNameError as error:
        raise Refusal(Reason.MALFORMED_QUERY) from error


def _pairs(raw_query: bytes) -> list[tuple[str, str]]:
    if _NEVER_RAW.search(raw_query):
        raise BadNameError("a query is visible ASCII")
    return [_pair(raw_pair) for raw_pair in split_query(raw_query)]


def _pair(raw_pair: bytes) -> tuple[str, str]:
    raw_name, equals, raw_value = raw_pair.partition(b"=")
    if not equals:
        raise BadNameError("a query parameter has a name, `=` and a value")
    name = decode_once(raw_name)
    if not _NAME.fullmatch(name):
        raise BadNameError("not the name of a query parameter")
    # `+` is a space in a form, before any escape is decoded: `%2B` is the plus sign.
    value = decode_once(raw_value.replace(b"+", b" "))
    if len(value) > MAX_VALUE_CHARACTERS or _CONTROL.search(value):
        raise BadNameError("a query parameter's value is too long or holds a control character")
    return name, value


def _question(pairs: list[tuple[str, str]]) -> WeightsQuery:
    models: list[str] = []
    marks: list[str] = []
    extra: list[tuple[str, str]] = []
    for name, value in pairs:
        letters = _NOT_A_LETTER.sub("", name).lower()
        if name == MODEL:
            models.append(value)
        elif name == START_AFTER:
            marks.append(value)
        elif letters in _LOOK_ALIKES:
            raise BadNameError("a query parameter that some readers take for another")
        elif letters not in _KEYS and letters not in _INTERNAL:
            extra.append((name, value))
    if len(models) != 1 or len(marks) > 1 or "" in marks:
        raise BadNameError("expected one modelId and at most one startAfter")
    return WeightsQuery(
        model=parse_model_id(models[0]), start_after=marks[0] if marks else None, extra=tuple(extra)
    )
