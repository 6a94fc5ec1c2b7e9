"""`cachegate audit export`: the log, or what of it is asked for, for other programs."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.adapters.clock import SystemClock
from gateway.audit.events import Query, read_events
from gateway.cli.audit.asked import Since, Tenant, TenantRecord, Until, WherePaths, is_own, on_closed_pipe
from gateway.cli.audit.sources import Sources
from gateway.cli.distrust import Warnings
from gateway.cli.periods import parse_past
from gateway.model.tenant_records import parse_tenant_record_id
from gateway.operations.audit_export import ExportFormat, export_records, recorded, whole_file
from gateway.terminal.console import Note, standard_output
from gateway.terminal.escaping import escape_controls
from gateway.terminal.progress import watching

if TYPE_CHECKING:
    from collections.abc import Callable


def export(
    paths: WherePaths = None,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="jsonl: records as they were written; ocsf: an OCSF event each."),
    ] = ExportFormat.JSONL,
    tenant: Tenant = None,
    tenant_record: TenantRecord = None,
    key_id: Annotated[str | None, typer.Option(help="By which key.")] = None,
    model: Annotated[str | None, typer.Option(help="Of which model, as asked for or canonical.")] = None,
    since: Since = None,
    until: Until = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write, whole or not at all; standard output if none.")
    ] = None,
) -> None:
    """Write records as JSON lines, oldest first, for other programs. An export of the own log is recorded."""
    now = SystemClock().now()
    until_time = parse_past(until, now)
    query = Query(
        tenant=tenant,
        tenant_record=None if tenant_record is None else parse_tenant_record_id(tenant_record),
        key_id=key_id,
        model=model,
        since=parse_past(since, now),
        until=now if until_time is None else until_time,  # so that the record of the export is not in it
    )
    sources = Sources.of(paths, Warnings())
    own = sources.settings if is_own(sources) else None
    target = f"{form.value} {'standard output' if output is None else f'file {output.name}'}"
    with on_closed_pipe(), ExitStack() as stack:
        count = stack.enter_context(recorded(own, target))
        write: Callable[[bytes], object]
        if output is None:
            stack.enter_context(standard_output())
            write = sys.stdout.buffer.write
        else:
            write = stack.enter_context(whole_file(output))
        stack.enter_context(watching("exporting", sources.paths))
        export_records(read_events(sources.paths, query), form, write, count)
        if output is None:
            sys.stdout.buffer.flush()
    where = "" if output is None else f" in {escape_controls(str(output))}"
    Note(f"{count.records} records exported{where}.").print()
