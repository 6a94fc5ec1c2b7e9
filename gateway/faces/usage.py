"""Figures from the audit log: what was used, who read a model, what a key did.

    GET/HEAD /audit/v1/usage           reads, runs, bytes by tenant, key, model and day; refusals; networks
    GET/HEAD /audit/v1/readers         who read a model; by blob or file for readers of the whole log
    GET/HEAD /audit/v1/keys/{key_id}   what a key did (all with the scope audit:read)

Who may is decided as for the feed: an administering key with a role for it sees all, a tenant's key what is
of its own tenant record. A tenant is told no more than its clients were: refusals by the kind of problem,
which is the same for what is forbidden and what is not there; and no changes, whose actors are the
operator's. A key or model that is not its own has the answer of one that does not exist: an empty one.

The figures are counts by day, kept beside the index, so that they cost some small files whatever the log's
length. A blob or a file is looked for in the log itself: a part of it at a time, with a cursor for the next.
All of it is read in threads, two at a time. Few may wait, of each tenant fewer, and a tenant is slowed down
as it is where it searches the feed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from gateway.audit.events import Query
from gateway.audit.index import encode_cursor, parse_cursor
from gateway.audit.inquiries import ReadQuestion, WhoRead
from gateway.audit.timeline import time_text
from gateway.audit.usage import UsageQuery, figures_of
from gateway.delivery.document import answer_document
from gateway.faces.route import FaceRoute
from gateway.feed.places import Places
from gateway.feed.search_pace import SearchPace
from gateway.feed.selection import reader_of
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Refusal, Unavailable
from gateway.model.escapes import decode_once
from gateway.model.names import parse_key_id
from gateway.model.queries import split_query
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import Ordered
from gateway.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.audit.index import IndexReader
    from gateway.audit.usage import Figures, UsageRollups
    from gateway.audit.usage.figures import CountRow, UsageRow
    from gateway.feed.selection import FeedReader
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.clocks import Clock
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Receipt

USAGE_PATH, READERS_PATH, KEYS_PATH = b"/audit/v1/usage", b"/audit/v1/readers", b"/audit/v1/keys/"
THREADS = 2
MOST_WAITING = 32
DEFAULT_DAYS, MAX_DAYS = 30, 400
MAX_VALUE_CHARACTERS = 1024
SCANNED_RECORDS = 50_000  # of the log, for one answer about a blob or a file: half a second
PAGE_RECORDS = 250
PAUSE_SECONDS = 0.002  # between pages, in which the event loop has the interpreter
_DAY_SECONDS = 86_400
_DAY_CHARACTERS = len("2026-11-30")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UsageFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The parameters of a query, as text."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    blob: str | None = None
    file: str | None = None
    since: str | None = None
    until: str | None = None
    after: str | None = None


class KeyOfModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one key did with one model, in all days together."""

    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    model: str | None = None
    reads: int = 0
    runs: int = 0
    bytes: int = 0
    first: str = ""
    last: str = ""


