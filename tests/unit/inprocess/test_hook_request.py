"""A hook's question: names that parse, keys where a client would send them, and no path as a model."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.credential.extract import extract
from gateway.inprocess.hook_request import NO_ADDRESS, HookRequest
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal


def question(model="acme/cars/1", package=None, key="a-key"):
    return HookRequest(hook="load", action=Action.INFER, raw_model=model, raw_package=package, raw_key=key)


def located(asked):
    return asked.route().locate(asked.request(1.0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_and_a_package_are_named_as_they_were_asked_for():
    assert located(question()) == Resource(kind=ResourceKind.MODEL, model="acme/cars/1")
    package = Resource(kind=ResourceKind.PACKAGE, model="acme/cars/1", package="pkgA1")
    assert located(question(package="pkgA1")) == package


@pytest.mark.parametrize(
    "model",
    ["/etc", "../x", "./x", "a/./b", "a//b", "a\\b", ".", "..", "", "a\0b", "~/\ud800", "/tmp/cache/x"],
)
def test_what_is_no_model_id_is_refused(model):
    with pytest.raises(Refusal) as refusal:
        located(question(model))
    assert refusal.value.reason is Reason.MALFORMED_PATH


def test_a_package_that_is_none_is_refused():
    with pytest.raises(Refusal):
        located(question(package="../x"))


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_a_name_that_exists_as_a_path_is_no_model_id(folder, kind):
    path = folder / "acme" / "cars"
    path.parent.mkdir()
    {"file": path.touch, "folder": path.mkdir, "dangling link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(Refusal) as refusal:
        located(question("acme/cars"))
    assert refusal.value.reason is Reason.MALFORMED_PATH
    assert located(question("acme/vans")).model == "acme/vans"


@pytest.mark.parametrize("key", [None, "", "local"])
def test_no_key_in_any_spelling_is_nobody(key):
    with pytest.raises(Refusal) as refusal:
        extract(question(key=key).request(1.0).headers, b"")
    assert refusal.value.reason is Reason.NO_CREDENTIAL


@pytest.mark.parametrize("key", ["a,b", "two words", "ключ", "\ud800", "a\r\nx-api-key: b"])
def test_a_key_that_no_header_can_carry_is_malformed(key):
    with pytest.raises(Refusal) as refusal:
        extract(question(key=key).request(1.0).headers, b"")
    assert refusal.value.reason is Reason.MALFORMED_CREDENTIAL


def test_a_key_is_neither_printed_nor_part_of_what_is_recorded():
    asked = question(key="s3cret")
    assert "s3cret" not in repr(asked)
    request = asked.request(1.0)
    assert (request.route, request.client) == ("in-process/load", NO_ADDRESS)
    assert b"s3cret" not in request.raw_path


def test_no_two_questions_are_one_to_whoever_remembers_answers():
    asked = [
        question("a/b"),
        question("a/b", "p"),
        question("a", "b"),
        question("a'b"),
        question("a\\ud800"),
        question("a\ud800"),
        replace(question("a/b"), action=Action.READ),
        replace(question("a/b"), hook="confirm"),
    ]
    assert len({one.request(1.0).raw_path for one in asked}) == len(asked)
