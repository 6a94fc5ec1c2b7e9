"""Images and parameters of a request to run a workflow."""

from __future__ import annotations

import pytest

from gateway.front_door.workflows.inputs import read_inputs, with_fetched
from gateway.front_door.workflows.specification import read_specification
from gateway.model.errors import Reason, Refusal

SPECIFICATION = read_specification(
    {
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            {"type": "WorkflowParameter", "name": "text"},
        ],
        "steps": [],
    }
)


def read(value, **more):
    return read_inputs({"image": value} | more, SPECIFICATION)


def reason(value):
    with pytest.raises(Refusal) as caught:
        read(value)
    return caught.value.reason


@pytest.mark.parametrize("value", ["AAAA", {"value": "AAAA"}, {"type": "BASE64", "value": "AAAA"}])
def test_an_image_has_one_form(value):
    assert read(value) == ({"image": {"type": "base64", "value": "AAAA"}}, ())


def test_lists_of_images_stay_lists():
    inputs, urls = read([["AAAA", None], {"value": "BBBB"}])
    assert inputs["image"][0][1] is None
    assert inputs["image"][1]["value"] == "BBBB"
    assert urls == ()


def test_what_stands_beside_an_image_stays():
    image = {"type": "base64", "value": "A", "parent_id": "p", "video_metadata": {"fps": 1}}
    assert read(image)[0]["image"] == image


@pytest.mark.parametrize(
    "value",
    [
        "http://a.example/x",
        "https://a.example/x",
        "HTTP://a.example/x",
        " http://a.example/x",
        {"type": "base64", "value": "http://a.example/x"},
        {"type": "Url", "value": "http://a.example/x"},
        {"type": "url", "value": "ftp://a.example/x"},
        {"value": "https://a.example/x"},
    ],
)
def test_whatever_the_server_would_fetch_is_listed(value):
    inputs, [url] = read([value])
    assert url.place == ("image", 0)
    assert inputs["image"][0] == {"type": "base64", "value": ""}


def test_what_was_fetched_goes_to_its_place_and_nothing_else_changes():
    inputs, urls = read(["AAAA", {"type": "url", "value": "http://a.example/x", "parent_id": "p"}], text="t")
    sent = with_fetched(inputs, zip(urls, ["FETCHED"], strict=True))
    assert sent == {
        "image": [
            {"type": "base64", "value": "AAAA"},
            {"type": "base64", "value": "FETCHED", "parent_id": "p"},
        ],
        "text": "t",
    }
    assert inputs["image"][1]["value"] == ""


@pytest.mark.parametrize("kind", [["image"], ["video_metadata", {"name": "image"}]])
def test_metadata_of_a_video_that_is_declared_an_image_is_one(kind):
    """The server reads an input by its kinds: it would fetch a URL there as for any image."""
    declared = {"type": "WorkflowVideoMetadata", "name": "video", "kind": kind}
    specification = read_specification({"inputs": [declared], "steps": []})
    inputs, [url] = read_inputs({"video": "http://a.example/x"}, specification)
    assert inputs == {"video": {"type": "base64", "value": ""}}
    assert url.place == ("video",)


@pytest.mark.parametrize("kind", ["file", "numpy", "numpy_object", "pil", "multipart", "FILE"])
def test_files_and_pickles_are_refused(kind):
    assert reason({"type": kind, "value": "/etc/passwd"}) is Reason.FORBIDDEN_IMAGE


@pytest.mark.parametrize(
    "value",
    [7, True, {}, {"value": 7}, {"value": None}, {"type": 7, "value": "A"}, {"value": "A", "path": "/"}],
)
def test_what_is_no_image_is_refused(value):
    assert reason(value) is Reason.MALFORMED_BODY


def test_inputs_that_are_not_declared_are_left_out_and_parameters_pass():
    assert read_inputs({"text": ["a"], "other": "http://a.example"}, SPECIFICATION) == ({"text": ["a"]}, ())


@pytest.mark.parametrize("given", [None, [], "x"])
def test_inputs_are_an_object(given):
    with pytest.raises(Refusal) as caught:
        read_inputs(given, SPECIFICATION)
    assert caught.value.reason is Reason.MALFORMED_BODY
