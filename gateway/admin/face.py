"""The routes of the administration: each path of the tables is one guarded route, whatever its methods.

A request goes through the guard as every other does: its key is found, its action decided by the rules, all
of it recorded. Only then is it read (path, query, body), and only then carried out. So whoever may not do
something learns nothing of what it would have come to.

There are no cookies and no CORS: a page in a browser has no key to send, and gets no answer that it may read.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec.structs import replace

from gateway.admin import access, grants, keys, models, others, policy, tenants
from gateway.admin.call import REPLAYED, Call, Reply, changed
from gateway.admin.documents import Changed, KeyMade, KeyRotated
from gateway.admin.idempotency import HEADER, Replayed, ticket_of
from gateway.admin.openapi import document_of
from gateway.delivery.document import answer_document, answer_json
from gateway.directory.edits.effect import Effect, FolderOwned
from gateway.faces.route import FaceRoute
from gateway.front_door.strict_json import parse_strict_object
from gateway.identity.tokens import TOKEN_PATTERN
from gateway.model.access import Resource, ResourceKind
from gateway.model.answers import Answer
from gateway.model.errors import BadNameError, Conflict, FieldProblem, Reason, Refusal, UnknownName
from gateway.model.escapes import decode_once
from gateway.model.queries import split_query
from gateway.model.routes import GuardedRoute, PublicRoute
from gateway.model.stores import Moment
from gateway.model.verdicts import Ordered
from gateway.registrar import Done

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.admin.operation import Operation
    from gateway.model.access import WireRequest
    from gateway.model.clocks import Clock
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue

ADMIN_PATH = "/admin/v1"
OWN_PATH = "/v1"

OPERATIONS: tuple[Operation, ...] = (
    *tenants.OPERATIONS,
    *keys.OPERATIONS,
    *grants.OPERATIONS,
    *models.OPERATIONS,
    *policy.OPERATIONS,
    *others.OPERATIONS,
    *access.OPERATIONS,
)
"""Everything that operators do. A further operation is a row in the table of its module."""

OWN_OPERATIONS: tuple[Operation, ...] = (*keys.OWN_OPERATIONS, *grants.OWN_OPERATIONS)
"""What tenants do for themselves."""

OWN_BODY_BYTES = 16 * 1024  # on the public listener, as the forms of tokens
MAX_PATH_ID = 1024
MAX_MATCHES = 16  # entity tags of one If-Match
_PLACE = re.compile(r" - at `\$(?P<place>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")
_KEY_OF_OURS = re.compile(TOKEN_PATTERN.replace(r"\b", ""))  # also within a longer name
_TAG = re.compile(rb'"[!#-~]*"|\*')


class AdminFace:
    """The routes over one session. `is_own`: those of tenants, about the caller's own tenant alone."""

    def __init__(
        self,
        session: OperatorSession,
        catalogue: DiskCatalogue,
        clock: Clock,
        confirm: Callable[[Receipt, float], None],
        *,
        is_own: bool = False,
    ) -> None:
        """`confirm` is the guard's last check, which is made again where something is changed."""
        self._session = session
        self._catalogue = catalogue
        self._clock = clock
        self._confirm = confirm
        self._is_own = is_own
        self._path = OWN_PATH if is_own else ADMIN_PATH
        self.operations = OWN_OPERATIONS if is_own else OPERATIONS

    def routes(self) -> list[FaceRoute]:
        """One route for each path."""
        by_path: dict[str, list[Operation]] = {}
        for one in self.operations:
            by_path.setdefault(one.path, []).append(one)
        return [FaceRoute(self._route(path, listed)) for path, listed in by_path.items()]

    def public_routes(self) -> list[PublicRoute]:
        """The OpenAPI document: it tells everybody the same."""
        body = msgspec.json.encode(document_of(self.operations, path=self._path)) + b"\n"
        answer = answer_json(body)
        raw_path = f"{self._path}/openapi.json".encode()
        return [
            PublicRoute(
                template=raw_path.decode(),
                methods=("GET", "HEAD"),
                matches=raw_path.__eq__,
                answer=lambda: answer,
            )
        ]

    def _route(self, path: str, listed: Sequence[Operation]) -> GuardedRoute:
        template = self._path + path
        before, _, behind = template.partition("{id}")
        find_id = partial(_raw_id, before.encode(), behind.encode()) if "{id}" in template else None
        matches = template.encode().__eq__ if find_id is None else partial(_is_there, find_id)
        inner = {one.method: self._inner(template, one, find_id) for one in listed}
        if "GET" in inner:
            inner["HEAD"] = inner["GET"]
        first = next(iter(inner.values()))
        return GuardedRoute(
            template=template,
            methods=tuple(inner),
            action=first.action,
            matches=matches,
            locate=first.locate,
            unwrap=lambda request: (request, inner[request.method]),
            wrapped_methods=tuple(inner),
            answer=_carry_out,
            form_bytes=OWN_BODY_BYTES if self._is_own else max(one.body_bytes for one in listed),
            has_key_in_head=True,
        )

    def _inner(
        self, template: str, operation: Operation, find_id: Callable[[bytes], bytes | None] | None
    ) -> GuardedRoute:
        """What the guard decides about one method of a path."""

        def locate(request: WireRequest) -> Resource:
            raw_id = None if find_id is None else find_id(request.raw_path)
            subject = None if raw_id is None else _recorded(raw_id)
            kind = ResourceKind.TENANT if self._is_own else ResourceKind.ADMINISTRATION
            return Resource(kind=kind, subject=subject)

        async def find(request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
            raw_id = None if find_id is None else find_id(request.raw_path)
            call = self._call(operation, request, allowed, raw_id)
            ordered = Ordered(answer=partial(self._answer, operation, call), is_change=operation.is_change)
            return ordered, allowed.stamp

        return GuardedRoute(
            template=template,
            methods=(operation.method,),
            action=operation.action,
            matches=lambda _: False,
            locate=locate,
            find=find,
            form_bytes=operation.body_bytes,
        )

    def _call(
        self, operation: Operation, request: WireRequest, allowed: Allowed, raw_id: bytes | None
    ) -> Call:
        """Read a request. Raises `Refusal` that names what is wrong with it."""
        principal = allowed.access.principal
        named = "" if raw_id is None else _parse_id(operation, raw_id)
        body = _parse_body(operation, request)
        return Call(
            action=operation.action,
            session=self._session.as_actor(principal.key_id),
            catalogue=self._catalogue,
            principal=principal,
            own=principal.tenant if self._is_own else None,
            now=self._clock.now(),
            id=named,
            query=_parse_query(operation, request.query),
            body=body,
            if_match=_parse_match(operation, request),
            ticket=ticket_of(
                [value for name, value in request.headers if name == HEADER],
                principal.key_id,
                *(request.method.encode(), request.raw_path, request.query, request.form),
            )
            if operation.takes_idempotency_key
            else None,
        )

    async def _answer(self, operation: Operation, call: Call, receipt: Receipt) -> Answer:
        """Carry it out, or record why a change was refused, and by whom it was asked for."""
        try:
            return await self._carried_out(operation, call, receipt)
        except Refusal as refusal:
            if operation.is_change:
                subject = (call.id,) if call.id else ()
                action = operation.action.value
                await call.session.note_refused(action, refusal.reason, call.principal, subject)
            raise

    async def _carried_out(self, operation: Operation, call: Call, receipt: Receipt) -> Answer:
        """Carry it out. A change that has begun is not given up with its client."""
        call = replace(call, confirm=lambda: self._confirm(receipt, self._clock.now()))
        try:
            if operation.is_change:
                reply = await asyncio.shield(asyncio.ensure_future(operation.handle(call)))
            else:
                reply = await operation.handle(call)
        except Replayed as replayed:
            reply = _replay(operation, call, replayed)
        except FolderOwned as error:
            raise Refusal(Reason.FOLDER_OWNED, client_detail=str(error)) from error
        except UnknownName as error:
            reason = Reason.ABSENT if error.name == call.id else Reason.CONFLICT
            raise Refusal(reason, client_detail=str(error) if reason is Reason.CONFLICT else None) from error
        except Conflict as error:
            raise Refusal(Reason.CONFLICT, client_detail=str(error)) from error
        except BadNameError as error:
            raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=str(error)) from error
        return self._answer_of(operation, call, reply)

    def _answer_of(self, operation: Operation, call: Call, reply: Reply) -> Answer:
        next_page = None
        if reply.next_after is not None:
            next_page = self._next_page(operation, call, reply.next_after)
        answer = answer_document(reply.document, next_page=next_page)
        more: list[tuple[bytes, bytes]] = []
        tag = reply.etag or (None if reply.generation is None else str(reply.generation))
        if tag is not None and operation.has_etag:
            more.append((b"etag", f'"{tag}"'.encode()))
        if reply.location is not None:
            more.append((b"location", f"{self._path}{reply.location}".encode()))
        return Answer(reply.status, answer.headers.and_also(*more), answer.body)

    def _next_page(self, operation: Operation, call: Call, after: str) -> str:
        asked = {**msgspec.structs.asdict(call.query), "after": after}
        fields = "&".join(
            f"{name}={quote(_text(value), safe='')}"
            for name, value in asked.items()
            if value is not None and value is not False and value is not msgspec.UNSET
        )
        return f"{self._path}{operation.path}?{fields}"


