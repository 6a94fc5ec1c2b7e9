"""What is read of a request, for each case of the corpus and for what no text file can hold."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import pytest

from gateway.front_door.strict_json import MAX_CONTAINERS, MAX_MEMBERS, MAX_VALUES
from gateway.front_door.writing import write
from gateway.model.errors import Reason, Refusal
from tests.inference_requests import inquire, wire

CASES = tomllib.loads((Path(__file__).parents[2] / "cases" / "inference_requests.toml").read_text())["cases"]


def request_of(case):
    body = case.get("body")
    headers = []
    if key := case.get("key", "key-a"):
        headers.append((b"authorization", b"Bearer " + key.encode()))
    if content_type := case.get("content_type", "application/json"):
        headers.append((b"content-type", content_type.encode()))
    request = wire(case.get("method", "POST"), case["path"], case.get("query", ""), headers)
    return request, None if body is None else body.encode()


def reason_of(request, body):
    with pytest.raises(Refusal) as refusal:
        inquire(request, body)
    return refusal.value.reason


def json_request(body, headers=(), path="/infer/classification"):
    fixed = [(b"authorization", b"Bearer key-a"), (b"content-type", b"application/json")]
    return wire(path=path, headers=[*fixed, *headers]), body


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case], ids=lambda case: case["name"])
def test_a_request_that_could_be_read_in_two_ways_is_refused_for_its_reason(case):
    assert reason_of(*request_of(case)) == case["refused"]


@pytest.mark.parametrize("case", [case for case in CASES if "models" in case], ids=lambda case: case["name"])
def test_a_request_is_decided_for_all_that_it_loads_and_sent_as_it_was_read(case):
    request, body = request_of(case)
    inquiry = inquire(request, body)
    assert list(inquiry.models) == case["models"]
    assert inquiry.reported == set(case.get("reported", case["models"]))
    assert [image.url for image in inquiry.images] == case.get("urls", [])
    if case["path"] == "/info":
        assert inquiry.credential is None
        return
    assert inquiry.credential.secret == "key-a"
    images = ["ZmV0Y2hlZA=="] * len(inquiry.images)
    outbound = write(inquiry, request, key="k", whose="t", secret=b"s" * 32, images=images)
    if "sent" in case:
        assert outbound.body == case["sent"].encode()
    if "target" in case:
        assert outbound.target == case["target"].encode()


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + b'{"model_id": "acme/1"}',
        '{"model_id": "acme/1"}'.encode("utf-16"),
        '{"model_id": "acme/1"}'.encode("utf-32"),
        b'{"model_id": "acme/1", "x": "\xff"}',
        b'{"model_id": "acme/1", "x": "\xed\xa0\x80"}',
        b'{"model_id": "acme/1", "x": "\\ud800"}',
        b'{"model_id": "acme/1", "\\udfff": 1}',
        b'{"model_id": "acme/1", "x": NaN}',
        b'{"model_id": "acme/1", "x": [-Infinity]}',
        b'{"model_id": "acme/1", "x": 1e999}',
        b'{"model_id": "acme/1", "x": {"a": 1, "a": 1}}',
        b'{"model_id": "acme/1"} {}',
        b'{"model_id": "acme/1"}\x00',
        b'{"model_id": "acme/1", "x": "a\nb"}',
        b'{"model_id": "acme/1", "x": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"model_id": "acme/1", "x": ' + b"9" * 65 + b"}",
        b'{"model_id": "acme/1", "x": 0.' + b"1" * 65 + b"}",
    ],
)
def test_a_body_that_parsers_disagree_about_is_refused(body):
    assert reason_of(*json_request(body)) == Reason.MALFORMED_BODY


def test_a_pair_of_surrogates_is_a_character():
    inquiry = inquire(*json_request(b'{"model_id": "acme/1", "x": "\\ud83d\\ude00"}'))
    assert inquiry.document["x"] == "\U0001f600"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([(b"content-type", b"application/json")], Reason.MALFORMED_BODY),  # twice
        ([(b"content-encoding", b"gzip")], Reason.MALFORMED_BODY),
        ([(b"authorization", b"Bearer key-b")], Reason.CONFLICTING_CREDENTIALS),
        ([(b"authorization", b"Basic eDp5")], Reason.CONFLICTING_CREDENTIALS),
        ([(b"x-api-key", b"key-b")], Reason.CONFLICTING_CREDENTIALS),
        ([(b"authorization", b"Bearer\tkey-a")], Reason.MALFORMED_CREDENTIAL),
    ],
)
def test_headers_that_could_be_read_in_two_ways_are_refused(headers, reason):
    assert reason_of(*json_request(b'{"model_id": "acme/1"}', headers)) == reason


def test_a_route_that_reads_no_body_refuses_one():
    request = wire("GET", "/start/acme/1", headers=[(b"authorization", b"Bearer key-a")])
    assert reason_of(request, b"{}") == Reason.MALFORMED_BODY


def test_too_many_parameters_are_refused():
    request = wire(
        query="&".join(["a=1"] * 40),
        headers=[(b"authorization", b"Bearer key-a"), (b"content-type", b"application/json")],
    )
    assert reason_of(request, b'{"model_id": "acme/1"}') == Reason.MALFORMED_QUERY


@pytest.mark.parametrize(
    "body",
    [
        b'{"model_id": "acme/1", "x": ' + b"[" * 2_000_000,
        b'{"a":' * 1_000_000,
        b"[]" * 40 + b'"' + b'\\"' * 1_000_000,
        b"[]" * 40 + b'"' + b"\\" * 4_000_001,
        b'{"x": [' + b"[]," * 1_000_000 + b"[]]}",
        b'{"x": [' + b"1," * 4_000_000 + b"1]}",
        b'{"x": ' + b"9" * 8_000_000 + b"}",
        b'{"x": 1e' + b"9" * 8_000_000 + b"}",
        b'{"x": [' + b"-" * 4_000_000,
        b'{"x": "' + b"\\u0041" * 1_000_000,
        b"{" + b" " * 8_000_000,
        b"{" + b",".join(b'"%d":1' % index for index in range(300_000)) + b"}",
    ],
    ids=range(12),
)
def test_a_hostile_body_is_refused_in_time_that_grows_with_its_length_at_most(body):
    begun = time.process_time()
    assert reason_of(*json_request(body)) == Reason.MALFORMED_BODY
    assert time.process_time() - begun < 5  # quadratic work on these takes minutes


@pytest.mark.parametrize(
    "body",
    [
        b'{"model_id": "acme/1", "x": [' + b"[]," * MAX_CONTAINERS + b"1]}",
        b'{"model_id": "acme/1", "x": [' + b"1," * MAX_VALUES + b"1]}",
        b'{"model_id": "acme/1", "x": {' + b",".join(b'"%d":1' % n for n in range(MAX_MEMBERS)) + b"}}",
    ],
    ids=["containers", "values", "members"],
)
def test_a_body_that_would_take_too_much_memory_is_refused_although_it_is_json(body):
    assert reason_of(*json_request(body)) == Reason.MALFORMED_BODY


def test_an_image_whose_value_is_no_text_is_refused():
    body = (
        b'{"model_id": "acme/1", "image": {"type": "base64", "value": {"type": "url", "value": "http://a"}}}'
    )
    assert reason_of(*json_request(body)) == Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    "path", ["/infer/object_detection", "/infer/lmm", "/infer/lmm/{}", "/{}", "/infer/embeddings"]
)
def test_a_model_that_keeps_what_it_was_told_runs_on_its_own_route_alone(path):
    """Without a text it would answer with the words of whoever asked before, another tenant maybe."""
    model = "yolo_world/l"
    body = b"" if path == "/{}" else json.dumps({} if "{}" in path else {"model_id": model}).encode()
    assert reason_of(*json_request(body, path=path.format(model))) == Reason.CLOSED_ROUTE


@pytest.mark.parametrize("told", [None, [], "car", {}, [1], ["car", None], [["car"]]])
def test_such_a_model_has_to_be_told_what_to_look_for(told):
    path = "/yolo_world/infer"
    assert reason_of(*json_request(json.dumps({"text": told}).encode(), path=path)) == Reason.MALFORMED_BODY
    assert reason_of(*json_request(b"{}", path=path)) == Reason.MALFORMED_BODY
    assert inquire(*json_request(b'{"text": ["car"]}', path=path)).models


def test_such_a_model_may_be_loaded():
    assert (
        inquire(*json_request(b'{"model_id": "yolo_world/l"}', path="/model/add")).models[0] == "yolo_world/l"
    )
    request = wire("GET", "/start/yolo_world/l", headers=[(b"authorization", b"Bearer key-a")])
    assert inquire(request, None).models[0] == "yolo_world/l"


def examples(image):
    return json.dumps(
        {
            "image": {"type": "base64", "value": "aGk="},
            "training_data": [{"boxes": [{"x": 1}], "image": image}],
        }
    ).encode()


@pytest.mark.parametrize(
    ("image", "sent"),
    [
        ({"type": "base64", "value": "aGk="}, "data:image/png;base64,aGk="),
        ({"type": "BASE64", "value": "data:image/jpeg;base64,aGk="}, "data:image/jpeg;base64,aGk="),
        ({"type": "base64", "value": "http://10.0.0.1/"}, "data:image/png;base64,http://10.0.0.1/"),
        ({"type": "base64", "value": "/etc/hostname"}, "data:image/png;base64,/etc/hostname"),
        ({"type": "url", "value": "https://a.example/x"}, "data:image/png;base64,ZmV0Y2hlZA=="),
    ],
)
def test_an_example_says_itself_that_it_is_base64(image, sent):
    """Its handler drops the type and guesses: a URL in the place of base64 would be fetched."""
    request, body = json_request(examples(image), path="/owlv2/infer")
    inquiry = inquire(request, body)
    images = ["ZmV0Y2hlZA=="] * len(inquiry.images)
    outbound = write(inquiry, request, key="k", whose="t", secret=b"s" * 32, images=images)
    [example] = json.loads(outbound.body)["training_data"]
    assert example == {"boxes": [{"x": 1}], "image": {"type": "base64", "value": sent}}
    assert json.loads(outbound.body)["image"] == {"type": "base64", "value": "aGk="}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"type": "file", "value": "/etc/hostname"}, Reason.FORBIDDEN_IMAGE),
        ({"type": "Numpy", "value": "aGk="}, Reason.FORBIDDEN_IMAGE),
        ("aGk=", Reason.MALFORMED_BODY),
        ([{"type": "base64", "value": "aGk="}], Reason.MALFORMED_BODY),
        (None, Reason.MALFORMED_BODY),
    ],
)
def test_an_example_is_refused_like_any_other_image(image, reason):
    assert reason_of(*json_request(examples(image), path="/owlv2/infer")) == reason


@pytest.mark.parametrize("training", ["x", {"image": 1}, [1], [{"boxes": []}], [[{"image": 1}]]])
def test_examples_are_a_list_of_objects_with_an_image(training):
    body = json.dumps({"training_data": training}).encode()
    assert reason_of(*json_request(body, path="/owlv2/infer")) == Reason.MALFORMED_BODY


def test_the_embeddings_of_sam_are_within_the_bounds():
    embeddings = json.dumps([[[[0.5] * 64] * 64] * 256])
    body = b'{"image_id": "a", "embeddings": ' + embeddings.encode() + b"}"
    assert inquire(*json_request(body, path="/sam/segment_image")).models == ("sam/vit_h",)


def test_what_was_read_of_a_request_is_not_in_its_text():
    request, _ = json_request(b"")
    shown = repr(inquire(request, b'{"model_id": "acme/1", "api_key": "key-a", "image_id": "name"}'))
    assert "key-a" not in shown
    assert "name" not in shown.replace("dataset", "")
