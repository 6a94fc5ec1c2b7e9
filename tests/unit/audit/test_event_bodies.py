"""Bodies of changes, summaries, gaps, retention and events give, byte for byte, the records of the schema."""

from __future__ import annotations

import pytest

from gateway.audit.canonical import canonical_form, parse_document
from gateway.audit.chain import Chain
from gateway.audit.event_bodies import EventBodies, RetentionEvent
from gateway.audit.gap import Gap, OpenGap
from gateway.audit.record import (
    SCHEMA_VERSION,
    ChainPosition,
    ChangeOutcomeRecord,
    ChangeRecord,
    GapRecord,
    ModeRecord,
    RefusedChangeRecord,
    RetentionRecord,
    SummaryRecord,
    encode,
    parse_line,
    split_hash,
)
from gateway.audit.refusal_limiter import AnonymousCaller, Summary
from gateway.audit.timeline import time_text
from gateway.model.verdicts import Change

NODE, TIME = "node-1", "2026-11-20T14:23:33.000001Z"
LINKS = ChainPosition("node-1.019a1f957ad1-0123abcd")
BODIES = EventBodies(NODE)
ENVELOPE = {
    "schema": SCHEMA_VERSION, "id": "r", "chain": LINKS.chain, "seq": 1, "prev": LINKS.hash, "time": TIME,
    "node": NODE,
}  # fmt: skip
CHANGES = [
    Change(actor="cli:é", action="keys.create", received_at=1.0),
    Change(
        actor="a",
        action="b",
        tenant="acme",
        tenant_record="ten_a",
        key_id="key_abcdefghijkl",
        subject=("x", 'y"'),
        received_at=1.0,
    ),
]


def same(kind, body, record):
    chain = Chain()
    chain.start(LINKS.chain)
    line = chain.seal_all([("r", body)], TIME)
    covered = split_hash(line[:-1])[0]
    assert covered == encode(record) == canonical_form(parse_document(covered))
    assert type(parse_line(line)) is type(record)
    assert type(record).__struct_config__.tag == kind


@pytest.mark.parametrize("change", CHANGES)
def test_changes(change):
    same(
        "change",
        BODIES.of_change(change),
        ChangeRecord(
            **ENVELOPE,
            actor=change.actor,
            action=change.action,
            tenant=change.tenant,
            tenant_record=change.tenant_record,
            key_id=change.key_id,
            subject=change.subject,
        ),
    )


@pytest.mark.parametrize("digests", [None, ("a" * 64, "b" * 64)])
@pytest.mark.parametrize("generation", [None, 7])
@pytest.mark.parametrize("change", CHANGES)
def test_their_outcomes(change, generation, digests):
    same(
        "change-outcome",
        BODIES.of_change_outcome("c", change, generation, "done " + "x" * 300, digests),
        ChangeOutcomeRecord(
            **ENVELOPE,
            change_id="c",
            tenant=change.tenant,
            tenant_record=change.tenant_record,
            key_id=change.key_id,
            generation=generation,
            result=("done " + "x" * 300)[:200],
            before=digests and digests[0],
            after=digests and digests[1],
        ),
    )


@pytest.mark.parametrize(
    "caller", [AnonymousCaller("192.0.2.1"), AnonymousCaller("a", "key_a", "acme", "ten_a")]
)
def test_summaries(caller):
    same(
        "summary",
        BODIES.of_summary(
            Summary(
                record_id="r", caller=caller, second=1_790_000_000, reasons={"no-key": 3, "unknown-key": 1}
            )
        ),
        SummaryRecord(
            **ENVELOPE,
            source=caller.source,
            tenant=caller.claimed_tenant,
            tenant_record=caller.claimed_tenant_record,
            claimed_key_id=caller.claimed_key_id,
            second=time_text(1_790_000_000),
            count=4,
            reasons={"no-key": 3, "unknown-key": 1},
        ),
    )


@pytest.mark.parametrize("refused", [0, 12])
def test_gaps(refused):
    same(
        "gap",
        BODIES.of_gap(Gap(since=1.5, until=2.5, refused=refused, why="no space left")),
        GapRecord(
            **ENVELOPE, since=time_text(1.5), until=time_text(2.5), refused=refused, why="no space left"
        ),
    )


def test_retention():
    values = {"state": "removing", "why": "older than 5 days", "segments": 2, "bytes": 9}
    for more in ({}, {"until": TIME, "consumers": ("siem",), "note": "ab" * 32}):
        same(
            "retention",
            BODIES.of_retention(RetentionEvent(**values, **more)),
            RetentionRecord(**ENVELOPE, **values, **more),
        )


def test_events_without_the_secrets_in_their_text():
    mode = {"worker": "w", "mode": "no-lease", "generation": 7}
    same("mode", BODIES.of_event(ModeRecord, mode), ModeRecord(**ENVELOPE, **mode))
    key = "cg_live_0123456789abcdefghijABCD012345"
    refused = {"actor": "a", "action": "b", "reason": "c", "subject": ("x", f"api_key={key}")}
    assert key[8:].encode() not in b"".join(BODIES.of_event(RefusedChangeRecord, refused))


def test_a_gap_has_its_first_cause_and_all_calls_and_never_ends_before_it_began():
    gap = OpenGap()
    gap.count()  # refused before a fault was noted
    assert gap.end(1.0) is None
    gap.begin(5.0, "first")
    gap.begin(6.0, "second")
    gap.count(2)
    assert gap.end(4.0) == Gap(since=5.0, until=5.0, refused=3, why="first")
    assert gap.end(9.0) is None
