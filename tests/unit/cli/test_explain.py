from __future__ import annotations

import json
import uuid

import pytest

from gateway.adapters.clock import SystemClock
from gateway.assembly.components import build_recorder
from gateway.model.access import Resource, ResourceKind
from gateway.model.errors import Reason
from gateway.model.verdicts import Rejection
from tests import samples

OWN = ("--model", "acme/cars/1", "--package", "pkgA1", "--file", "weights.onnx")


def test_what_would_be_served_is_a_yes_with_the_whole_path(command_json, installed):
    status, found = command_json("explain", "--key-id", installed.key_id("acme"), *OWN)
    assert (status, found["served"], found["verdict"]) == (0, True, "allow")
    assert found["disk"]["present"]
    kinds = [step["kind"] for step in found["path"]]
    assert kinds == ["key", "tenant", "owner", "model", "package", "file"]


def test_a_refusal_is_a_no_and_says_what_is_needed(command_json, installed):
    question = ("--model", "globex/cars/1", "--package", "pkgB1")
    status, found = command_json("explain", "--key-id", installed.key_id("acme"), *question)
    assert (status, found["served"], found["reason"]) == (1, False, "not-permitted")
    assert found["disk"]["present"]  # an operator is told, a client is not
    assert found["needed"]


def test_an_absent_thing_is_a_no_though_the_rules_allow_it(command_json, installed):
    question = ("--model", "acme/none/9", "--package", "pkgA1")
    status, found = command_json("explain", "--key-id", installed.key_id("acme"), *question)
    assert (status, found["verdict"], found["disk"]["present"]) == (1, "allow", False)


@pytest.mark.parametrize(
    ("name", "reason"), [("acme-revoked", "revoked-key"), ("acme-expired", "expired-key")]
)
def test_a_key_that_is_not_valid_is_a_no_with_its_own_reason(command_json, installed, name, reason):
    status, found = command_json("explain", "--key-id", installed.key_id(name), *OWN)
    assert (status, found["served"], found["verdict"], found["reason"]) == (1, False, "deny", reason)


def test_the_action_decides_which_scope_is_needed(command_json, installed):
    question = ("explain", "--key-id", installed.key_id("acme-catalogue"), *OWN)
    assert command_json(*question)[1]["reason"] == "missing-scope"
    assert command_json(*question, "--action", "discover")[1]["verdict"] == "allow"


def test_people_get_the_answer_first(command, installed):
    status, out, _ = command("explain", "--key-id", installed.key_id("acme"), *OWN)
    assert status == 0
    assert out.index("served now") < out.index("verdict") < out.index("on disk")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--key-id", "key_0123456789ab"),
        ("--key-id", "nonsense", "--model", "acme/cars/1"),
        ("--key-id", "key_0123456789ab", "--model", "../etc"),
        ("--key-id", "key_0123456789ab", "--model", "a/b", "--file", "w.onnx"),
        ("--key-id", "key_0123456789ab", "--model", "a/b", "--action", "identify"),
        ("--key-id", "key_0123456789ab", "--model", "a/b", "--address", "10.0.0.0/8"),
        ("--record", "01a1f937-f944-7001-8389-121433a237cf", "--model", "a/b"),
        ("--record", "nonsense"),
    ],
)
def test_a_question_that_does_not_parse_is_a_usage_error(command, arguments):
    assert command("explain", *arguments)[0] == 2


def test_an_unknown_key_is_a_no(command):
    status, _, err = command("explain", "--key-id", "key_0123456789ab", "--model", "a/b")
    assert status == 1
    assert "no key key_0123456789ab" in err


def test_an_unknown_record_is_a_no(command):
    unknown = str(uuid.UUID(int=(uuid.uuid4().int & ~(0xF << 76)) | (7 << 76)))
    assert command("explain", "--record", unknown)[0] == 1


def test_a_record_that_is_no_decision_is_shown_as_it_is(command, command_json):
    change = json.loads(command("audit", "search", "--tenant", "globex", "--json")[1].splitlines()[0])
    status, found = command_json("explain", "--record", change["id"])
    assert (status, found["now"]) == (0, None)
    assert found["record"]["action"] == change["action"]
    assert "nothing to ask again" in found["why_not_now"]


@pytest.fixture
def refused(installed):
    """The record of a refusal, as a worker writes it."""
    key_id = installed.key_id("acme")
    principal = samples.principal(key_id=key_id)
    request = samples.wire_request(route="/v1/models/{model}")
    resource = Resource(kind=ResourceKind.PACKAGE, model="globex/cars/1", package="pkgB1")
    recorder = build_recorder(installed.settings, SystemClock())
    record_id = recorder.reject(
        Rejection(
            request=request,
            reason=Reason.NOT_PERMITTED,
            principal=principal,
            resource=resource,
            action="discover",
            policies=("litigation-hold",),
        )
    )
    recorder.close()
    return record_id


def test_a_recorded_refusal_is_explained_and_asked_again(command_json, refused):
    status, found = command_json("explain", "--record", refused)
    assert (status, found["record"]["reason"], found["outcome"]) == (0, "not-permitted", None)
    assert found["record"]["policies"] == ["litigation-hold"]
    assert (found["now"]["verdict"], found["now"]["reason"]) == ("deny", "not-permitted")


def test_a_record_is_explained_when_nothing_else_can_be_asked(command_json, refused, monkeypatch):
    monkeypatch.setenv("CACHEGATE_REDIS_URL", "redis://127.0.0.1:1/0")
    status, found = command_json("explain", "--record", refused)
    assert (status, found["record"]["reason"], found["now"]) == (0, "not-permitted", None)
    assert "redis" in found["why_not_now"]


def test_people_get_what_was_recorded_and_what_would_be_now(command, refused):
    status, out, _ = command("explain", "--record", refused)
    assert status == 0
    assert "litigation-hold" in out
    assert out.index("decision") < out.index("The same asked now")
