"""Records composed of an envelope and a tail are, byte for byte, the records of the schema."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.audit.envelope import enveloped
from gateway.audit.record import Links, OutcomeRecord, UpstreamPart, encode, parse_line, seal
from gateway.audit.record_body import RecordBodies
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason
from gateway.model.facts import KeyKind, Scope
from gateway.model.header_block import Headers
from gateway.model.stamps import Stamp
from gateway.model.verdicts import (
    Admission,
    Allowed,
    Ending,
    HeldFile,
    OpenFile,
    Outcome,
    Rejection,
    Upstream,
)

NODE, CHAIN, TIME = "node-1", "node-1.019a1f957ad1-0123abcd", "2026-11-20T14:23:33.000001Z"
LINKS = Links(CHAIN)
LINKS.seq, LINKS.hash = 41, "ab" * 32
texts = st.text(max_size=20) | st.sampled_from(['a"b', "a\\b", "é", "\x00", "a/b", "\u2028"])


def admission(*, is_held=True, trace_id=None, model="acme/cars/1", agent=b"curl/8"):
    principal = Principal(
        kind=KeyKind.TENANT, key_id="key_abcdefghijkl", key_name="", tenant="acme",
        scopes=frozenset({Scope.READ}), expires_at=None,
    )  # fmt: skip
    resource = Resource(kind=ResourceKind.FILE, model=model, package="p", file="f")
    stamp = Stamp(7, ())
    allowed = Allowed(
        access=Access(principal=principal, action=Action.READ, resource=resource),
        model=model, policies=("owner",), grant="owner", stamp=stamp,
    )  # fmt: skip
    place = {
        "size": 3, "identity": (1, 2, 3, 4, 5), "model": model, "package": "p", "handle": "f",
        "md5": "0" * 32, "sha256": "1" * 64,
    }  # fmt: skip
    found = (
        HeldFile(descriptor=-1, content=b"abc", headers=Headers.of(), **place)
        if is_held
        else OpenFile(descriptor=9, **place)
    )
    request = WireRequest(
        method="GET", raw_path=b"/", query=b"", headers=((b"user-agent", agent),), client="192.0.2.7",
        route="/v1/{file}", trace_id=trace_id, received_at=1.0,
    )  # fmt: skip
    return Admission(request=request, allowed=allowed, found=found, stamp=stamp, key_stamp=stamp)


def record_of(kind, tail):
    """The record that a line with this tail parses to, and the bytes that its hash covers."""
    covered = enveloped(kind, "id-1", LINKS, TIME, tail)
    return parse_line(seal(covered)[0]), covered


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("trace_id", [None, "0af7651916cd43dd8448eb211c80319c"])
def test_the_record_of_an_allow_is_the_one_that_the_schema_encodes(is_held, trace_id):
    record, covered = record_of(
        "decision", RecordBodies(NODE).of_allow(admission(is_held=is_held, trace_id=trace_id))
    )
    fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "hash"}
    assert encode(type(record)(**fields)) == covered
    assert (record.id, record.chain, record.seq, record.prev, record.time) == (
        "id-1",
        CHAIN,
        42,
        "ab" * 32,
        TIME,
    )
    assert (record.tenant, record.resource.file, record.request.trace_id) == ("acme", "f", trace_id)


@pytest.mark.parametrize(("is_link", "principal"), [(True, "link"), (False, "tenant")])
def test_a_record_says_whether_its_caller_had_the_key_or_a_link(is_link, principal):
    one = admission()
    caller = replace(one.allowed.access.principal, is_link=is_link)
    access = replace(one.allowed.access, principal=caller)
    allow = RecordBodies(NODE).of_allow(replace(one, allowed=replace(one.allowed, access=access)))
    refusal = RecordBodies(NODE).of_refusal(
        Rejection(request=one.request, reason=Reason.NOT_PERMITTED, principal=caller)
    )
    for tail in (allow, refusal):
        assert record_of("decision", tail)[0].principal == principal


def test_what_differs_is_recorded_differently():
    tails = RecordBodies(NODE)
    assert tails.of_allow(admission()) == tails.of_allow(admission())
    assert tails.of_allow(admission()) != tails.of_allow(admission(agent=b"wget"))
    assert tails.of_allow(admission(model="acme/b")) != tails.of_allow(admission(model="acme/c"))


@given(
    tenant=texts | st.none(),
    key_id=texts | st.none(),
    ending=st.sampled_from(Ending),
    status=st.integers(0, 599),
    sent=st.integers(0, 1 << 62),
    milliseconds=st.floats(0, 1e9),
    sha256=st.none() | st.just("ef" * 32),
    reason=st.none() | st.sampled_from(Reason),
    upstream=st.none()
    | st.builds(
        Upstream,
        server=texts,
        status=st.integers(0, 599),
        bytes_received=st.integers(0, 1 << 62),
        milliseconds=st.floats(0, 1e9),
    ),
)
def test_the_record_of_an_outcome_is_the_one_that_the_schema_encodes(
    tenant, key_id, ending, status, sent, milliseconds, sha256, reason, upstream
):
    outcome = Outcome(
        ending=ending, status=status, bytes_sent=sent, milliseconds=milliseconds, sha256=sha256,
        reason=reason, upstream=upstream,
    )  # fmt: skip
    part = None
    if upstream is not None:
        rounded = round(upstream.milliseconds, 3)
        part = UpstreamPart(upstream.server, upstream.status, upstream.bytes_received, rounded)
    expected = OutcomeRecord(
        schema=1, id="id-1", chain=CHAIN, seq=42, prev="ab" * 32, time=TIME, node=NODE,
        decision_id="id-0", tenant=tenant, key_id=key_id, ending=ending.value, status=status, bytes=sent,
        milliseconds=round(milliseconds, 3), sha256=sha256,
        reason=None if reason is None else reason.value, upstream=part,
    )  # fmt: skip
    tail = RecordBodies(NODE).of_outcome("id-0", tenant, key_id, outcome)
    assert enveloped("outcome", "id-1", LINKS, TIME, tail) == encode(expected)
