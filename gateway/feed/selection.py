"""What a reader of the feed asks for, and what of each record it gets.

A reader of the operator's gets records as they were written. A tenant gets views of its own
(`tenant_view.py`), and its filters compare what it sees: a filter on what a record holds beside that (the
model behind an alias, the reason of a refusal) would tell it by what is left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

import msgspec

from gateway.audit.events import Query
from gateway.audit.record import Record
from gateway.feed.tenant_view import ViewedRecord, encode_view, view_of
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.facts import Role
from gateway.model.queries import split_query

if TYPE_CHECKING:
    from gateway.audit.index import IndexedRecord
    from gateway.model.access import Principal, WireRequest
    from gateway.model.names import KeyId, TenantId
    from gateway.model.tenant_records import TenantRecordId

EVENTS_PATH = "/audit/v1/events"
ALL = "all"
END = "end"
READERS_OF_ALL = frozenset({Role.OWNER, Role.OPERATOR, Role.AUDITOR})
"""The roles whose keys read the whole log, with the scope `audit:read`."""

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_WAIT_SECONDS = 60.0
MAX_VALUE = 1024  # characters of a filter: longer than any name

JSON, LINES, STREAM = b"application/json", b"application/x-ndjson", b"text/event-stream"
_FORMS = {
    b"application/json": JSON,
    b"application/x-ndjson": LINES,
    b"application/jsonl": LINES,
    b"application/ndjson": LINES,
    b"text/event-stream": STREAM,
}
_DECISIONS = ("allow", "deny")
_EXPECTED_MOMENT = "since, until: expected a time with its zone, 2026-11-30T12:00:00Z, or how long ago, 2h"
KINDS = frozenset(str(kind.__struct_config__.tag) for kind in Record.__args__)


class FeedReader(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads: a tenant, or all of the log where `tenant` is None."""

    key_id: KeyId
    tenant: TenantId | None
    tenant_record: TenantRecordId | None = None

    @property
    def whose(self) -> str:
        """Whom its cursors are sealed for. No two readers that may see different records have the same."""
        return ALL if self.tenant is None else f"tenant {self.tenant_record or ''} {self.tenant}"


class FeedFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The parameters of the query, as text."""

    after: str | None = None
    limit: int = DEFAULT_LIMIT
    wait: float = 0.0
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    decision: str | None = None
    reason: str | None = None
    kind: str | None = None
    since: str | None = None
    until: str | None = None
    consumer: str | None = None


_NAMES = frozenset(FeedFields.__struct_fields__)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The records that a reader gets, and in what form."""

    reader: FeedReader
    query: Query
    model: str | None = None  # of a tenant: compared with what it sees
    problem: str | None = None

    def document(self, item: IndexedRecord) -> bytes | None:
        """What the reader gets of a record that is at hand; None where that is nothing."""
        record, reader = item.record, self.reader
        if reader.tenant is None:
            return item.line if self.query.matches(record) else None
        if getattr(record, "tenant", None) != reader.tenant:  # nearly all, where there are many tenants
            return None
        view = view_of(record, reader.tenant, reader.tenant_record) if self.query.matches(record) else None
        return encode_view(view) if view is not None and self._fits(view) else None

    def _fits(self, view: ViewedRecord) -> bool:
        resource = view.resource
        names = set() if resource is None else {resource.requested, resource.model}
        return (self.model is None or self.model in names) and (
            self.problem is None or self.problem == view.problem
        )


class FeedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the feed, parsed."""

    selection: Selection
    form: bytes
    after: str | None
    limit: int
    wait_seconds: float
    consumer: str | None
    fields: FeedFields

    @property
    def reader(self) -> FeedReader:
        """Who asks."""
        return self.selection.reader

    def next_page(self, cursor: str) -> str:
        """The path of the next page."""
        asked = msgspec.to_builtins(self.fields)
        asked["after"] = cursor
        return f"{EVENTS_PATH}?" + "&".join(
            f"{name}={quote(_text(value), safe='')}" for name, value in asked.items()
        )


def reader_of(principal: Principal) -> FeedReader:
    """Who reads with a key. Raises `Refusal` for one that reads nothing here.

    A key that is narrowed to some models reads nothing: what it may see would depend on each record, and a
    refusal names no model that this could be decided by.
    """
    if principal.only is not None:
        raise Refusal(Reason.MISSING_ACTION)
    if principal.tenant is None and principal.role not in READERS_OF_ALL:
        raise Refusal(Reason.MISSING_ACTION)
    return FeedReader(key_id=principal.key_id, tenant=principal.tenant, tenant_record=principal.tenant_record)


def parse_request(request: WireRequest, reader: FeedReader, now: float) -> FeedRequest:
    """What is asked for. Raises `Refusal(MALFORMED_QUERY)`, which says what is wrong with it."""
    form = _form(request)
    try:
        fields = _parse_fields(request.query)
        _verify(fields, reader)
        selection = _select(fields, reader, now)
    except (BadNameError, msgspec.ValidationError, ValueError) as error:
        raise Refusal(Reason.MALFORMED_QUERY, client_detail=_detail(error)) from error
    after = fields.after
    if form == STREAM:
        after = _last_event_id(request) or after
    return FeedRequest(
        selection=selection,
        form=form,
        after=after,
        limit=fields.limit,
        wait_seconds=fields.wait,
        consumer=fields.consumer,
        fields=fields,
    )


def _verify(fields: FeedFields, reader: FeedReader) -> None:
    if not 1 <= fields.limit <= MAX_LIMIT:
        raise BadNameError(f"limit: expected 1 to {MAX_LIMIT}")
    if not 0 <= fields.wait <= MAX_WAIT_SECONDS:
        raise BadNameError(f"wait: expected 0 to {MAX_WAIT_SECONDS:.0f} seconds")
    if fields.consumer is not None and reader.tenant is not None:
        raise BadNameError("consumer: a tenant's reader keeps its cursor itself")


def _select(fields: FeedFields, reader: FeedReader, now: float) -> Selection:
    if fields.decision is not None and fields.decision not in _DECISIONS:
        raise BadNameError("decision: expected allow or deny")
    if fields.kind is not None and fields.kind not in KINDS:
        raise BadNameError(f"kind: expected one of {', '.join(sorted(KINDS))}")
    query = Query(
        tenant=fields.tenant,
        key_id=fields.key_id,
        decision=fields.decision,
        kind=fields.kind,
        since=_past(fields.since, now),
        until=_past(fields.until, now),
    )
    if reader.tenant is None:
        return Selection(
            reader=reader,
            query=msgspec.structs.replace(query, model=fields.model, reason=fields.reason),
        )
    if fields.tenant is not None:
        raise BadNameError("tenant: a tenant's key reads the records of its own tenant")
    own = msgspec.structs.replace(query, tenant=reader.tenant, tenant_record=reader.tenant_record)
    return Selection(reader=reader, query=own, model=fields.model, problem=fields.reason)


def _parse_fields(query: bytes) -> FeedFields:
    asked: dict[str, str] = {}
    for field in split_query(query) if query else ():
        raw_name, equals, raw_value = field.partition(b"=")
        name = unquote_to_bytes(raw_name).decode("ascii")
        if name in asked or not equals:
            raise BadNameError("a parameter came twice, or without a value")
        asked[name] = decode_once(raw_value.replace(b"+", b" "))
        if len(asked[name]) > MAX_VALUE:
            raise BadNameError(f"a parameter has more than {MAX_VALUE} characters")
    if not asked.keys() <= _NAMES:
        raise BadNameError(f"expected {', '.join(FeedFields.__struct_fields__)}")
    return msgspec.convert(asked, type=FeedFields, strict=False)


def _past(text: str | None, now: float) -> float | None:
    """A moment; a duration counts back from now."""
    if text is None:
        return None
    with suppress(BadNameError):
        return now - parse_duration(text)
    try:
        return parse_moment(text, now)
    except BadNameError as error:
        raise BadNameError(_EXPECTED_MOMENT) from error


def is_stream(request: WireRequest) -> bool:
    """Whether a request is for a stream."""
    return _form(request) == STREAM


def _form(request: WireRequest) -> bytes:
    """The form that the Accept header asks for: the first that is known, and JSON without any."""
    for name, value in request.headers:
        if name == b"accept":
            for part in value.split(b",", 16):
                known = _FORMS.get(part.partition(b";")[0].strip().lower())
                if known is not None:
                    return known
    return JSON


def _last_event_id(request: WireRequest) -> str | None:
    ids = [value for name, value in request.headers if name == b"last-event-id"]
    return ids[-1].decode("latin-1") if ids and ids[-1] else None


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _detail(error: Exception) -> str | None:
    """What is wrong, in words that are not the client's."""
    if isinstance(error, BadNameError):
        return str(error)
    return str(error) if isinstance(error, msgspec.ValidationError) else None
