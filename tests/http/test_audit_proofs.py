"""A tenant gets the proofs of its own allowed requests, and learns of no other record whether it is there."""

from __future__ import annotations

import pytest

from gateway.assembly.signing import load_own_keys
from gateway.audit.head import fingerprint
from gateway.audit.proof import check_proof

FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
SHARED_FILE = "/v1/models/globex/cars/1/-/pkgA1/weights.onnx"
PROOFS = "/audit/v1/proofs/"


@pytest.fixture(scope="module")
def site(build_world):
    yield from build_world("proofs", workers=2)


@pytest.fixture(scope="module")
def reader(site):
    """A key of a tenant that may read and ask for proofs."""

    def make(tenant):
        scopes = [part for scope in ("read", "discover", "audit:read") for part in ("--scopes", scope)]
        return site.installation.json("keys", "create", "--tenant", tenant, *scopes)["token"]

    return {tenant: make(tenant) for tenant in ("acme", "globex")}


def record_of(answer):
    return answer.header("cachegate-record")


@pytest.fixture(scope="module")
def proven(site, reader, eventually):
    """The record of a read, with its proof, once the next head is signed."""
    answer = site.wire.get(FILE, reader["acme"])
    assert answer.status == 200
    record_id = record_of(answer)
    first = site.wire.get(PROOFS + record_id, reader["acme"])
    if first.status != 200:  # as nearly always: unless the head has come just now
        assert (first.status, first.header("retry-after")) == (409, "10")
        assert first.json()["type"].endswith("not-yet-proven")

    def get():
        answer = site.wire.get(PROOFS + record_id, reader["acme"])
        return answer if answer.status == 200 else None

    return record_id, eventually(get)


def keys_of(site):
    return {fingerprint(key): key for key in load_own_keys(site.installation.state / "signing" / "audit.pem")}


def test_the_proof_of_an_own_read_holds_without_the_log(site, proven):
    record_id, answer = proven
    assert answer.header("content-type") == "application/json"
    found = check_proof(answer.body, keys_of(site))
    assert (found.record.id, found.record.tenant, found.record.decision) == (record_id, "acme", "allow")
    assert found.record.resource.file == "weights.onnx"


def test_so_does_that_of_its_outcome(site, reader, proven):
    outcome = site.installation.outcome_of(proven[0])
    answer = site.wire.get(PROOFS + outcome["id"], reader["acme"])
    assert check_proof(answer.body, keys_of(site)).record.decision_id == proven[0]


def test_head_is_get_without_the_body(site, reader, proven):
    head = site.wire.head(PROOFS + proven[0], reader["acme"])
    assert (head.status, head.header("content-length")) == (200, str(len(proven[1].body)))


def same_but_for_the_record(*answers):
    shapes = {
        (
            one.status,
            one.body.replace(record_of(one).encode(), b""),
            tuple(
                (name, value)
                for name, value in one.headers
                if name not in {"date", "cachegate-record", "traceparent"}
            ),
        )
        for one in answers
    }
    return len(shapes) == 1


def test_what_is_not_the_callers_is_answered_as_absent(site, reader, proven, eventually):
    """Another tenant's read, one's own refusal, a head, a record of nobody, what is no id at all."""
    refused = record_of(site.wire.get("/v1/models/globex/lab/1/-/pkgL1/weights.onnx", reader["acme"]))
    foreign = record_of(site.wire.get(SHARED_FILE, reader["globex"]))
    assert eventually(lambda: site.wire.get(PROOFS + foreign, reader["globex"]).status == 200)
    head = next(one["id"] for one in site.installation.records() if one["kind"] == "head")
    absent = proven[0][:-4] + ("0000" if proven[0][-4:] != "0000" else "1111")
    asked = [refused, foreign, head, absent, "x", "0" * 36, proven[0].upper(), "%2e%2e", proven[0] + "0"]
    answers = [site.wire.get(PROOFS + one, reader["acme"]) for one in asked]
    assert {one.status for one in answers} == {404}
    assert same_but_for_the_record(*answers)
    assert same_but_for_the_record(
        site.wire.get(PROOFS + proven[0], reader["globex"]), site.wire.get(PROOFS + absent, reader["globex"])
    )


def test_without_the_scope_nothing_is_searched(site, proven):
    assert site.wire.get(PROOFS + proven[0], site.token("acme")).status == 403
    assert site.wire.get(PROOFS + proven[0]).status == 401


def test_workers_say_that_they_began(site, proven):
    began = [one for one in site.installation.records() if one["kind"] == "worker"]
    assert [one["state"] for one in began] == ["started"] * 2
    assert len({one["chain"] for one in began}) == 2


def test_each_request_for_a_proof_is_recorded(site, reader, proven):
    answer = site.wire.get(PROOFS + proven[0], reader["acme"])
    record = next(one for one in site.installation.records() if one["id"] == record_of(answer))
    assert (record["decision"], record["action"], record["tenant"]) == ("allow", "audit-read", "acme")
    assert record["request"]["route"] == "/audit/v1/proofs/{record}"


def test_other_methods_and_deeper_paths_are_none(site, reader, proven):
    assert site.wire.request("POST", PROOFS + proven[0], reader["acme"]).status == 405
    assert site.wire.get(PROOFS + proven[0] + "/x", reader["acme"]).status == 404
    assert site.wire.get(PROOFS, reader["acme"]).status == 404
