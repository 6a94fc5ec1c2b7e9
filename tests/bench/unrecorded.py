"""The other sides of `audit.py`: a log whose writer drops what it is given, and no log at all.

As a program it is `cachegate serve`, with its arguments. Its workers are the product's own, but for the
writer of their log.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gateway.model.verdicts import Admission, ChangeReceipt, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.audit import AuditLog
    from gateway.server.worker import WorkerApp

RECORD_ID = "0199b2a4-0000-7000-8000-000000000000"


class NoLog:
    """Has the methods of the log, and records nothing."""

    def admit(self, admission: Admission) -> Receipt:
        return Receipt(record_id=RECORD_ID, admission=admission, on_close=_forget)

    def record_all(self, decisions: Sequence[Any]) -> list[Receipt | str]:
        return [self.admit(one) if isinstance(one, Admission) else RECORD_ID for one in decisions]

    def reject(self, _rejection: Any) -> str:
        return RECORD_ID

    def change(self, _change: Any) -> ChangeReceipt:
        return ChangeReceipt(record_id=RECORD_ID, on_close=lambda _generation, _result: None)

    def note_gap(self, _gap: Any) -> None:
        return

    def tick(self, _now: float) -> None:
        return

    def flush(self) -> None:
        return

    def is_healthy(self) -> bool:
        return True

    def close(self) -> None:
        return


class NoWriter:
    """In place of the writer of a log: records are made and encoded, and nothing is chained or written."""

    def __init__(self, envelopes: Any) -> None:
        self.envelopes = envelopes
        self.chain = self
        self.waiting = 0  # records for a later write

    def leave(self, _records: Any) -> None:
        return

    def ready(self, _now: float) -> None:
        return

    def append_all(self, _records: Any, _now: float) -> None:
        return

    def flush(self, _now: float) -> None:
        return

    def tick(self, _now: float) -> None:
        return

    def check(self, _now: float) -> None:
        return

    def unproven_seconds(self, _now: float) -> float:
        return 0.0

    def note_unrecorded(self, *_counts: Any) -> None:
        return

    def close(self, _now: float) -> None:
        return


def without_writer(log: AuditLog) -> AuditLog:
    """The log, with another writer in the place of its own."""
    log._writer = NoWriter(log._writer.envelopes)  # type: ignore[assignment]
    return log


def _forget(_outcome: Any) -> None:
    return


def worker_app(argument: Any) -> WorkerApp:
    """A worker whose log writes nothing."""
    from gateway.admin import worker  # noqa: PLC0415 -- of the worker's process alone
    from gateway.assembly import components  # noqa: PLC0415 -- as above

    build = components.build_recorder
    components.build_worker_log = lambda *how: without_writer(build(*how))
    return worker.worker_app(argument)


def main() -> None:
    from gateway.cli import main as cli  # noqa: PLC0415 -- of the supervisor's process alone
    from gateway.cli import serve  # noqa: PLC0415 -- as above

    plan = serve.ServePlan
    serve.ServePlan = lambda **of: plan(**{**of, "factory": "unrecorded:worker_app"})
    cli.main()


if __name__ == "__main__":
    sys.exit(main())
