"""`cachegate audit`: the investigator's questions, one command each, over live and packed logs and copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.adapters.clock import SystemClock
from gateway.audit.inquiries import KeyReading, ReadQuestion, TenantTimeline, WhoRead
from gateway.audit.timeline import time_text
from gateway.audit.usage import UsageDay, UsageQuery, UsageTally, figures_of
from gateway.audit.usage.usage_report import UsageReport, report_of
from gateway.cli.audit.asked import FromPaths, Since, Tenant, TenantRecord, Until, take_all
from gateway.cli.periods import parse_past
from gateway.model.errors import Misconfigured
from gateway.model.names import parse_key_id
from gateway.model.tenant_records import parse_tenant_record_id
from gateway.operations.audit_export import whole_file
from gateway.terminal.console import AsJson, Line, Note, Table, show
from gateway.terminal.day_bars import text_bar
from gateway.terminal.escaping import escape_controls
from gateway.terminal.progress import readable_size
from gateway.terminal.usage_chart import usage_chart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.audit.inquiries.key_history import ChangeOfKey, KeyHistory
    from gateway.audit.inquiries.uses import Uses

SHOWN = 20  # of each table for people; JSON has all
SHOWN_CLIENTS = 3
_DAY = len("2026-11-30")


def who_read(
    log: FromPaths = None,
    model: Annotated[str | None, typer.Option(help="A model, as asked for or canonical.")] = None,
    blob: Annotated[str | None, typer.Option(help="A blob, by MD5 or SHA-256.")] = None,
    file: Annotated[str | None, typer.Option(help="A file, by its name in the package.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only reads of this tenant.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Say who read a model, blob or file: when, how often, how many bytes, from where."""
    if model is None and blob is None and file is None:
        raise Misconfigured("audit who-read", "takes at least one of --model, --blob and --file")
    question = ReadQuestion(model=model, blob=blob, file=file, tenant=tenant)
    found = WhoRead(question)
    take_all(found.take, log, since, until)
    readers = found.readers
    rows = [
        (
            escape_controls(one.tenant or "-"),
            escape_controls(one.key_id or "-"),
            escape_controls(f"{one.action} ({one.principal or 'unknown'})"),
            one.uses.times,
            readable_size(one.uses.bytes),
            escape_controls(one.uses.first),
            escape_controls(one.uses.last),
            _clients(one.uses),
        )
        for one in readers
    ]
    columns = ("tenant", "key", "how", "times", "sent", "first", "last", "from")
    document = {"question": question, "readers": readers, "left_out": found.left_out}
    notes = [_left_out(found.left_out, "reads of further keys")] if found.left_out else []
    shown = [Table("", columns, rows, empty="Nobody read it in this time.")]
    show(msgspec.to_builtins(document), shown, as_json=as_json, notes=notes)


