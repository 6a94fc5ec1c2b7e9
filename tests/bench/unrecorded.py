"""`cachegate serve` without an audit log, as the other side of `audit.py`: it measures what recording costs.

It runs as a program with the arguments of `cachegate`. Its workers are the product's own, but for the log: a
call returns a receipt and writes nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gateway.model.verdicts import Admission, ChangeReceipt, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def _forget(_outcome: Any) -> None:
    return


def worker_app(argument: Any) -> WorkerApp:
    """A worker that records nothing."""
    from gateway.assembly import app, components  # noqa: PLC0415 -- of the worker's process alone

    components.build_worker_log = lambda *_: NoLog()
    return app.worker_app(argument)


def main() -> None:
    from gateway.cli import main as cli  # noqa: PLC0415 -- of the supervisor's process alone
    from gateway.cli import serve  # noqa: PLC0415 -- as above

    plan = serve.ServePlan
    serve.ServePlan = lambda **of: plan(**{**of, "factory": "unrecorded:worker_app"})
    cli.main()


if __name__ == "__main__":
    sys.exit(main())
