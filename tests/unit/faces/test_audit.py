"""Searches for proofs are bounded, and a caller that sees only a part of its tenant sees no proof."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from gateway.audit.record import DecisionRecord, OutcomeRecord, RequestPart, UpstreamPart
from gateway.faces import audit
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Allowed
from tests import samples

pytestmark = pytest.mark.anyio
RECORD_ID = "01a0c450-6cfa-7003-8a63-b03887c8d5c1"
BASE = {
    "schema": 2, "id": RECORD_ID, "chain": "n.0-0", "seq": 1, "prev": "0" * 64, "time": "t", "node": "n",
}  # fmt: skip
REQUEST = RequestPart(method="GET", route="/v1/models", client="192.0.2.1")


class Clock:
    def now(self):
        return 1_790_000_000.0


def allowed(**principal):
    caller = samples.principal(**principal)
    resource = Resource(kind=ResourceKind.SELF)
    access = Access(principal=caller, action=Action.AUDIT_READ, resource=resource)
    return Allowed(access=access, model=None, policies=(), grant=None, stamp=Stamp(1, ()))


def request(record_id=RECORD_ID):
    return replace(samples.wire_request(), raw_path=audit.PROOFS_PATH + record_id.encode())


async def refusal_of(face, one):
    with pytest.raises(Refusal) as caught:
        await face.find_proof(request(), one)
    return caught.value.reason


async def test_an_empty_log_has_no_record(tmp_path):
    face = audit.AuditFace(tmp_path, Clock())
    assert await refusal_of(face, allowed()) is Reason.ABSENT


async def test_a_log_that_cannot_be_read_is_no_absence(tmp_path):
    face = audit.AuditFace(tmp_path / "none", Clock())
    with pytest.raises(Unavailable):
        await face.find_proof(request(), allowed())


@pytest.mark.parametrize("caller", [{"only": "acme/*"}, {"tenant": None}])
async def test_a_narrowed_key_and_one_of_no_tenant_have_no_proofs(tmp_path, caller):
    face = audit.AuditFace(tmp_path / "none", Clock())
    assert await refusal_of(face, allowed(**caller)) is Reason.ABSENT


async def test_one_tenant_cannot_take_all_places(tmp_path, monkeypatch):
    import asyncio  # noqa: PLC0415

    go_on = threading.Event()

    def search(*_, **__):
        assert go_on.wait(60)

    monkeypatch.setattr(audit, "prove", search)
    face = audit.AuditFace(tmp_path, Clock())
    tenants = ["acme", "globex", "initech", "umbrella"]
    waiting = [
        asyncio.create_task(refusal_of(face, allowed(tenant=tenant)))
        for tenant in tenants
        for _ in range(audit.MOST_OF_TENANT)
    ]
    await asyncio.sleep(0)
    try:
        assert await refusal_of(face, allowed(tenant="acme")) is Reason.BUSY
        assert await refusal_of(face, allowed(tenant="other")) is Reason.BUSY
    finally:
        go_on.set()
    assert set(await asyncio.gather(*waiting)) == {Reason.ABSENT}
    assert await refusal_of(face, allowed(tenant="acme")) is Reason.ABSENT


OWN = {"tenant": "acme", "tenant_record": "tn_1"}


def decision(**other):
    return DecisionRecord(
        **{**BASE, "decision": "allow", "reason": "permitted", "request": REQUEST, **OWN, **other}
    )


def outcome(**other):
    fields = {"decision_id": RECORD_ID, **OWN, "ending": "complete", "status": 200, "bytes": 1}
    return OutcomeRecord(**{**BASE, **fields, "microseconds": 1, **other})


@pytest.mark.parametrize("record", [decision(), outcome()])
async def test_an_own_allow_and_its_outcome_are_shown(record):
    assert audit.may_show(record, tenant="acme", tenant_record="tn_1")
    assert not audit.may_show(record, tenant="globex", tenant_record="tn_1")


@pytest.mark.parametrize("record", [decision(), outcome(), decision(tenant_record=None)])
@pytest.mark.parametrize("tenant_record", [None, "tn_2"])
async def test_a_tenant_with_the_name_of_one_that_is_gone_sees_nothing_of_it(record, tenant_record):
    shown = audit.may_show(record, tenant="acme", tenant_record=tenant_record)
    assert shown == (record.tenant_record == tenant_record)


@pytest.mark.parametrize(
    "record",
    [
        decision(decision="deny", reason="not-permitted"),
        decision(tenant=None),
        outcome(tenant=None),
        outcome(upstream=UpstreamPart("10.0.0.1:9001", 200, 1, 1)),
        outcome(reason="unexpected-model"),
    ],
)
async def test_what_holds_more_than_the_tenant_may_know_is_not(record):
    assert not audit.may_show(record, tenant="acme", tenant_record="tn_1")