def key(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    log: FromPaths = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Say all that a key did: models, files, bytes, networks, refusals, changes. For a key that leaked."""
    reading = KeyReading(parse_key_id(key_id))
    take_all(reading.take, log, since, until)
    history = reading.history
    show(msgspec.to_builtins(history), _shown_history(history), as_json=as_json)


def timeline(
    tenant: Annotated[str, typer.Option(help="Of which tenant.")],
    tenant_record: TenantRecord = None,
    log: FromPaths = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Say what happened to a tenant, in order: changes, what was new, reads and refusals hour by hour."""
    record = None if tenant_record is None else parse_tenant_record_id(tenant_record)
    found = TenantTimeline(tenant, record)
    take_all(found.take, log, since, until)
    lines = found.lines
    rows = [
        (
            escape_controls(one.time),
            one.what,
            escape_controls(one.text),
            escape_controls(one.key_id or "-"),
            one.count or "-",
            readable_size(one.bytes) if one.bytes else "-",
            escape_controls(one.result or "-"),
        )
        for one in lines
    ]
    columns = ("from", "what", "about", "key", "times", "sent", "result")
    notes = [_left_out(found.left_out, "further lines")] if found.left_out else []
    document = {"tenant": tenant, "lines": msgspec.to_builtins(lines), "left_out": found.left_out}
    shown = [Table("", columns, rows, empty="Nothing happened to this tenant in this time.")]
    show(document, shown, as_json=as_json, notes=notes)


def report(
    tenant: Tenant = None,
    tenant_record: TenantRecord = None,
    log: FromPaths = None,
    since: Since = None,
    until: Until = None,
    svg: Annotated[Path | None, typer.Option(help="Write a drawing of it to this file, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report reads, refusals, bytes, models, keys and networks by day, of a tenant or of all."""
    now = SystemClock().now()
    record = None if tenant_record is None else parse_tenant_record_id(tenant_record)
    tally = UsageTally()
    take_all(tally.take, log, since, until)
    figures = figures_of(_in_order(tally), UsageQuery(tenant=tenant, tenant_record=record), most=None)
    made = report_of(figures, tenant, _day(since, now), _day(until, now))
    if svg is not None:
        whose = "all tenants" if tenant is None else f"the tenant {tenant}"
        period = f"{made.days[0].day} to {made.days[-1].day}" if made.days else "no day"
        with whole_file(svg) as write:
            write(usage_chart(made, f"Cachegate: usage of {whose}, {period}").encode())
    show(msgspec.to_builtins(made), _shown_report(made), as_json=as_json)


def _day(text: str | None, now: float) -> str | None:
    moment = parse_past(text, now)
    return None if moment is None else time_text(moment)[:_DAY]


def _in_order(tally: UsageTally) -> list[UsageDay]:
    return sorted(tally.days.values(), key=lambda one: one.day)


def _left_out(count: int, what: str) -> Note:
    return Note(f"{count} {what} are left out.", "yellow")


def _clients(uses: Uses) -> str:
    most = sorted(uses.clients.items(), key=lambda one: -one[1])
    named = ", ".join(escape_controls(client) for client, _ in most[:SHOWN_CLIENTS])
    return f"{named} and {len(most) - SHOWN_CLIENTS} more" if len(most) > SHOWN_CLIENTS else named


def _shown_history(history: KeyHistory) -> Iterator[Line | Note | Table]:
    if not history.requests and not history.changes_made and not history.changes_of_it:
        yield Note("No record in this time names this key.", "yellow")
        return
    whose = escape_controls(history.tenant or "no tenant")
    total = history.allowed
    yield Line(
        f"{history.key_id} of {whose}: {history.requests} requests from {escape_controls(history.first)} to "
        f"{escape_controls(history.last)}, {total.times} allowed, {readable_size(total.bytes)} sent, "
        f"{sum(history.refusals.values())} refused."
    )
    yield _uses_table("Models", "model", history.models)
    yield _uses_table("Files", "file", history.files)
    yield _counts_table("Networks", "network", history.networks)
    yield _counts_table("Refusals", "reason", history.refusals)
    yield _counts_table("Asked for in vain", "model", history.refused_names)
    yield _changes_table("Changes that it made", history.changes_made)
    yield _changes_table("Changes of it", history.changes_of_it)


def _uses_table(title: str, what: str, sums: dict[str, Uses]) -> Table:
    most = sorted(sums.items(), key=lambda one: (-one[1].bytes, -one[1].times, one[0]))
    rows = [
        (
            escape_controls(name),
            one.times,
            readable_size(one.bytes),
            escape_controls(one.first),
            escape_controls(one.last),
        )
        for name, one in most[:SHOWN]
    ]
    return Table(_titled(title, len(most)), (what, "times", "sent", "first", "last"), rows, f"{title}: none.")


def _counts_table(title: str, what: str, counts: dict[str, int]) -> Table:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    rows = [(escape_controls(name), count) for name, count in most[:SHOWN]]
    return Table(_titled(title, len(most)), (what, "times"), rows, f"{title}: none.")


def _changes_table(title: str, changes: list[ChangeOfKey]) -> Table:
    rows = [
        (
            escape_controls(one.time),
            escape_controls(one.actor),
            escape_controls(" ".join((one.action, *one.subject))),
            escape_controls(one.tenant or "-"),
            escape_controls(one.key_id or "-"),
            escape_controls(one.result or "-"),
        )
        for one in changes[:SHOWN]
    ]
    columns = ("time", "by", "change", "tenant", "key", "result")
    return Table(_titled(title, len(changes)), columns, rows, f"{title}: none.")


def _titled(title: str, count: int) -> str:
    return f"{title} ({SHOWN} of {count})" if count > SHOWN else title


def _shown_report(made: UsageReport) -> Iterator[Line | Note | Table]:
    largest = max((day.reads + day.runs for day in made.days), default=0)
    rows = [
        (
            day.day,
            day.reads,
            day.runs,
            readable_size(day.bytes),
            day.refusals,
            text_bar(day.reads + day.runs, largest),
        )
        for day in made.days
    ]
    columns = ("day", "reads", "runs", "sent", "refusals", "reads and runs")
    yield Table("Days", columns, rows, "Nothing in this time.")
    for title, what, named in (("Models", "model", made.models), ("Keys", "key", made.keys)):
        listed = [
            (escape_controls(one.name), one.reads, one.runs, readable_size(one.bytes))
            for one in named[:SHOWN]
        ]
        yield Table(_titled(title, len(named)), (what, "reads", "runs", "sent"), listed, f"{title}: none.")
    yield _counts_table("Refusals", "reason", made.refusals)
    yield _counts_table("Networks", "network", made.networks)