class UsageFace:
    """The routes of this module."""

    def __init__(self, node: str, rollups: UsageRollups, reader: IndexReader, clock: Clock) -> None:
        self._node = node
        self._rollups = rollups
        self._reader = reader
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "audit-usage")
        self._places = Places(MOST_WAITING)
        self._pace = SearchPace()

    def routes(self) -> list[FaceRoute]:
        """The routes."""
        return [
            FaceRoute(_route("/audit/v1/usage", USAGE_PATH.__eq__, self._find(self._usage))),
            FaceRoute(_route("/audit/v1/readers", READERS_PATH.__eq__, self._find(self._readers))),
            FaceRoute(_route("/audit/v1/keys/{key_id}", _is_key_path, self._find(self._key))),
        ]

    def _find(
        self, compute: Callable[[WireRequest, FeedReader, UsageFields], dict[str, Any]]
    ) -> Callable[[WireRequest, Allowed], Awaitable[tuple[Ordered, Stamp]]]:
        async def find(request: WireRequest, allowed: Allowed) -> tuple[Ordered, Stamp]:
            reader = reader_of(allowed.access.principal)
            fields = parse_fields(request.query)
            self._verify(request, reader, fields)
            told = answer_document(await self._in_thread(reader, partial(compute, request, reader, fields)))

            async def answer(_: Receipt) -> Answer:  # once it is recorded that it was asked
                return told

            return Ordered(answer=answer, is_change=False), allowed.stamp

        return find

    async def _in_thread(self, reader: FeedReader, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self._places.taken(reader.tenant):
            async with self._pace.paced(reader.tenant):
                try:
                    return await asyncio.get_running_loop().run_in_executor(self._threads, compute)
                except OSError as error:
                    why = f"the log cannot be read ({error.strerror})"
                    raise Unavailable("audit", why, Reason.NO_AUDIT) from error

    def _verify(self, request: WireRequest, reader: FeedReader, fields: UsageFields) -> None:
        """Refuse what is not asked for as it has to be, before it is recorded as an allow."""
        self._period(fields)
        is_readers = request.raw_path == READERS_PATH
        if not is_readers and (fields.blob or fields.file or fields.after):
            raise _malformed("blob, file, after: for /audit/v1/readers alone")
        if is_readers and not (fields.model or fields.blob or fields.file):
            raise _malformed("expected model, blob or file")
        if _is_key_path(request.raw_path) and fields.key_id is not None:
            raise _malformed("key_id: it stands in the path")
        if reader.tenant is None:
            if fields.after is not None:
                _cursor(fields.after)
            return
        if fields.tenant is not None:
            raise _malformed("tenant: a tenant's key reads the figures of its own tenant")
        if fields.blob or fields.file or fields.after:
            raise _malformed("blob, file, after: for readers of the whole log")

    def _period(self, fields: UsageFields) -> tuple[str, str]:
        """The first and the last day that are asked about."""
        now = self._clock.now()
        until = _day(fields.until, now) or time_text(now)[:_DAY_CHARACTERS]
        since = _day(fields.since, now)
        if since is None:
            since = time_text(now - (DEFAULT_DAYS - 1) * _DAY_SECONDS)[:_DAY_CHARACTERS]
        return max(since, time_text(now - MAX_DAYS * _DAY_SECONDS)[:_DAY_CHARACTERS]), until

    def _figures(
        self, reader: FeedReader, fields: UsageFields, key_id: str | None
    ) -> tuple[dict[str, Any], Figures]:
        """What was asked about, as every answer begins, and the figures."""
        since, until = self._period(fields)
        counted = self._rollups.days(since, until)
        query = UsageQuery(
            tenant=fields.tenant if reader.tenant is None else reader.tenant,
            tenant_record=reader.tenant_record,
            is_of_one_record=reader.tenant is not None,
            key_id=key_id,
            model=fields.model,
        )
        figures = figures_of(counted.days, query)
        begun = {
            "node": self._node,
            "since": since,
            "until": until,
            "is_current": counted.is_current,
            "is_cut": figures.is_cut,
        }
        return begun, figures

    def _usage(self, _: WireRequest, reader: FeedReader, fields: UsageFields) -> dict[str, Any]:
        begun, figures = self._figures(reader, fields, fields.key_id)
        return begun | {"usage": _told(figures.usage, reader)} | _counts(figures, reader)

    def _key(self, request: WireRequest, reader: FeedReader, fields: UsageFields) -> dict[str, Any]:
        key_id = request.raw_path.removeprefix(KEYS_PATH).decode("latin-1")
        begun, figures = self._figures(reader, fields, key_id)
        models = _told(by_model(figures.usage), reader)
        return begun | {"key_id": key_id, "models": models} | _counts(figures, reader)

    def _readers(self, _: WireRequest, reader: FeedReader, fields: UsageFields) -> dict[str, Any]:
        if fields.blob or fields.file:
            return self._scan(fields)
        begun, figures = self._figures(reader, fields, fields.key_id)
        return begun | {"readers": _told(by_model(figures.usage), reader)}

    def _scan(self, fields: UsageFields) -> dict[str, Any]:
        """Who read a blob or a file, in a part of the log; `next` is where the following part is."""
        since, until = self._period(fields)
        question = ReadQuestion(model=fields.model, blob=fields.blob, file=fields.file, tenant=fields.tenant)
        found = WhoRead(question)
        cursor = self._reader.start() if fields.after is None else _cursor(fields.after)
        of_time = Query()
        scanned, is_at_end = 0, False
        while scanned < SCANNED_RECORDS and not is_at_end:
            page = self._reader.read(cursor, PAGE_RECORDS, of_time)
            for item in page.records:
                if since <= item.record.time[:_DAY_CHARACTERS] <= until:
                    found.take(item.record)
            cursor, is_at_end = page.cursor, page.is_at_end
            scanned += max(1, len(page.records))
            time.sleep(PAUSE_SECONDS)
        told = {
            "node": self._node,
            "since": since,
            "until": until,
            "is_whole": is_at_end and fields.after is None,
            "readers": msgspec.to_builtins(found.readers),
            "left_out": found.left_out,
        }
        if is_at_end:
            return told
        asked = {**msgspec.to_builtins(fields), "after": encode_cursor(cursor)}
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items())
        return told | {"next": f"{READERS_PATH.decode()}?{pairs}"}


