"""Print what the demo shows: the tour, its audit records, and commands to try by hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gateway.demo.tour import shown_path
from gateway.terminal.console import Table, say
from gateway.terminal.escaping import escape_controls
from gateway.terminal.record_lines import thing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.demo.ledger import LoggedAnswer
    from gateway.demo.tour import Visit
    from gateway.demo.world import DemoWorld


def print_visits(visits: Sequence[Visit]) -> None:
    """The tour: who asked for what, what was expected, what came back."""
    rows = [
        (
            visit.step.who,
            f"{visit.step.method} {shown_path(visit.step)}",
            visit.step.expected,
            visit.answer.status,
            "WRONG: " + visit.step.shows if visit.complaints else visit.step.shows,
        )
        for visit in visits
    ]
    Table("The tour", ("who", "request", "expected", "got", "what it shows"), rows).print()


def print_ledger(visits: Sequence[Visit], ledger: Mapping[str, LoggedAnswer]) -> None:
    """The records of the tour, in its order."""
    Table(
        "What the audit log says",
        ("time", "decision", "tenant", "key", "what", "reason", "bytes"),
        [_ledger_row(ledger[visit.record_id]) for visit in visits if visit.record_id in ledger],
        "The audit log has none of it.",
    ).print()


def print_verdict(complaints: Sequence[str]) -> None:
    """Whether everything was as expected, and what was not."""
    for complaint in complaints:
        say(f"not as expected: {complaint}", style="bold red")
    if not complaints:
        say("Every answer was as expected, and the audit log agrees and verifies.", style="bold green")


def print_curl(world: DemoWorld, host: str, port: int) -> None:
    """Commands to try, with keys that work for as long as the demo runs."""
    address = f"http://{host}:{port}"
    acme, globex = world.keys["acme"].token, world.keys["globex"].token
    lines = (
        f"curl -H 'Authorization: Bearer {acme}' {address}/v1/models",
        f"curl -H 'Authorization: Bearer {acme}' {address}/v1/models/acme/cars/1/-/pkgA1",
        f"curl -H 'Authorization: Bearer {acme}' {address}/v1/models/acme/cars/1/-/pkgA1/class_names.txt",
        f"curl -i -H 'Authorization: Bearer {acme}' {address}/v1/models/globex/cars/1/-/pkgB1/weights.onnx",
        f"curl -o weights.onnx -H 'X-API-Key: {globex}' {address}/v1/blobs/{world.shared_md5}",
    )
    say(f"It serves on {address} now; the keys are the demo's own and end with it. Try:", style="bold")
    sys.stdout.write("".join(f"  {line}\n" for line in lines))
    sys.stdout.flush()
    say("Ctrl-C ends it and takes everything away.")


def _ledger_row(entry: LoggedAnswer) -> tuple[object, ...]:
    record, outcome = entry.decision, entry.outcome
    return (
        record.time,
        escape_controls(record.decision),
        record.tenant,
        escape_controls(record.key_id or record.claimed_key_id or "-"),
        escape_controls(thing(record.resource) or record.request.route),
        escape_controls(record.reason),
        outcome.bytes if outcome is not None else None,
    )
