"""Read what a request asks the inference server for: its key, its models, its images, its flags.

What could be read in two ways is refused, and the rest is read from the same place by the same rule as by the
server. A key may come as the server's clients send it: in `Authorization`, in the query, in the member
`api_key` of a JSON body; all that come are the same, byte for byte. What `read` returns has the body and the
query without keys and flags, with each default written out, so that it can be sent as it stands.

Non-goals: whether the key is valid, and whether it may use the models.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gateway.credential.extract import KEY_HEADERS, extract
from gateway.front_door.images import ImageReader
from gateway.front_door.strict_json import parse_strict_object
from gateway.front_door.table import could_be_legacy, parse_served_id
from gateway.front_door.values import Answering, BodyKind, InferenceRequest, Naming
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.queries import split_query

if TYPE_CHECKING:
    from gateway.front_door.table import ServerTable
    from gateway.front_door.values import Matched, ServerRoute
    from gateway.model.access import Credential, WireRequest
    from gateway.model.names import ModelId

MAX_IMAGE_ID_CHARACTERS = 512
"""Of the name under which a handler keeps an image: twice what anybody would choose."""

_QUERY = re.compile(rb"(?:[\x21-\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*")
_JSON_TYPE = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)
_BOUNDARY = rb"[0-9A-Za-z'()+_,./:=?-]{1,70}"
_MULTIPART = re.compile(rb'multipart/form-data;[ \t]*boundary=(?:%b|"%b")' % (_BOUNDARY, _BOUNDARY))
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


def read(table: ServerTable, matched: Matched, request: WireRequest, body: bytes | None) -> InferenceRequest:
    """What a request asks for. `body` is the whole body of a route that reads JSON, else None.

    Raises `Refusal`: MALFORMED_QUERY, MALFORMED_BODY, MALFORMED_CREDENTIAL, CONFLICTING_CREDENTIALS,
    UNSUPPORTED_SCHEME, NO_CREDENTIAL, CONFLICTING_MODELS, FORBIDDEN_FIELD, FORBIDDEN_IMAGE;
    CLOSED_ROUTE for a model that does not run on this route; MALFORMED_PATH for an id in the path that is
    none.
    """
    route = matched.route
    if route.answering in {Answering.INFO, Answering.HEALTH}:
        return _without_key(matched)
    fields = _read_query(request.query)
    content_type = _content_type(request)
    document = _read_body(route, content_type, body)
    credential = _read_key(request, fields, document)
    query = _passing(table, route, fields)
    named: ModelId | None = None
    images = ImageReader()
    if document is not None:
        _take_out_fields(table, document)
        named = _Models(table, matched, document).read()
        for member in route.images:
            images.read_member(document, member)
        if route.image_ids:
            _verify_image_id(document)
    elif route.model is Naming.PATH:
        named = _parse_id(path_id(matched), Reason.MALFORMED_PATH)
        _read_streamed(route, fields, content_type, images)
    models = () if named is None else table.models_of(named)
    _verify_stateful(table, route, models, document)
    forms = [form.replace("{id}", model) for model in models for form in route.reported]
    return InferenceRequest(
        matched=matched,
        credential=credential,
        models=models,
        reported=frozenset([*models, *forms]),
        images=tuple(images.urls),
        query=query,
        document=document,
    )


def _verify_stateful(
    table: ServerTable, route: ServerRoute, models: tuple[ModelId, ...], document: dict[str, Any] | None
) -> None:
    """Refuse to run a model that would answer with what another tenant told it to look for."""
    if route.answering is not Answering.PASS:
        return
    for rule in table.stateful:
        if not any(model.startswith(rule.prefix) for model in models):
            continue
        if route.path not in rule.paths:
            raise Refusal(Reason.CLOSED_ROUTE)
        told = None if document is None else document.get(rule.member)
        if document is not None and not (
            isinstance(told, list) and told and all(isinstance(one, str) for one in told)
        ):
            raise Refusal(Reason.MALFORMED_BODY)


def find_key_in_head(request: WireRequest) -> Credential | None:
    """The key in the headers and the query, if there is one. The body may have one too, and the same.

    Raises `Refusal` for a query or a key that `read` refuses as well.
    """
    fields = _read_query(request.query)
    if not fields.get("api_key") and not any(name in KEY_HEADERS for name, _ in request.headers):
        return None  # as nearly all bodies of the SDK: their key is in them
    try:
        return _read_key(request, fields, None)
    except Refusal as refusal:
        if refusal.reason is Reason.NO_CREDENTIAL:
            return None
        raise


def path_id(matched: Matched) -> str:
    """The id in the path: its parameters, joined with a slash."""
    return "/".join(matched.values.values())


def _without_key(matched: Matched) -> InferenceRequest:
    """Nothing of the request is read: the gateway answers it for itself, to everybody."""
    return InferenceRequest(
        matched=matched,
        credential=None,
        models=(),
        reported=frozenset(),
        images=(),
        query=(),
        document=None,
    )


def _read_query(query: bytes) -> dict[str, str]:
    """The parameters of a query, as the server decodes them, and each only once or with one value."""
    fields: dict[str, str] = {}
    if not query:
        return fields
    if not _QUERY.fullmatch(query):
        raise Refusal(Reason.MALFORMED_QUERY)
    for field in split_query(query):
        if not field:
            continue
        raw_name, _, raw_value = field.partition(b"=")
        try:
            name, value = (
                unquote_to_bytes(raw.replace(b"+", b" ")).decode() for raw in (raw_name, raw_value)
            )
        except UnicodeDecodeError:
            raise Refusal(Reason.MALFORMED_QUERY) from None
        if _CONTROLS.search(name) or _CONTROLS.search(value):
            raise Refusal(Reason.MALFORMED_QUERY)
        if fields.setdefault(name, value) != value:
            is_key = name == "api_key"
            raise Refusal(Reason.CONFLICTING_CREDENTIALS if is_key else Reason.MALFORMED_QUERY)
    return fields


def _header(request: WireRequest, wanted: bytes) -> bytes | None:
    """The one value of a header, without the spaces around it. Raises `Refusal(MALFORMED_BODY)` for two."""
    values = [value.strip(b" \t") for name, value in request.headers if name == wanted]
    if len(values) > 1:
        raise Refusal(Reason.MALFORMED_BODY)
    return values[0] if values else None


def _content_type(request: WireRequest) -> bytes | None:
    """The type of the body. One that is compressed is refused: the server would read the compressed bytes."""
    encoding = _header(request, b"content-encoding")
    if encoding is not None and encoding.lower() not in {b"", b"identity"}:
        raise Refusal(Reason.MALFORMED_BODY)
    return _header(request, b"content-type")


def _read_body(route: ServerRoute, content_type: bytes | None, body: bytes | None) -> dict[str, Any] | None:
    if route.body is BodyKind.JSON:
        if content_type is None or not _JSON_TYPE.fullmatch(content_type):
            raise Refusal(Reason.MALFORMED_BODY)
        return parse_strict_object(body or b"")
    if body and route.body is BodyKind.NONE:
        raise Refusal(Reason.MALFORMED_BODY)
    return None


def _read_key(request: WireRequest, fields: dict[str, str], document: dict[str, Any] | None) -> Credential:
    """The one key of all channels. An empty one and a null are none, as a header without a key is none.

    `extract` compares those of the query and the body with those of the headers, by its own rules.
    """
    claimed = [fields.pop("api_key", "")]
    if document is not None:
        in_body = document.pop("api_key", None)
        if in_body is not None and not isinstance(in_body, str):
            raise Refusal(Reason.MALFORMED_CREDENTIAL)
        claimed.append(in_body or "")
    if any(key != key.strip() for key in claimed):  # the server would use it with its spaces
        raise Refusal(Reason.MALFORMED_CREDENTIAL)
    beside = [(b"x-api-key", key.encode()) for key in claimed if key]
    return extract([*request.headers, *beside], b"")


def _passing(table: ServerTable, route: ServerRoute, fields: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The parameters that pass. What the handler does not read is taken out, and an id there refused."""
    if not table.id_members.isdisjoint(fields):
        raise Refusal(Reason.CONFLICTING_MODELS)
    passing = []
    for name, value in fields.items():
        rule = table.fields.get(name)
        if rule is not None:
            _verify_field(rule, value.lower() in _TRUE, value.lower() in _FALSE)
        if name in route.query:
            passing.append((name, value))
    if could_be_legacy(route):
        passing.append((table.legacy_refuses.parameter, table.legacy_refuses.value))
    return tuple(passing)