def by_model(rows: Sequence[UsageRow]) -> list[KeyOfModel]:
    """The rows of all days together: one for each key and model."""
    sums: dict[tuple[str | None, ...], KeyOfModel] = {}
    for row in rows:
        who = row.tenant, row.tenant_record, row.key_id, row.model
        one = sums.setdefault(
            who,
            KeyOfModel(
                tenant=row.tenant, tenant_record=row.tenant_record, key_id=row.key_id, model=row.model
            ),
        )
        one.reads += row.reads
        one.runs += row.runs
        one.bytes += row.bytes
        one.first = min(one.first or row.first, row.first)
        one.last = max(one.last, row.last)
    return list(sums.values())


def _told(rows: Sequence[msgspec.Struct], reader: FeedReader) -> list[dict[str, Any]]:
    """The rows; a tenant knows which tenant it is."""
    told: list[dict[str, Any]] = msgspec.to_builtins(rows)
    if reader.tenant is not None:
        for row in told:
            row.pop("tenant", None)
            row.pop("tenant_record", None)
    return told


def _counts(figures: Figures, reader: FeedReader) -> dict[str, Any]:
    if reader.tenant is None:
        return {
            "refusals": _told(figures.refusals, reader),
            "networks": _told(figures.networks, reader),
            "changes": _told(figures.changes, reader),
        }
    return {"refusals": by_problem(figures.refusals), "networks": _told(figures.networks, reader)}


def by_problem(rows: Sequence[CountRow]) -> list[dict[str, Any]]:
    """Refusals by what the client was told, for a tenant: reasons would tell what exists."""
    sums: Counter[tuple[str, str | None, str]] = Counter()
    for row in rows:
        sums[row.day, row.key_id, _problem(row.reason)] += row.count
    return [
        {"day": day, "key_id": key_id, "problem": problem, "count": count}
        for (day, key_id, problem), count in sorted(sums.items(), key=str)
    ]


def _problem(reason: str | None) -> str:
    known = next((one for one in Reason if one.value == reason), None)
    return "other" if known is None else problem_of(known, "-").kind


def parse_fields(query: bytes) -> UsageFields:
    """The parameters of a query. Raises `Refusal(MALFORMED_QUERY)`."""
    asked: dict[str, str] = {}
    try:
        for field in split_query(query) if query else ():
            raw_name, equals, raw_value = field.partition(b"=")
            name = unquote_to_bytes(raw_name).decode("ascii")
            value = decode_once(raw_value.replace(b"+", b" "))
            if name in asked or not equals or len(value) > MAX_VALUE_CHARACTERS:
                raise _malformed("a parameter came twice, without a value, or is too long")
            asked[name] = value
        return msgspec.convert(asked, type=UsageFields)
    except ValueError as error:
        raise _malformed("expected tenant, key_id, model, blob, file, since, until, after") from error


def _malformed(detail: str | None) -> Refusal:
    return Refusal(Reason.MALFORMED_QUERY, client_detail=detail)


def _cursor(text: str) -> Any:
    try:
        return parse_cursor(text)
    except ValueError:
        raise _malformed("after: expected the cursor of an answer") from None


def _day(text: str | None, now: float) -> str | None:
    """A day, or the day of a moment; a duration counts back from now."""
    if text is None:
        return None
    if _DAY.fullmatch(text):
        return text
    try:
        return time_text(now - parse_duration(text))[:_DAY_CHARACTERS]
    except BadNameError:
        pass
    try:
        return time_text(parse_moment(text, now))[:_DAY_CHARACTERS]
    except (BadNameError, ValueError, OverflowError) as error:
        raise _malformed("since, until: expected a day, a moment, or how long ago") from error


def _is_key_path(raw_path: bytes) -> bool:
    key_id = raw_path.removeprefix(KEYS_PATH)
    return key_id not in {raw_path, b""} and b"/" not in key_id


def _locate(request: WireRequest) -> Resource:
    if _is_key_path(request.raw_path):
        try:
            parse_key_id(request.raw_path.removeprefix(KEYS_PATH).decode("latin-1"))
        except BadNameError:
            raise Refusal(Reason.ABSENT) from None
    return Resource(kind=ResourceKind.SELF)


def _route(
    template: str,
    matches: Callable[[bytes], bool],
    find: Callable[[WireRequest, Allowed], Awaitable[tuple[Ordered, Stamp]]],
) -> GuardedRoute:
    return GuardedRoute(
        template=template,
        methods=("GET", "HEAD"),
        action=Action.AUDIT_READ,
        matches=matches,
        locate=_locate,
        find=find,
        answer=_carry_out,
    )


def _carry_out(receipt: Receipt) -> Awaitable[Answer]:
    found = receipt.admission.found
    if not isinstance(found, Ordered):
        raise TypeError("this route answers with figures")
    answered: Awaitable[Answer] = found.answer(receipt)  # type: ignore[assignment]
    return answered
