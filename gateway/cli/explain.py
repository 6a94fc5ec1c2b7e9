"""`cachegate explain`: may this key have this resource, and why; or why a recorded request ended as it did.

The answer is computed anew by the same rules that requests are decided by, on the facts and the disk of this
moment. It names other tenants' rules, so it is for operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.audit.events import find_record
from gateway.audit.record import DecisionRecord
from gateway.cli.audit.sources import Sources, searched_note
from gateway.cli.distrust import Warnings
from gateway.cli.perform import in_session
from gateway.cli.remote import find_gateway
from gateway.model.access import ALLOWABLE
from gateway.model.errors import BadNameError, CachegateError, Conflict
from gateway.operations.explain.answer import AccessAnswer, AccessQuestion, parse_question, work_out
from gateway.operations.explain.record import find_outcome, plain_record, question_again, record_rows
from gateway.terminal.console import AsJson, Note, Table, show
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.audit.record import OutcomeRecord


def explain(
    key_id: Annotated[str | None, typer.Option(help="Whose access: a key's id, never the key.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, by its id or an alias.")] = None,
    package: Annotated[str | None, typer.Option(help="One package of it.")] = None,
    file: Annotated[str | None, typer.Option(help="One file of the package.")] = None,
    action: Annotated[
        str, typer.Option(help="discover, read or infer; or, without a model, one of workflows.")
    ] = "read",
    address: Annotated[
        str | None, typer.Option(help="The client's address, to judge the key's networks by.")
    ] = None,
    record: Annotated[
        str | None, typer.Option(help="The id of an audit record, instead of all these.")
    ] = None,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="With --record: audit folders or files to look in; the settings' folder if none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a key may have something, and why; or explain a record of the audit log.

    Exit status 1 when access is refused, when the thing is not there, or when there is no such record.
    """
    if record is not None:
        if any((key_id, model, package, file, address)):
            raise BadNameError("name a --record, or a --key-id and a --model, and not both")
        _explain_record(record, paths, as_json=as_json)
        return
    if paths:
        raise BadNameError("folders are looked in for a --record; a --key-id and a --model need none")
    if key_id is None or (model is None and action not in ALLOWABLE):
        raise BadNameError(
            "say what to explain: --key-id and --model, or --key-id and an --action of workflows, or --record"
        )
    question = parse_question(
        key_id=key_id, model=model, package=package, file=file, action=action, address=address
    )

    title = f"{question.action} of {_named(question)} by {question.key_id}"
    if (gateway := find_gateway()) is not None:
        told = gateway.ask("/explain", msgspec.to_builtins(question))
        shown = _table(title, told["rows"])
        show(told["explanation"], [shown], as_json=as_json, is_yes=told["served"])
        return
    answer = in_session(lambda session: work_out(session, question))
    show(answer.as_json(), [_table(title, answer.as_rows())], as_json=as_json, is_yes=answer.is_yes)


def _explain_record(record_id: str, paths: list[Path] | None, *, as_json: bool) -> None:
    sources = Sources.of(paths, Warnings())
    event = find_record(sources.paths, record_id, keys=sources.keys)
    if event is None:
        searched_note(sources).print()
        why = "retention may have taken it away, or another node wrote it: name its folder as well"
        raise Conflict(f"there is no record {record_id} in {sources.words}; {why}")
    outcome: OutcomeRecord | None = None
    now: AccessAnswer | None = None
    why_not = "it is no decision about a model, so there is nothing to ask again"
    if isinstance(event.record, DecisionRecord):
        outcome = find_outcome(event)
        now, why_not = _ask_again(event.record)
    document = {
        "record": plain_record(event),
        "outcome": outcome,
        "now": now.as_json() if now else None,
        "why_not_now": None if now else why_not,
    }
    shown: list[Note | Table] = [Table(f"Record {record_id}", ("", ""), record_rows(event, outcome))]
    shown.append(Note(f"Now: {why_not}.") if now is None else _table("The same asked now", now.as_rows()))
    show(document, shown, as_json=as_json, notes=[searched_note(sources)])


def _ask_again(record: DecisionRecord) -> tuple[AccessAnswer | None, str]:
    """What the answer would be now; or None, and why it cannot be determined."""
    try:
        question = question_again(record)
        return in_session(lambda session: work_out(session, question)), ""
    except CachegateError as failure:  # the record is shown all the same
        return None, f"that cannot be asked again: {failure}"


def _named(question: AccessQuestion) -> str:
    named = " ".join(one for one in (question.model, question.package, question.file) if one)
    return named or "workflows"


def _table(title: str, answer: Iterable[Sequence[str]]) -> Table:
    rows = [(escape_controls(name), escape_controls(text)) for name, text in answer]
    return Table(escape_controls(title), ("", ""), rows)