def _take_out_fields(table: ServerTable, document: dict[str, Any]) -> None:
    """Take the fields that do not pass out of a body."""
    for name, rule in table.fields.items():
        if name not in document or rule == "pass":
            continue
        value = document.pop(name)
        if value is not None:
            _verify_field(rule, value is True, value is False)


def _verify_field(rule: str, is_true: bool, is_false: bool) -> None:  # noqa: FBT001 -- a truth, in three values
    if rule == "refuse" or (rule == "true" and not is_true) or (rule == "false" and not is_false):
        raise Refusal(Reason.FORBIDDEN_FIELD)


class _Models:
    """The model that a JSON body, and the path beside it, name; the body gets the defaults written out."""

    def __init__(self, table: ServerTable, matched: Matched, document: dict[str, Any]) -> None:
        self._table = table
        self._matched = matched
        self._route = matched.route
        self._document = document
        self._read: set[str] = set()

    def read(self) -> ModelId | None:
        """The id. Raises `Refusal`: CONFLICTING_MODELS where another stands beside it, MALFORMED_BODY."""
        if self._route.model is Naming.NONE:
            return None
        named = self._named()
        for member in self._table.id_members - self._read:
            value = self._document.get(member)
            if value is not None and (member != "model_id" or value != named):
                raise Refusal(Reason.CONFLICTING_MODELS)
        return named

    def _named(self) -> ModelId:
        route = self._route
        if route.model is Naming.PATH:
            return _parse_id(path_id(self._matched), Reason.MALFORMED_PATH)
        if route.model is Naming.VERSION:
            return _parse_id(self._version_of(str(route.family)), Reason.MALFORMED_BODY)
        if route.model is Naming.STAGES:
            return self._staged()
        if route.model is Naming.FIXED:
            return _parse_id(str(route.id), Reason.MALFORMED_BODY)
        return self._member()

    def _member(self) -> ModelId:
        """The body's `model_id`; else the default version of the route's family, or its default."""
        route = self._route
        if self._document.get("model_id") is None and route.family is not None:
            # Written into the body: the server's own default is lost where only the version is there.
            self._document["model_id"] = self._version_of(route.family)
        self._read.add("model_id")
        if route.default is not None:
            self._document.setdefault("model_id", route.default)
        return _parse_id(self._text("model_id"), Reason.MALFORMED_BODY)

    def _version_of(self, name: str) -> str:
        """The id of a core model. Without a version in the body, the operator's environment would choose."""
        family = self._table.families[name]
        self._read.add(family.member)
        self._document.setdefault(family.member, family.default)
        return f"{name}/{self._text(family.member)}"

    def _staged(self) -> ModelId:
        """The id that is made of two stages: each member for itself, or one that names both."""
        stages = self._table.stages
        sides = (stages.detection.member, stages.recognition.member)
        if not any(side in self._document for side in sides):
            self._read.add(stages.member)
            token = self._document.pop(stages.member, None)
            if token is not None and not isinstance(token, str):
                raise Refusal(Reason.MALFORMED_BODY)
            found = stages.split(token.lower()) if token else (stages.default, stages.default)
        else:
            values = [self._document.get(side, stages.default) for side in sides]
            if not all(value is None or isinstance(value, str) for value in values):
                raise Refusal(Reason.MALFORMED_BODY)
            found = stages.split("-".join((value or stages.absent).lower() for value in values))
        self._read.update(sides)
        if found is None:
            raise Refusal(Reason.MALFORMED_BODY)
        self._document.update(zip(sides, found, strict=True))
        return _parse_id(f"{stages.family}/{'-'.join(found)}", Reason.MALFORMED_BODY)

    def _text(self, member: str) -> str:
        value = self._document.get(member)
        if not isinstance(value, str):  # null too: the server would load the model `None`
            raise Refusal(Reason.MALFORMED_BODY)
        return value


def _parse_id(text: str, reason: Reason) -> ModelId:
    try:
        return parse_served_id(text)
    except BadNameError:
        raise Refusal(reason) from None


def _verify_image_id(document: dict[str, Any]) -> None:
    """A name that is kept: a text, bounded; null is none."""
    value = document.get("image_id")
    if value is not None and not (isinstance(value, str) and len(value) <= MAX_IMAGE_ID_CHARACTERS):
        raise Refusal(Reason.MALFORMED_BODY)


def _read_streamed(
    route: ServerRoute, fields: dict[str, str], content_type: bytes | None, images: ImageReader
) -> None:
    """The image of a route that streams it: at a URL in the query, which replaces the body, or in the body.

    The type in the query is that of the body, which would be a URL or the path of a file.
    """
    if route.body is not BodyKind.STREAM:
        return
    if fields.get("image_type", "base64").lower() != "base64":
        raise Refusal(Reason.FORBIDDEN_IMAGE)
    if "image" in fields:
        images.at_url(fields["image"], None)
    elif content_type is None or (
        b"multipart/" in content_type.lower() and not _MULTIPART.fullmatch(content_type)
    ):
        raise Refusal(Reason.MALFORMED_BODY)
