"""A view says what its tenant was told, whatever else the record holds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import record as records
from gateway.feed.tenant_view import encode_view, view_of
from gateway.model.errors import Reason
from gateway.problems import problem_of

ENVELOPE = {"schema": 2, "id": "i", "chain": "c", "seq": 1, "prev": "p", "time": "t", "node": "n"}
REQUEST = records.RequestPart(method="GET", route="/v1/models/{model}", client="192.0.2.1")
SECRET = "what-the-tenant-may-not-know"
HIDDEN = sorted(
    (
        one.value
        for one in Reason
        if one is not Reason.PERMITTED and problem_of(one, REQUEST.route).status == 404
    ),
)


def refusal(reason, *, model, policies, grant, generation, seq, package=None):
    return records.DecisionRecord(
        **{**ENVELOPE, "seq": seq, "prev": SECRET, "chain": SECRET, "node": SECRET},
        decision="deny",
        reason=reason,
        tenant="acme",
        tenant_record="trc_1",
        key_id="key_1",
        principal="tenant",
        action="read",
        grant=grant,
        policies=policies,
        generation=generation,
        resource=records.ResourcePart(kind="model", requested="x/y/1", model=model, package=package),
        request=REQUEST,
    )


texts = st.none() | st.text(max_size=20)


@given(
    st.sampled_from([one for one in HIDDEN if one not in {"no-route", "closed-route"}]),
    texts,
    st.lists(st.text(max_size=9)).map(tuple),
    texts,
    st.none() | st.integers(0, 9),
    st.integers(1, 9),
    texts,
)
def test_all_that_is_answered_as_absent_has_one_view(
    reason, model, policies, grant, generation, seq, package
):
    plain = refusal("absent", model=None, policies=(), grant=None, generation=None, seq=1)
    other = refusal(
        reason, model=model, policies=policies, grant=grant, generation=generation, seq=seq, package=package
    )
    assert view_of(other, "acme", "trc_1") == view_of(plain, "acme", "trc_1")


def test_a_view_says_the_status_and_problem_of_a_refusal():
    view = view_of(
        refusal("missing-scope", model=None, policies=(), grant=None, generation=1, seq=1), "acme", "trc_1"
    )
    assert (view.status, view.problem, view.decision) == (403, "missing-scope", "deny")


def one_of_each_kind(tenant, tenant_record):
    """A record of every kind that names a tenant, each text of it secret but for what is listed."""
    own = {"tenant": tenant, "tenant_record": tenant_record, "key_id": "key_1"}
    resource = records.ResourcePart(kind="model", requested="x", model=SECRET, subject=SECRET)
    hidden = {**ENVELOPE, "prev": SECRET, "chain": SECRET, "node": SECRET}
    upstream = records.UpstreamPart(server=SECRET, status=1, bytes=1)
    ruled = {"policies": (SECRET,), "grant": SECRET, "resource": resource}
    digests = {"before": SECRET, "after": SECRET}
    whose = {"tenant": tenant, "tenant_record": tenant_record}
    sent = {"ending": "complete", "status": 200, "bytes": 1, "microseconds": 1}
    return [
        records.DecisionRecord(**hidden, **own, **ruled, decision="deny", reason="absent", request=REQUEST),
        records.OutcomeRecord(**hidden, **own, **sent, decision_id="d", upstream=upstream),
        records.QuestionRecord(
            **hidden, **own, **ruled, ask_id="a", item=0, answer="undecided", reason=SECRET
        ),
        records.ChangeRecord(**hidden, **own, actor=SECRET, action="keys.create", subject=(SECRET,)),
        records.ChangeOutcomeRecord(**hidden, **own, **digests, change_id="c", result=SECRET),
        records.SummaryRecord(
            **hidden, **whose, source="192.0.2.0/24", second="t", count=2, reasons={SECRET: 2}
        ),
    ]


@pytest.mark.parametrize("number", range(6))
def test_nothing_of_a_record_is_in_its_view_that_is_not_listed(number):
    record = one_of_each_kind("acme", "trc_1")[number]
    view = view_of(record, "acme", "trc_1")
    assert SECRET not in encode_view(view).decode()
    assert view.kind == record.__struct_config__.tag


@pytest.mark.parametrize("whose", [("acme", "trc_0"), ("acme", None), ("globex", "trc_1"), (None, None)])
def test_a_record_of_another_tenant_or_of_an_earlier_one_of_its_name_has_no_view(whose):
    for record in one_of_each_kind(*whose):
        assert view_of(record, "acme", "trc_1") is None


def test_kinds_that_are_nobodys_have_no_view():
    refused = records.RefusedChangeRecord(**ENVELOPE, actor="a", action="b", reason="c", tenant="acme")
    assert view_of(refused, "acme", None) is None


def test_an_undecided_answer_is_the_no_that_was_told():
    question = one_of_each_kind("acme", "trc_1")[2]
    plain = msgspec.structs.replace(question, answer="no")
    assert view_of(question, "acme", "trc_1") == view_of(plain, "acme", "trc_1")


def test_a_reason_that_this_release_does_not_know_tells_no_problem():
    unknown = refusal("of-a-later-release", model=None, policies=(), grant=None, generation=None, seq=1)
    view = view_of(unknown, "acme", "trc_1")
    assert (view.status, view.problem) == (None, None)