def _carry_out(receipt: Receipt) -> Awaitable[Answer]:
    found = receipt.admission.found
    if not isinstance(found, Ordered):
        raise TypeError("this route administers")
    answered: Awaitable[Answer] = found.answer(receipt)  # type: ignore[assignment]
    return answered


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _raw_id(before: bytes, behind: bytes, raw_path: bytes) -> bytes | None:
    """The part of a path between these two; None where the path has another shape."""
    if not (raw_path.startswith(before) and raw_path.endswith(behind)):
        return None
    found = raw_path[len(before) : len(raw_path) - len(behind)]
    if not found or b"/" in found or len(raw_path) < len(before) + len(behind):
        return None
    return found


def _recorded(raw_id: bytes) -> str | None:
    """What a path is about, for the record; nothing, where it may hold a key (I8)."""
    try:
        text = decode_once(raw_id[:MAX_PATH_ID])
    except BadNameError:
        return None
    return None if _KEY_OF_OURS.search(text) else text


def _refuse_keys(text: str, reason: Reason) -> None:
    """Raise `Refusal` for a key of ours where a name belongs: names are recorded, and told to others (I8)."""
    if _KEY_OF_OURS.search(text):
        raise Refusal(reason)


def _is_there(find_id: Callable[[bytes], bytes | None], raw_path: bytes) -> bool:
    return find_id(raw_path) is not None


