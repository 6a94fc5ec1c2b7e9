"""`cachegate audit`: verify the log, follow it, search it.

`verify` needs only files, so that an auditor can run it on a copy, on another machine. For the audit folder
of this installation it uses the installation's own signing key and not the key in the folder.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.adapters.clock import SystemClock
from gateway.assembly.audit_keeping import keeping_order
from gateway.assembly.signing import load_own_keys
from gateway.audit.events import Query, read_events
from gateway.audit.index.found_events import find_events
from gateway.audit.timeline import parse_record_id
from gateway.audit.verify import verify as verify_log
from gateway.cli.audit.report import plain_report, shown_report
from gateway.cli.audit.searched_names import SearchedNames, verify_names
from gateway.cli.audit.sources import Sources, find_settings, load_trusted, searched_note, verify_there
from gateway.cli.distrust import Warnings
from gateway.cli.periods import parse_past
from gateway.model.errors import BadNameError, Reason, Unavailable
from gateway.model.tenant_records import parse_tenant_record_id
from gateway.operations.audit_indexing import extend
from gateway.operations.audit_keeping import keep as keep_log
from gateway.terminal.console import AsJson, Note, forget_output, say, show, standard_output
from gateway.terminal.escaping import escape_controls, escape_controls_in_json
from gateway.terminal.progress import verifying
from gateway.terminal.record_lines import record_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.events import Event
    from gateway.audit.report import VerifyReport
    from gateway.configuration.settings import Settings

UNPROVEN = b',"proven":false}'
"""The end of the line of a record that no signed head covers; a covered record's line is printed as written.
"""

commands = typer.Typer(
    help="The audit log: verify, tail, search, follow, prove, keep, consumers.", no_args_is_help=True
)

RawJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help='Print the records as they are, one a line; one that is not proven ends in "proven":false.',
    ),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        help="The public key that you trust (PEM). Without it, that of this installation for its own "
        "folder, and the copy's own signing.pub for any other."
    ),
]


@commands.command("verify")
def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Audit folders or files; the settings' folder if none."),
    ] = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Prove that the log is what was written. Exit status 1 when it is not, 2 when there is no log."""
    warn = Warnings()
    settings = find_settings(warn, is_needed=not paths)
    given = load_trusted(public_key, warn)
    paths = paths or ([settings.audit_folder] if settings else [])
    reports: list[tuple[str, VerifyReport]] = []
    with verifying(paths):
        for source in _sources(paths):
            if not given and settings is not None and _is_own(source, settings):
                warn.look_at(settings.audit_folder)
                own, key_source = _own_keys(settings, warn), str(settings.signing_key_file)
                report = verify_log(source, trusted_keys=own, key_source=key_source)
            else:
                report = verify_log(source, trusted_keys=given)
            reports.append((_where(source), report))
    is_intact = all(report.is_intact for _, report in reports)
    document = {"intact": is_intact, "checked": [plain_report(*one) for one in reports]}
    shown = (item for one in reports for item in shown_report(*one))
    show(document, shown, as_json=as_json, is_yes=is_intact)


@commands.command("keep")
def keep(as_json: AsJson = False) -> None:
    """Pack closed segments and remove old ones now, as the settings say and a server does by itself."""
    warn = Warnings()
    settings = find_settings(warn, is_needed=True)
    kept = None if settings is None else keep_log(keeping_order(settings), SystemClock())
    if kept is None:
        raise Unavailable("audit", "another process is keeping the log; try again in a moment")
    lines = [
        f"{kept.packed} segments packed ({kept.saved_bytes} bytes saved), {kept.removed} removed.",
        f"The log has {kept.bytes} bytes; its oldest record is of {kept.oldest or 'no time'}.",
    ]
    shown = [Note(line) for line in lines]
    if kept.waiting:
        names = escape_controls(", ".join(kept.waits_for))
        shown.append(Note(f"{kept.waiting} segments are due and stay: {names} still needs them.", "yellow"))
    if kept.overrun:
        names = escape_controls(", ".join(kept.overrun))
        shown.append(Note(f"Removed although {names} still needed them.", "red"))
    shown += [Note(escape_controls(problem), "red") for problem in kept.problems]
    show(msgspec.to_builtins(kept), shown, as_json=as_json, is_yes=not kept.problems)


@commands.command("tail")
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the latest records.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now.")
    ] = False,
    as_json: RawJson = False,
) -> None:
    """Show the latest records, oldest first."""
    latest: deque[Event] = deque(maxlen=lines)
    has_caught_up = False

    def pause(seconds: float) -> None:
        # Called when everything in the log has been read. Showing the latest records here, and not before
        # following starts, leaves no gap between the two into which a record could fall.
        nonlocal has_caught_up
        if not has_caught_up:
            has_caught_up = True
            for event in latest:
                _show(event, as_json=as_json)
        time.sleep(seconds)

    sources = Sources.of(None, Warnings())
    with _ending_quietly():
        for event in read_events(sources.paths, keys=sources.keys, sleep=pause if follow else None):
            if has_caught_up:
                _show(event, as_json=as_json)
            else:
                latest.append(event)
        for event in latest:
            _show(event, as_json=as_json)


