"""`cachegate audit consumers`: who gets the log of this node, how far each is, and what hinders it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.clock import SystemClock
from gateway.audit.consumers.push import MOST_SECRET_BYTES
from gateway.audit.consumers.syslog import FACILITY, MOST_MESSAGE_BYTES
from gateway.cli.audit.sources import find_settings
from gateway.cli.distrust import Warnings
from gateway.model.errors import Misconfigured
from gateway.operations.consumer_registrations import ConsumerRegistrations
from gateway.terminal.console import AsJson, Note, Table, show
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from gateway.audit.consumers.registry import Consumer, Registration

commands = typer.Typer(
    help="Who gets the log of this node: list, add, remove.",
    no_args_is_help=True,
)

FromStart = Annotated[
    bool, typer.Option("--from-start", help="Deliver the log from its oldest record; else from now on.")
]
CaFile = Annotated[
    Path | None, typer.Option(help="Certificates (PEM) that its own is verified by; the system's if none.")
]
_EXAMPLES = """

    openssl rand -hex 32 | cachegate audit consumers add siem --url https://siem.example/in --secret-file -

    cachegate audit consumers add logs --address logs.example:6514 --ca-file ca.pem
"""


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the consumers. Exit status 1 when one does not get its records."""
    found, damaged = _registrations().load_all()
    rows = [
        (
            one.registration.name,
            one.registration.kind,
            escape_controls(_where(one.registration)),
            one.progress.state,
            one.progress.delivered,
            one.progress.lag_records,
            f"{one.progress.lag_seconds:.1f} s",
            one.progress.refused,
            one.progress.updated_at or "never",
        )
        for one in found
    ]
    columns = ("name", "kind", "where", "state", "delivered", "waiting", "lag", "refused", "as of")
    hindered = [one for one in found if one.progress.state in {"failing", "paused"}]
    notes = [
        Note(escape_controls(f"{one.registration.name}: {one.progress.error or 'not said why'}"), "red")
        for one in hindered
    ]
    notes += [
        Note(f"{name}: its registration does not parse; remove it, and add it again", "red")
        for name in damaged
    ]
    document = {"consumers": [_document(one) for one in found], "damaged": damaged}
    shown = [Table("Consumers of the log", columns, rows, "There is no consumer.")]
    show(document, shown, as_json=as_json, notes=notes, is_yes=not (notes or damaged))


@commands.command("add", epilog=_EXAMPLES)
def add(
    name: Annotated[str, typer.Argument(help="Small letters, digits and `-`.")],
    url: Annotated[str | None, typer.Option(help="Push signed batches to this URL (https).")] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="With --url: the file with the secret that signs; `-`: standard input."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="With --url: http without TLS is meant.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Send syslog over TLS (RFC 5425) to this HOST:PORT.")
    ] = None,
    certificate_file: Annotated[
        Path | None,
        typer.Option(help="With --address: our certificate (PEM), where the receiver asks for one."),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    facility: Annotated[int, typer.Option(help="With --address: the facility.")] = FACILITY,
    max_bytes: Annotated[int, typer.Option(help="With --address: the largest message.")] = MOST_MESSAGE_BYTES,
    ca_file: CaFile = None,
    from_start: FromStart = False,
    as_json: AsJson = False,
) -> None:
    """Add a consumer: a URL to push to, or a receiver of syslog. A server that runs begins within seconds."""
    if (url is None) == (address is None):
        raise Misconfigured("audit consumers add", "takes either --url or --address")
    registrations = _registrations()
    if url is not None:
        is_input = secret_file is not None and str(secret_file) == "-"
        added = registrations.add_push(
            name,
            url,
            secret_file=None if is_input else secret_file,
            secret=_read_secret() if is_input else None,
            ca_file=ca_file,
            is_plain=plain,
            is_from_start=from_start,
        )
    else:
        added = registrations.add_syslog(
            name,
            address or "",
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            facility=facility,
            max_bytes=max_bytes,
            is_from_start=from_start,
        )
    said = f"{added.name} gets what is recorded from {'the start' if from_start else 'now'} on."
    document = {"name": added.name, "kind": added.kind, "options": added.options}
    show(document, [Note(said, "green")], as_json=as_json)


@commands.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Its name.")],
    as_json: AsJson = False,
) -> None:
    """Remove a consumer: it gets nothing more, and retention does not wait for it."""
    _registrations().remove(name)
    shown = [Note(f"{name} is removed. Its dead letters, if there are any, stay.", "green")]
    show({"name": name, "removed": True}, shown, as_json=as_json)


def _registrations() -> ConsumerRegistrations:
    warn = Warnings()
    settings = find_settings(warn, is_needed=True)
    if settings is None:
        raise Misconfigured("audit consumers", "needs the settings of the installation")
    warn.look_at(settings.audit_folder)
    return ConsumerRegistrations(settings, SystemClock())


def _read_secret() -> bytes:
    return sys.stdin.buffer.read(2 * MOST_SECRET_BYTES + 2)


def _where(registration: Registration) -> str:
    options = registration.options
    return options.get("url") or (f"{options['host']}:{options['port']}" if "host" in options else "")


def _document(consumer: Consumer) -> dict[str, Any]:
    registration, progress = consumer.registration, consumer.progress
    return {
        "name": registration.name,
        "kind": registration.kind,
        "options": registration.options,
        "added_at": registration.added_at,
        "state": progress.state,
        "error": progress.error,
        "cursor": consumer.cursor,
        "delivered": progress.delivered,
        "refused": progress.refused,
        "missed": progress.missed,
        "failures": progress.failures,
        "lag_records": progress.lag_records,
        "lag_seconds": round(progress.lag_seconds, 3),
        "last_time": progress.last_time,
        "updated_at": progress.updated_at,
    }
