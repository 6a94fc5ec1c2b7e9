"""Trace context: the caller's trace id when it is well-formed, a new one otherwise, always a new span."""

from __future__ import annotations

import pytest

from gateway.middleware.trace import find_trace_id, traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_well_formed_header_gives_its_trace_id():
    assert find_trace_id(f"00-{TRACE}-00f067aa0ba902b7-01".encode()) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        f"00-{TRACE}-0000000000000000-01".encode(),
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE}-00f067aa0ba902b7-01\n".encode(),
        b"cg_live_" + b"a" * 30,
    ],
)
def test_anything_else_gives_none_so_that_no_text_of_the_client_comes_back(header):
    assert find_trace_id(header) is None


def test_every_answer_has_its_own_span_in_the_callers_trace():
    one, other = traceparent(TRACE), traceparent(TRACE)
    assert find_trace_id(one) == find_trace_id(other) == TRACE
    assert one != other


def test_an_answer_outside_of_any_trace_looks_the_same():
    assert find_trace_id(traceparent(None)) is not None
    assert len(traceparent(None)) == len(traceparent(TRACE))
