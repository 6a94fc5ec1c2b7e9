"""Checks every record of an audit folder against the published schema.

The schema has a definition for each kind; a record is checked against that of its own, so that a finding
says what is wrong with it and not only that no kind fits.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jsonschema import Draft202012Validator

MOST_CHECKED = 20_000  # of one folder: tests that write more write them all alike


def findings_in(folder: Path) -> Iterator[str]:
    """What is wrong with which line. Lines that somebody changed, or did not finish, are `verify`'s."""
    from gateway.audit.record import find_digest  # noqa: PLC0415 -- most tests need none of it

    checked = 0
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            if find_digest(line + b"\n") is None:
                continue  # not as it was written
            record = json.loads(line)
            record = record.get("head", record) if path.name == "heads.jsonl" else record
            if not isinstance(record, dict) or "kind" not in record:
                continue
            checked += 1
            if checked > MOST_CHECKED:
                return
            why = finding_of(record)
            if why is not None:
                yield f"{path.name}:{number}: {why}"


def finding_of(record: dict) -> str | None:
    """What is wrong with a record; None if nothing."""
    validator = _validators().get(record["kind"])
    if validator is None:
        return f"no such kind: {record['kind']}"
    error = next(validator.iter_errors(record), None)
    return None if error is None else f"{error.json_path}: {error.message}"


@cache
def _validators() -> dict[str, Draft202012Validator]:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 -- most tests need neither

    from gateway.audit.schema import kinds, record_schema  # noqa: PLC0415

    return {kind: Draft202012Validator(record_schema(kind)) for kind in kinds()}