@commands.command("search")
def search(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Audit folders or files; the settings' folder if none."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose access.")] = None,
    tenant_record: Annotated[
        str | None, typer.Option(help="Of which tenant of that name: the id of its record.")
    ] = None,
    key_id: Annotated[str | None, typer.Option(help="By which key.")] = None,
    token_id: Annotated[str | None, typer.Option(help="By which access token: its jti.")] = None,
    model: Annotated[str | None, typer.Option(help="Of which model, as asked for or canonical.")] = None,
    decision: Annotated[str | None, typer.Option(help="allow or deny.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, such as not-permitted.")] = None,
    record: Annotated[str | None, typer.Option(help="This record and its outcome.")] = None,
    since: Annotated[str | None, typer.Option(help="From: 2h (ago), or 2030-01-31T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Before: the same forms.")] = None,
    no_index: Annotated[
        bool, typer.Option("--no-index", help="Read all segments; paths that are given always are.")
    ] = False,
    public_key: PublicKey = None,
    as_json: RawJson = False,
) -> None:
    """Show the records that match all that is given, oldest first. Exit status 0 also when none does.

    The folder of this installation is searched by its index, which is brought up to date first.

    A tenant or key that neither a record nor the directory knows is an error. On a copy, or where the
    directory does not answer, the nearest name of the records is shown.
    """
    now = SystemClock().now()
    query = Query(
        tenant=tenant,
        tenant_record=None if tenant_record is None else parse_tenant_record_id(tenant_record),
        key_id=key_id,
        token_id=token_id,
        model=model,
        decision=_one_of(decision, ("allow", "deny"), "decision"),
        reason=_one_of(reason, tuple(Reason), "reason"),
        record_id=_record_id(record),
        since=parse_past(since, now),
        until=parse_past(until, now),
    )
    warn = Warnings()
    sources = Sources.of(paths, warn, load_trusted(public_key, warn))
    found = 0
    names = SearchedNames(query)
    with _ending_quietly():
        for event in _found(sources, names, is_indexed=not paths and not no_index):
            _show(event, as_json=as_json)
            found += 1
    if not found:
        say("No record matches.", style="yellow")
    searched_note(sources).print()
    if not found:
        verify_names(names, None if paths else sources.settings)


def _found(sources: Sources, names: SearchedNames, *, is_indexed: bool) -> Iterator[Event]:
    """The events that match: by the index of this installation's folder, or by reading all."""
    settings = sources.settings
    if not is_indexed or settings is None or not settings.audit_folder.is_dir():
        yield from read_events(sources.paths, names, keys=sources.keys)
        return
    folder, has_found = settings.audit_folder, False
    try:
        extend(folder, settings.node)
    except OSError as error:
        say(f"The index cannot be brought up to date ({escape_controls(error)}).", style="yellow")
    try:
        for event in find_events(folder, names.query, keys=sources.keys):
            has_found = True
            yield event
        if not has_found:
            names.collect(folder)
    except OSError as error:
        why = f"{folder} cannot be read ({error.strerror}); read as its owner"
        raise Unavailable("audit", why, Reason.NO_AUDIT) from error


def _show(event: Event, *, as_json: bool) -> None:
    with standard_output():
        if not as_json:
            typer.echo(record_line(event.record, is_proven=event.is_proven is not False))
            return
        # Byte for byte, so that its hash can be computed from it; the mark is appended.
        line = event.line[:-1] + UNPROVEN if event.is_proven is False else event.line
        typer.echo(escape_controls_in_json(line.decode()) if sys.stdout.isatty() else line)


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Exit with status 0 on Ctrl-C and on a closed pipe: such commands end in this way."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:
        forget_output()
        raise typer.Exit(0) from None


def _sources(paths: Sequence[Path]) -> list[Path | list[Path]]:
    """What is verified together: each folder by itself, and all single files as one copy."""
    verify_there(paths)
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if not path.is_dir()]
    return [*folders, files] if files else [*folders]


def _where(source: Path | list[Path]) -> str:
    return str(source) if isinstance(source, Path) else ", ".join(map(str, source))


def _is_own(source: Path | list[Path], settings: Settings) -> bool:
    """Whether it is the audit folder of this installation, or files of it."""
    own = settings.audit_folder.resolve()
    if isinstance(source, Path):
        return source.resolve() == own
    return all(path.resolve().parent == own for path in source)


def _own_keys(settings: Settings, warn: Warnings) -> list[Ed25519PublicKey]:
    """The public half of the signing key, and of those that it replaced.

    `signing.pub` is not used: it may have been changed in the folder.
    """
    return load_own_keys(settings.signing_key_file, on_distrust=warn)


def _record_id(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_record_id(text)
        except ValueError as error:
            raise BadNameError(str(error)) from error
    return text


def _one_of(text: str | None, known: Sequence[str], what: str) -> str | None:
    if text is not None and text not in known:
        raise BadNameError(f"{text!r} is not a {what}: expected one of {', '.join(known)}")
    return text
