"""What the server gets: one key, nothing that was taken out, names of images that tenants do not share."""

from __future__ import annotations

import base64
import json

import pytest

from gateway.front_door.writing import write
from tests.inference_requests import inquire, wire

SECRET = b"s" * 32
IMAGE = {"type": "base64", "value": "aGk="}


def send(path, document=None, *, method="POST", query="", tenant="a", secret=SECRET, images=(), headers=()):
    pairs = [(b"authorization", b"Bearer key-a"), *headers]
    if document is not None:
        pairs.append((b"content-type", b"application/json"))
    request = wire(method, path, query, pairs)
    body = None if document is None else json.dumps(document).encode()
    inquiry = inquire(request, body)
    return write(inquiry, request, key="service", whose=tenant, secret=secret, images=images)


def image_id(document, path="/sam2/segment_image", **others):
    return json.loads(send(path, document, **others).body)["image_id"]


def test_one_key_goes_in_by_the_header_and_the_others_stay_out():
    headers = [
        *((b"x-api-key", b"key-a"), (b"x-workspace-id", b"w"), (b"cookie", b"key-a"), (b"host", b"h")),
        *(
            (b"x-forwarded-for", b"1.2.3.4"),
            (b"forwarded", b"x"),
            (b"expect", b"100-continue"),
            (b"te", b"trailers"),
        ),
        (b"accept", b"application/json"),
    ]
    outbound = send(
        "/infer/lmm", {"model_id": "acme/1", "api_key": "key-a"}, query="api_key=key-a", headers=headers
    )
    assert outbound.headers == (
        (b"authorization", b"Bearer service"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json"),
    )
    assert outbound.target == b"/infer/lmm?overlap=none"
    assert outbound.body == b'{"model_id":"acme/1"}'
    assert "service" not in repr(outbound)


@pytest.mark.parametrize("content_type", [b"application/json", b"text/plain", b"image/png"])
def test_a_body_that_is_passed_on_is_json_for_nobody(content_type):
    outbound = send("/acme/1", headers=[(b"content-type", content_type)])
    assert outbound.body is None
    assert (b"content-type", b"application/octet-stream") in outbound.headers


def test_form_data_keeps_its_boundary():
    form = (b"content-type", b"multipart/form-data; boundary=abc")
    assert form in send("/acme/1", headers=[form]).headers


def test_an_image_at_a_url_goes_into_the_body_where_nothing_is_fetched():
    outbound = send("/acme/1", method="GET", query="image=https://a.example/x&format=json", images=["aGk="])
    assert (outbound.method, outbound.target, outbound.body) == ("POST", b"/acme/1?format=json", b"aGk=")


def test_fetched_images_stand_where_their_urls_stood():
    document = {
        "subject": "https://a.example/0",
        "prompt": ["https://a.example/1", "aGk=", {"type": "url", "value": "https://a.example/2"}],
        "prompt_type": "image",
    }
    sent = json.loads(send("/clip/compare", document, images=["MA==", "MQ==", "Mg=="]).body)
    assert sent["subject"] == {"type": "base64", "value": "MA=="}
    assert [image["value"] for image in sent["prompt"]] == ["MQ==", "aGk=", "Mg=="]
    assert {image["type"] for image in sent["prompt"]} == {"base64"}


def test_writing_twice_gives_the_same_and_changes_nothing():
    headers = [("authorization", "Bearer key-a"), ("content-type", "application/json")]
    request = wire(path="/infer/lmm", headers=headers)
    body = json.dumps(
        {"model_id": "acme/1", "image": [{"type": "url", "value": "https://a.example/"}]}
    ).encode()
    inquiry = inquire(request, body)
    before = json.dumps(inquiry.document)
    first, second = (
        write(inquiry, request, key="k", whose="a", secret=SECRET, images=[image]).body
        for image in ("MA==", "MQ==")
    )
    assert first.replace(b"MA==", b"MQ==") == second
    assert json.dumps(inquiry.document) == before


def test_an_image_is_not_left_out_of_those_that_were_fetched():
    with pytest.raises(ValueError, match="argument"):
        send("/infer/lmm", {"model_id": "acme/1", "image": {"type": "url", "value": "https://a.example/"}})


def test_tenants_do_not_meet_under_a_name():
    named = {"image": IMAGE, "image_id": "mine"}
    assert image_id(named) == image_id(named)
    assert image_id(named) == image_id({"image": {**IMAGE, "value": "b3RoZXI="}, "image_id": "mine"})
    assert image_id(named) != image_id(named, tenant="b")
    assert image_id(named) != image_id({"image": IMAGE, "image_id": "other"})
    assert image_id(named) != image_id(named, secret=b"t" * 32)
    assert image_id({"image": IMAGE, "image_id": ""}) != image_id({"image": IMAGE})


def test_images_without_a_name_do_not_meet_unless_they_are_the_same_of_one_tenant():
    assert image_id({"image": IMAGE}) == image_id({"image": IMAGE, "image_id": None})
    assert image_id({"image": IMAGE}) != image_id({"image": {**IMAGE, "value": "b3RoZXI="}})
    assert image_id({"image": IMAGE}) != image_id({"image": IMAGE}, tenant="b")
    assert image_id({"image": IMAGE}) != image_id({"image": IMAGE}, tenant="a ten_00000000000A")
    assert image_id({"image": IMAGE}) != image_id({"image": IMAGE, "image_id": "aGk="})


def test_the_fetched_image_counts_not_its_url():
    document = {"image": {"type": "url", "value": "https://a.example/x"}}
    assert image_id(document, images=["MA=="]) == image_id({"image": {**IMAGE, "value": "MA=="}})


@pytest.mark.parametrize("document", [{}, {"embeddings": [[1]]}, {"image": IMAGE, "embeddings": [[1]]}])
def test_what_is_kept_without_a_name_and_an_image_gets_a_name_of_its_own(document):
    path = "/sam/segment_image"
    assert image_id(document, path) != image_id(document, path)


@pytest.mark.parametrize("document", [{"image": IMAGE, "image_id": "mine"}, {"image": IMAGE}, {}])
def test_a_name_that_was_given_out_works_for_its_tenant_and_means_nothing_to_another(document):
    given = image_id(document, "/sam2/embed_image")
    again = {"image": IMAGE, "image_id": given}
    assert image_id(again) == given
    assert image_id(again, "/sam3/visual_segment") == given
    assert image_id(again, tenant="b") != given
    assert image_id(again, secret=b"t" * 32) != given


@pytest.mark.parametrize("index", [10, 12, 30, 34, 35, 50, 57])
def test_a_name_of_ours_that_was_changed_is_a_name_like_another(index):
    given = image_id({"image": IMAGE, "image_id": "mine"})
    other = "A" if given[index] != "A" else "B"
    changed = given[:index] + other + given[index + 1 :]
    assert image_id({"image": IMAGE, "image_id": changed}) != changed
    assert image_id({"image": IMAGE, "image_id": given + "A"}) != given + "A"


@pytest.mark.parametrize(
    "name", ["cachegate-" + "\xe9" * 48, "cachegate-" + "!" * 48, "cachegate-" + "A" * 48, "a" * 512]
)
def test_a_name_that_only_looks_like_ours_is_a_name_like_another(name):
    assert image_id({"image": IMAGE, "image_id": name}) != name


def test_the_name_does_not_show_what_it_was_made_of():
    decoded = base64.urlsafe_b64decode(
        image_id({"image": IMAGE, "image_id": "mine"}).removeprefix("cachegate-")
    )
    assert len(decoded) == 36
    assert b"mine" not in decoded


def test_the_tenants_own_name_is_known_for_the_answer():
    own = send("/sam2/embed_image", {"image": IMAGE, "image_id": "mine"})
    assert own.image_name == "mine"
    unnamed = send("/sam2/embed_image", {"image": IMAGE})
    assert unnamed.image_name == json.loads(unnamed.body)["image_id"]
    assert send("/infer/lmm", {"model_id": "acme/1", "image_id": "x"}).image_name is None


def test_other_routes_have_no_such_name():
    assert b"image_id" not in send("/infer/lmm", {"model_id": "acme/1", "image": IMAGE}).body
