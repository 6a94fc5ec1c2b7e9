"""What operators see of a worker: logs and counters. Not the audit log, and never a secret (I8).

Counters are plain integers of one process; the ops listener asks every worker for its own and adds
them up, so counting takes no lock and no shared memory on the way of a request.
"""

from __future__ import annotations

import io
import logging
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from gateway.model.errors import Reason, Unavailable

METRICS = {
    "cachegate_decisions_total": ("route", "reason"),
    "cachegate_responses_total": ("status",),
    "cachegate_sent_bytes_total": (),
    "cachegate_unreadable_facts_total": (),
    "cachegate_dependency_failures_total": ("dependency",),
    "cachegate_defects_total": (),
    "cachegate_refused_by_server_total": ("reason",),
}
"""Every metric with its labels. A label's value is ours, never a client's text."""

HELP = {
    "cachegate_decisions_total": "Decisions by route template and reason; `permitted` is an allow.",
    "cachegate_responses_total": "Responses by status; 0 is a connection that ended before one.",
    "cachegate_sent_bytes_total": "Bytes of response bodies handed to the server.",
    "cachegate_unreadable_facts_total": "Records in Redis that did not parse, each time one denied.",
    "cachegate_dependency_failures_total": "Requests that were not decided because a dependency failed.",
    "cachegate_defects_total": "Requests that ended in a defect of the gateway.",
    "cachegate_refused_by_server_total": "Requests that were refused before they were whole.",
}

_LEVELS = {"critical": 50, "error": 40, "warning": 30, "info": 20, "debug": 10}


class Telemetry:
    """One worker's counters and its logger."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._log = structlog.get_logger("cachegate")

    def decided(self, route: str, reason: Reason) -> None:
        """Count one decision."""
        self.counters[f'cachegate_decisions_total{{route="{route}",reason="{reason.value}"}}'] += 1

    def answered(self, status: int, sent: int) -> None:
        """Count one response."""
        self.counters[f'cachegate_responses_total{{status="{status}"}}'] += 1
        self.counters["cachegate_sent_bytes_total"] += sent

    def failed(self, failure: Unavailable) -> None:
        """Something the guard stands on did not answer."""
        self.counters[f'cachegate_dependency_failures_total{{dependency="{failure.dependency}"}}'] += 1
        reason = failure.reason.value
        self._log.error("not decided", dependency=failure.dependency, why=failure.why, reason=reason)

    def defect(self, route: str, defect: Exception) -> None:
        """A defect of ours: the log has the stack, the client a record id."""
        self.counters["cachegate_defects_total"] += 1
        self._log.error("defect", route=route, exc_info=defect)

    def unreadable(self, name: str) -> None:
        """A record in Redis does not parse. It denied; an operator has to look."""
        self.counters["cachegate_unreadable_facts_total"] += 1
        self._log.error(
            "a record in Redis does not parse and denies", record=name, help="cachegate doctor lists them"
        )

    def refused_by_server(self, reason: Reason) -> None:
        """The HTTP server refused a request before it was whole."""
        self.counters[f'cachegate_refused_by_server_total{{reason="{reason.value}"}}'] += 1


class _LossyStandardError(io.TextIOBase):
    """Standard error as it is for logs: a full disk or a closed pipe costs a line, never an answer."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """The same."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def configure_logs(*, is_terminal: bool, level: str = "info") -> None:
    """Lines for people on a terminal, JSON for machines elsewhere; on standard error, always."""
    # Tracebacks are plain on purpose: the pretty ones print local variables, and a key is one (I8).
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _LossyStandardError())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
