"""W3C trace context: reads a well-formed `traceparent`, and makes the one of every answer.

Only the trace id is taken over: `tracestate` and baggage are the client's text and are dropped (I3, I8).
"""

from __future__ import annotations

import random
import re

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ZERO_TRACE = b"0" * 32
_ZERO_SPAN = b"0" * 16


def find_trace_id(header: bytes | None) -> str | None:
    """The trace id of a well-formed `traceparent`, else None."""
    match = _TRACEPARENT.fullmatch(header) if header else None
    if match is None or match[1] == _ZERO_TRACE or match[2] == _ZERO_SPAN:
        return None
    return match[1].decode()


def traceparent(trace_id: str | None) -> bytes:
    """The header of our own span, in the caller's trace or in a new one. Every answer has one."""
    # The ids tell spans apart and protect nothing. `random` is seeded by the kernel, and anew after a fork.
    span = random.getrandbits(64)
    if trace_id is None:
        return b"00-%032x-%016x-01" % (random.getrandbits(128), span)
    return b"00-%b-%016x-01" % (trace_id.encode(), span)
