"""Export the audit log: as it was written, or as OCSF events, to a file that is whole or not there.

The export of an installation's own log is recorded in it, when it starts and when it ends. A copy that an
auditor exports is not theirs to write to.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.assembly.components import build_recorder
from gateway.audit.exporting import ExportCount, recorded_export
from gateway.audit.ocsf import to_ocsf
from gateway.model.errors import Misconfigured
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.audit.events import Event
    from gateway.configuration.settings import Settings

_MODE = 0o600  # whoever may read the log decides who else may


class ExportFormat(StrEnum):
    """What a line of an export is."""

    JSONL = "jsonl"  # a record, byte for byte as it was written
    OCSF = "ocsf"  # an OCSF event


_encode_event = msgspec.json.Encoder().encode


def exported_line(event: Event, form: ExportFormat) -> bytes:
    """The line of a record, without newline."""
    if form is ExportFormat.JSONL:
        return event.line
    return _encode_event(to_ocsf(event.record, event.line))


def export_records(
    events: Iterable[Event], form: ExportFormat, write: Callable[[bytes], object], count: ExportCount
) -> None:
    """Write the lines of these records, and count them."""
    for event in events:
        write(exported_line(event, form) + b"\n")
        count.records += 1


def recorded(settings: Settings | None, target: str) -> AbstractContextManager[ExportCount]:
    """Record the export in the own log around a block; without settings it is a copy that is exported."""
    return nullcontext(ExportCount()) if settings is None else _recorded(settings, target)


@contextmanager
def _recorded(settings: Settings, target: str) -> Iterator[ExportCount]:
    verify_state(settings)
    recorder = build_recorder(settings, SystemClock())
    try:
        with recorded_export(recorder, target) as count:
            yield count
    finally:
        recorder.close()


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Write a file under another name beside it, and rename it once it is whole. Raises `Misconfigured`.

    What fails or is interrupted leaves the file that was there before, or none.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, _MODE), "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