def _parse_id(operation: Operation, raw_id: bytes) -> str:
    """The id of a path. What can be no name names nothing."""
    if operation.parse_id is None:
        raise TypeError("this path has no id")
    if len(raw_id) > MAX_PATH_ID:
        raise Refusal(Reason.ABSENT)
    try:
        text = decode_once(raw_id)
        _refuse_keys(text, Reason.KEY_IN_QUERY)
        return operation.parse_id(text)
    except BadNameError as error:
        raise Refusal(Reason.ABSENT) from error


def _parse_body(operation: Operation, request: WireRequest) -> Any:
    if operation.body is None:
        if request.form.strip() not in {b"", b"{}"}:
            raise Refusal(Reason.MALFORMED_BODY, fields=(FieldProblem("", "there is nothing to say here"),))
        return None
    kinds = [value for name, value in request.headers if name == b"content-type"]
    if request.form and (len(kinds) != 1 or not _is_json(kinds[0])):
        raise Refusal(Reason.MALFORMED_BODY, client_detail="Send it with Content-Type: application/json.")
    if not request.form and operation.is_body_optional:
        return operation.body()
    if not request.form:
        raise Refusal(Reason.MALFORMED_BODY, fields=(FieldProblem("", "the body is missing"),))
    members = parse_strict_object(request.form)
    named = {name: said for name, said in members.items() if not _are_tokens(operation, name)}
    _refuse_keys(msgspec.json.encode(named).decode(), Reason.MALFORMED_BODY)
    try:
        return msgspec.convert(members, type=operation.body)
    except msgspec.ValidationError as error:
        raise Refusal(Reason.MALFORMED_BODY, fields=(field_problem(str(error)),)) from error


