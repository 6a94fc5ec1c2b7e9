"""Print the result of a verification, for people and for scripts.

It states for each chain what is proven and what is not yet, and for each fault where it is. It always names
the key: a log that carries its own key proves less than one checked with a key from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.folder import chain_started
from gateway.audit.promise import PROMISED_RECORDS, PROMISED_SECONDS
from gateway.audit.report import Ending
from gateway.audit.verify import GIVEN
from gateway.model.moments import when
from gateway.terminal.console import Note, Table
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.audit.report import ChainReport, VerifyReport

MANY_CHAINS = 40  # every command that changes something writes a chain; a screen holds this many

_STATES = {
    Ending.CLOSED: "closed",
    Ending.OPEN: "open",
    Ending.ABANDONED: "given up by its process",
    Ending.RECOVERED: "recovered",
    Ending.ENDED: "ended without a last head",
}


def plain_report(where: str, report: VerifyReport) -> dict[str, Any]:
    """The JSON form of one report."""
    totals = {
        "path": where,
        "intact": report.is_intact,
        "verdict": report.verdict.value,
        "records": report.records,
        "proven": report.records - report.unproven,
        "unproven": report.unproven,
    }
    chains = [
        {
            **msgspec.to_builtins(chain),
            "is_closed": chain.is_closed,
            "intact": chain.is_intact,
            "state": chain_state(chain),
        }
        for chain in report.chains
    ]
    return {**totals, **msgspec.to_builtins(report), "chains": chains}


def shown_report(where: str, report: VerifyReport) -> Iterator[Note | Table]:
    """The table of chains, then all problems, then the result."""
    shown, left_out = _worth_showing(report.chains)
    rows = [
        (escape_controls(one.chain), one.records, one.records - one.unproven, one.unproven, chain_state(one))
        for one in shown
    ]
    if left_out:
        records = sum(one.records for one in left_out)
        rows.append((f"and {len(left_out)} more chains", records, records, 0, "closed"))
    columns = ("chain", "records", "proven", "not proven", "state")
    yield Table(f"Audit log {escape_controls(where)}", columns, rows, "No chain.")
    for line in complaints(report):
        yield Note(line, "red")
    for line in _removed(report):
        yield Note(line)
    origin = GIVEN if report.key_source == GIVEN else f"from {escape_controls(report.key_source)}"
    yield Note(f"Checked with the public key {', '.join(report.signers)} ({origin}).")
    for foreign in report.foreign_signers:
        yield Note(f"signing.pub also holds the key {foreign}, by which no head counts here.", "yellow")
    for line in _unproven(report):
        yield Note(line, "yellow")
    total = f"{report.records} records in {_chains(len(report.chains))}"
    if not report.is_intact:
        yield Note("DAMAGED: this log is not what was written.", "bold red")
    elif report.unproven:
        proven = report.records - report.unproven
        yield Note(
            f"Intact, and not all proven: {total}, {proven} proven, {report.unproven} not.",
            "bold yellow",
        )
    else:
        yield Note(f"Intact: {total}, all proven.", "bold green")


def _removed(report: VerifyReport) -> Iterable[str]:
    """What retention removed, by its signed notes."""
    segments = sum(len(one.removed_segments) for one in report.chains)
    whole = len(report.removed_chains)
    if segments or whole:
        parts = [f"{segments} segments of chains that go on"] if segments else []
        parts += [_chains(whole)] if whole else []
        yield f"Removed by retention, with a signed note: {' and '.join(parts)}."


def _chains(count: int) -> str:
    return "1 chain" if count == 1 else f"{count} chains"


def _unproven(report: VerifyReport) -> Iterable[str]:
    """Why records are not proven, and whether they will be."""
    waiting = sum(one.unproven for one in report.chains if one.ending is Ending.OPEN and one.is_intact)
    ended = sum(one.unproven for one in report.chains if one.ending is not Ending.OPEN and one.is_intact)
    if waiting:
        yield (
            f"{waiting} records of chains that are being written stand behind the last signed head: not "
            f"proven before the next one, which comes within {PROMISED_SECONDS:.0f} s or {PROMISED_RECORDS} "
            "records."
        )
    if ended:
        yield (
            f"{ended} records stand behind the last signed head of a process that was killed: not proven, "
            "for good. Whoever could write to this folder may have put them there."
        )


def complaints(report: VerifyReport) -> Iterable[str]:
    """All problems, one line each."""
    for chain in report.chains:
        fault = chain.fault
        if fault is not None:
            place = f"{escape_controls(fault.file)}, line {fault.line} (record {fault.seq})"
            yield f"{place}: {fault.damage}: {escape_controls(fault.why)}"
        for segment in chain.missing_segments:
            since = escape_controls(chain.missing_since or "its start")
            name = escape_controls(segment)
            yield f"{name}: this segment is missing; what is missing was written after {since}"
    for missing in report.missing_chains:
        since = when(chain_started(missing)) or "a time unknown"
        yield f"{escape_controls(missing)}: this whole chain is missing, begun {since}; signed heads name it"
    for problem in report.problems:
        yield escape_controls(problem)


def chain_state(chain: ChainReport) -> str:
    """The state of a chain, in a few words."""
    if not chain.is_intact:
        return "DAMAGED"
    if chain.torn_tail is not None:
        return "ends in half a line"
    return _STATES[chain.ending]


def _worth_showing(chains: tuple[ChainReport, ...]) -> tuple[list[ChainReport], list[ChainReport]]:
    """Of many chains, those that are not closed, intact and proven; and the others."""
    noteworthy: list[ChainReport] = []
    others: list[ChainReport] = []
    is_many = len(chains) > MANY_CHAINS
    for one in chains:
        is_dull = is_many and chain_state(one) == "closed" and not one.unproven
        (others if is_dull else noteworthy).append(one)
    return noteworthy, others
