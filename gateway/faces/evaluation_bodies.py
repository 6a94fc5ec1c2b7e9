"""Read the body of an AuthZEN request as questions. Syntax only.

    {"subject": {"type": "key", "id": "key_..."}, "action": {"name": "read"},
     "resource": {"type": "file", "id": "weights.onnx", "properties": {"model": "...", "package": "..."}},
     "context": {"time": "2026-11-30T12:00:00Z", "ip": "192.0.2.7"}}

The standard says how strict this may be: members that are not read are ignored; a required one that is
missing, or of another type, refuses the request, but within a batch only its own item; what is of the right
form and names nothing is a question whose answer is no. In a batch, an entity of an item takes the place of
the default as a whole: nothing of the two is merged.

As everywhere, what parsers disagree about is refused (`front_door/strict_json.py`), and the work is bounded
before it begins.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.strict_json import parse_strict_object
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.addresses import find_address
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import (
    parse_file_handle,
    parse_key_id,
    parse_model_id,
    parse_package_id,
    parse_tenant_id,
)
from gateway.model.questions import Question, Subject, SubjectKind

if TYPE_CHECKING:
    from gateway.model.access import WireRequest

MAX_BODY_BYTES = 64 * 1024
MAX_EVALUATIONS = 100
"""Of one request. Each is a decision of up to a millisecond, and a record of up to two kilobytes."""

MAX_CONTAINERS = 2_000
"""Objects and lists: a full batch has 601, with the properties that are read."""

MAX_VALUES = 8_000
"""A full batch has some 1,000. With the containers, this bounds parsing to 2 ms."""

MAX_TIME_CHARACTERS = 40
FIRST_MOMENT = 0.0  # 1970: nothing of ours is older
MOST_SECONDS_AHEAD = 10 * 366 * 86_400.0  # longer than any key is made for

_ASKABLE = {action.value: action for action in (Action.DISCOVER, Action.READ, Action.INFER)}
_TYPE = re.compile(rb"application/json(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?", re.IGNORECASE)
_ENTITIES = ("subject", "action", "resource")
_WHEN = "context.time is a time with its zone, such as 2026-11-30T12:00:00Z, from 1970 until ten years ahead"


class Semantic(StrEnum):
    """When the rest of a batch is left out."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"

    def ends_with(self, *, is_yes: bool) -> bool:
        """Whether nothing after this answer is asked."""
        return self is (Semantic.PERMIT_ON_FIRST_PERMIT if is_yes else Semantic.DENY_ON_FIRST_DENY)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of one request."""

    questions: tuple[Question, ...]
    semantic: Semantic = Semantic.EXECUTE_ALL
    is_batch: bool = False


class _NotAQuestion(Exception):  # noqa: N818 -- it says what it is
    """A required member is missing or of another type; the text says which."""


def parse_evaluation(request: WireRequest) -> Asked:
    """The one question of a request. Raises `Refusal(MALFORMED_BODY)`."""
    return _single(_object(request), request.received_at)


def parse_evaluations(request: WireRequest) -> Asked:
    """The questions of a batch; the one of a request without one. Raises `Refusal(MALFORMED_BODY)`."""
    body, now = _object(request), request.received_at
    items, options = body.get("evaluations", []), body.get("options", {})
    if not isinstance(items, list) or not isinstance(options, dict):
        raise _refusal("evaluations is a list, and options an object.")
    if len(items) > MAX_EVALUATIONS:
        raise _refusal(f"A request has at most {MAX_EVALUATIONS} evaluations.")
    try:
        semantic = Semantic(options.get("evaluations_semantic", Semantic.EXECUTE_ALL))
    except ValueError:
        raise _refusal(f"evaluations_semantic is one of {', '.join(Semantic)}.") from None
    if not items:
        return _single(body, now)
    defaults = {name: body[name] for name in (*_ENTITIES, "context") if name in body}
    wrong = [name for name, value in defaults.items() if not isinstance(value, dict)]
    if wrong:
        raise _refusal(f"{wrong[0]} is an object.")
    questions = tuple(_of_item(item, defaults, now) for item in items)
    return Asked(questions=questions, semantic=semantic, is_batch=True)


def _object(request: WireRequest) -> dict[str, Any]:
    types = [value for name, value in request.headers if name == b"content-type"]
    if len(types) != 1 or not _TYPE.fullmatch(types[0].strip(b" \t")):
        raise _refusal("Content-Type is application/json.")
    body = request.body
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_CONTAINERS or body.count(b",") > MAX_VALUES or request.header(b"content-encoding"):
        raise Refusal(Reason.MALFORMED_BODY)
    return parse_strict_object(body)


def _single(body: dict[str, Any], now: float) -> Asked:
    try:
        return Asked(questions=(_question(body, now),))
    except _NotAQuestion as error:
        raise _refusal(f"{error}.") from None


def _of_item(item: object, defaults: dict[str, Any], now: float) -> Question:
    """The question of one item of a batch; a bad one is a question that is answered with its error."""
    if not isinstance(item, dict):
        return Question(error="an evaluation is an object")
    try:
        return _question({**defaults, **item}, now)
    except _NotAQuestion as error:
        return Question(error=str(error))


def _question(members: dict[str, Any], now: float) -> Question:
    """The question of these members. Raises `_NotAQuestion` where the standard wants others."""
    subject, action, resource = [_entity(members, name) for name in _ENTITIES]
    context = _entity(members, "context") if "context" in members else {}
    of_subject, of_resource = _typed(subject, "subject"), _typed(resource, "resource")
    name = _text(action, "action", "name")
    properties = _properties(resource, "resource")
    for entity, where in ((subject, "subject"), (action, "action")):
        _properties(entity, where)  # nobody proves them, so none is read
    try:
        return Question(
            subject=_subject(*of_subject),
            action=_action(name),
            resource=_resource(*of_resource, properties),
            moment=_moment(context, now),
            address=_address(context),
        )
    except BadNameError as error:
        return Question(error=str(error))


def _entity(members: dict[str, Any], name: str) -> dict[str, Any]:
    entity = members.get(name)
    if not isinstance(entity, dict):
        raise _NotAQuestion(f"{name} is missing" if name not in members else f"{name} is an object")
    return entity


def _typed(entity: dict[str, Any], where: str) -> tuple[str, str]:
    return _text(entity, where, "type"), _text(entity, where, "id")


def _text(entity: dict[str, Any], where: str, name: str) -> str:
    value = entity.get(name)
    if not isinstance(value, str):
        raise _NotAQuestion(f"{where}.{name} is " + ("missing" if name not in entity else "a string"))
    return value


def _properties(entity: dict[str, Any], where: str) -> dict[str, Any]:
    properties = entity.get("properties", {})
    if not isinstance(properties, dict):
        raise _NotAQuestion(f"{where}.properties is an object")
    return properties


def _subject(kind: str, name: str) -> Subject | None:
    """Whom it is about; None for a name that nobody has. Raises `BadNameError` for an unknown type."""
    if kind not in tuple(SubjectKind):
        raise BadNameError("subject.type is key or tenant")
    try:
        parsed = parse_key_id(name) if kind == SubjectKind.KEY else parse_tenant_id(name)
    except BadNameError:
        return None
    return Subject(kind=SubjectKind(kind), name=parsed)


def _action(name: str) -> Action:
    if name not in _ASKABLE:
        raise BadNameError(f"action.name is one of {', '.join(_ASKABLE)}")
    return _ASKABLE[name]


def _resource(kind: str, name: str, properties: dict[str, Any]) -> Resource | None:
    """What it is about; None for a name that nothing has. Raises `BadNameError` where a name is missing."""
    needed = {"model": (), "package": ("model",), "file": ("model", "package")}.get(kind)
    if needed is None:
        raise BadNameError("resource.type is model, package or file")
    around = [value for one in needed if isinstance(value := properties.get(one), str)]
    if len(around) != len(needed):
        raise BadNameError(f"a {kind} has resource.properties with {' and '.join(needed)}, as strings")
    names = [*around, name]
    try:
        return Resource(
            kind=ResourceKind(kind),
            model=parse_model_id(names[0]),
            package=parse_package_id(names[1]) if len(names) > 1 else None,
            file=parse_file_handle(name) if kind == ResourceKind.FILE else None,
        )
    except BadNameError:
        return None


def _moment(context: dict[str, Any], now: float) -> float | None:
    """The moment that is asked about, in seconds; None for now. Raises `BadNameError`."""
    if "time" not in context:
        return None
    text = context["time"]
    try:
        if not isinstance(text, str) or len(text) > MAX_TIME_CHARACTERS or not text.isascii():
            raise ValueError  # noqa: TRY301 -- one message for all that is wrong
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            raise ValueError  # noqa: TRY301
        moment = parsed.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise BadNameError(_WHEN) from None
    if not FIRST_MOMENT <= moment <= now + MOST_SECONDS_AHEAD:
        raise BadNameError(_WHEN)
    return moment


def _address(context: dict[str, Any]) -> str | None:
    """The address that the subject's request would come from. Raises `BadNameError`."""
    if "ip" not in context:
        return None
    found = find_address(context["ip"]) if isinstance(context["ip"], str) else None
    if found is None or getattr(found, "scope_id", None) is not None:
        raise BadNameError("context.ip is an IPv4 or IPv6 address")
    return str(found)


def _refusal(client_detail: str) -> Refusal:
    return Refusal(Reason.MALFORMED_BODY, client_detail=client_detail)