def _are_tokens(operation: Operation, name: str) -> bool:
    """Whether this member of a body has found tokens, which are compared and told to nobody."""
    return operation.holds_found_tokens and name == "tokens"


def _is_json(kind: bytes) -> bool:
    media, _, parameter = kind.partition(b";")
    is_json = media.strip().lower() in {b"application/json", b"application/merge-patch+json"}
    return is_json and parameter.strip().lower() in {b"", b"charset=utf-8", b'charset="utf-8"'}


def field_problem(message: str) -> FieldProblem:
    """The field that a validation error is about, as a JSON pointer, and what is wrong with it."""
    found = _PLACE.search(message)
    detail = message if found is None else message[: found.start()]
    steps = [] if found is None else [name or number for name, number in _STEP.findall(found["place"])]
    named = _FIELD.search(detail)
    if named is not None:
        steps.append(named[1])
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    return FieldProblem(pointer, detail)


def _parse_query(operation: Operation, query: bytes) -> Any:
    """The parameters, each once, none that is not read here."""
    asked: dict[str, str] = {}
    try:
        for field in split_query(query) if query else ():
            raw_name, equals, raw_value = field.partition(b"=")
            name = unquote_to_bytes(raw_name).decode("ascii")
            _refuse_keys(name, Reason.KEY_IN_QUERY)
            if name in asked or not equals:
                raise BadNameError("a parameter came twice, or without a value")
            asked[name] = decode_once(raw_value.replace(b"+", b" "))
            _refuse_keys(asked[name], Reason.KEY_IN_QUERY)
        return msgspec.convert(asked, type=operation.query, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise Refusal(Reason.MALFORMED_QUERY, client_detail=_query_problem(error)) from error


def _query_problem(error: Exception) -> str | None:
    if not isinstance(error, msgspec.ValidationError):
        return None
    problem = field_problem(str(error))
    return f"{problem.pointer.removeprefix('/')}: {problem.detail}"


def _parse_match(operation: Operation, request: WireRequest) -> tuple[str, ...] | None:
    """The entity tags of If-Match. Raises `Refusal` where they are needed and there are none."""
    lines = [value for name, value in request.headers if name == b"if-match"]
    if not lines:
        if operation.needs_match:
            raise Refusal(Reason.PRECONDITION_REQUIRED)
        return None
    parts = [part.strip() for part in b",".join(lines).split(b",", MAX_MATCHES)]
    # What is no entity tag, and a weak one, matches nothing (RFC 9110, 13.1.1).
    return tuple(part.decode("ascii") for part in parts if _TAG.fullmatch(part))


def _replay(operation: Operation, call: Call, replayed: Replayed) -> Reply:
    """The answer to a request that was carried out before: what it made, and no secret.

    Whether that is in force everywhere is found out anew: whoever sends a revocation again must not be told
    that it is sure because the first answer was lost.
    """
    note = replayed.note
    effect = Effect(is_changed=True, sentences=(REPLAYED,))
    done = Done(effect, Moment(generation=note.generation), replayed.barrier)
    kind: type[Changed] = Changed
    more: dict[str, Any] = {}
    if operation.reply is KeyMade:
        kind, more = KeyMade, {"token": None, "note": keys.NOT_SHOWN}
    elif operation.reply is KeyRotated:
        kind, more = (
            KeyRotated,
            {"token": None, "note": keys.NOT_SHOWN, "replaces": call.id, "old_ends_at": None},
        )
    reply = changed(done, call, made=note.subject, kind=kind, **more)
    return Reply(
        document=replace(reply.document, replayed=True),
        status=note.status if reply.status == HTTPStatus.OK else reply.status,
        location=note.location,
    )
