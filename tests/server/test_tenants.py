"""Two tenants on one server: what one has loaded gives the other nothing."""

from __future__ import annotations

import pytest
from gateways import SERVICE_KEY
from http_client import bearer, image, picture, post, send
from sdk import TRANSPORTS
from tenants_models import ABSENT, BOXES, CARS, GLOBEX_BOXES, GLOBEX_CHILD, GLOBEX_VANS, SHARED, STATIC_ALIAS

pytestmark = pytest.mark.server

CLASSIFY, DETECT = "/infer/classification", "/infer/object_detection"


def asking(model_id, **more):
    return {"model_id": model_id, "image": image()} | more


def used(answer):
    assert answer.status == 200, answer.body
    return answer.json()["resolved_model"]["model_id"]


def test_models_of_the_same_name_are_each_tenants_own(front):
    acme, globex = front.key("acme"), front.key("globex")
    assert used(front.post(CLASSIFY, asking(CARS), acme)) == CARS
    assert used(front.post(CLASSIFY, asking(GLOBEX_VANS), globex)) == GLOBEX_VANS
    for key, model in ((acme, BOXES), (globex, GLOBEX_BOXES)):
        assert front.post(DETECT, asking(model), key).status == 200
    assert [note.model for note in front.notes.all("infer")] == [CARS, GLOBEX_VANS, BOXES, GLOBEX_BOXES]


LEGACY = f"/{CARS}"


@pytest.mark.parametrize(
    "target",
    [
        "/model/add",
        CLASSIFY,
        "/infer/lmm",
        "/infer/embeddings",
        "/infer/depth-estimation",
        "/infer/action_recognition",
    ],
)
def test_a_warm_model_of_another_tenant_is_the_same_as_none(front, target):
    assert front.post(CLASSIFY, asking(CARS), front.key("acme")).status == 200
    globex = front.key("globex")
    front.notes.mark()
    video = {"video": {"type": "base64", "value": "AAAA"}} if "action" in target else {}
    warm = front.post(target, asking(CARS) | video, globex)
    absent = front.post(target, asking(ABSENT) | video, globex)
    assert warm.status == 404
    assert warm.comparable() == absent.comparable()
    assert front.sent() == []


@pytest.mark.parametrize("form", ["/{}", "/infer/lmm/{}", "/infer/depth-estimation/{}", "/start/{}"])
def test_so_it_is_where_the_path_names_the_model(front, form):
    assert front.post(CLASSIFY, asking(CARS), front.key("acme")).status == 200
    key = front.key("globex")
    front.notes.mark()

    def ask(model):
        if form.startswith("/start"):
            return front.send("GET", form.format(model), headers=bearer(key.token))
        return front.post(form.format(model), {"image": image()}, key)

    assert ask(CARS).status == 404
    assert ask(CARS).comparable() == ask(ABSENT).comparable()
    assert front.sent() == []


def test_without_a_key_a_warm_model_gives_nothing(front):
    assert front.post(CLASSIFY, asking(CARS), front.key("acme")).status == 200
    bare = post(front.upstream.server.url, CLASSIFY, asking(CARS))
    assert bare.status == 200, "the gap that the gateway closes is no gap any more"
    front.notes.mark()
    answer = front.post(CLASSIFY, asking(CARS))
    assert answer.status == 401
    assert front.sent() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_key_revoked_between_load_and_run_is_refused_though_the_model_is_in_memory(front, sdk, transport):
    key = front.new_key()

    def call(method, **arguments):
        return sdk.call(front.url, key.token, method, transport=transport, model_id=CARS, **arguments)

    call("load_model").returned()
    picture_of_it = image()["value"]
    call("infer", inference_input=picture_of_it).returned()
    loaded = post(front.upstream.server.url, "/model/add", {"model_id": CARS}, SERVICE_KEY).json()["models"]
    assert CARS in {model["model_id"] for model in loaded}
    front.revoke(key)
    front.notes.mark()
    refused = [
        call("infer", inference_input=picture_of_it),
        call("load_model"),
        front.post(CLASSIFY, asking(CARS), key),
    ]
    assert [one.status for one in refused] == [401, 401, 401]
    assert front.sent() == []


def test_core_models_are_nobodys_until_they_are_published(front):
    key = front.key()
    assert front.post("/clip/embed_text", {"text": "a"}, key).status == 200
    front.notes.mark()
    for target, document in (
        ("/grounding_dino/infer", {"image": image(), "text": ["a"]}),
        ("/sam/embed_image", {"image": image()}),
        ("/infer/classification", asking("grounding_dino/default")),
        ("/sam/vit_h", {}),
    ):
        assert front.post(target, document, key).status == 404, target
    assert front.sent() == []


@pytest.mark.parametrize("target", [CLASSIFY, "/infer/lmm", "/model/add"])
def test_an_alias_of_the_server_needs_the_model_behind_it(front, target):
    key = front.key()
    # A model that is in memory without this name is not found under it by the server: 503.
    post(front.upstream.server.url, "/model/remove", {"model_id": SHARED}, SERVICE_KEY)
    front.notes.mark()
    # `resnet18` is nobody's, and loads classifiers/1, which is everybody's: both are asked for.
    answer = front.post(target, asking(STATIC_ALIAS), key)
    assert answer.status == 404
    assert front.sent() == []
    front.installation.run("models", "publish", STATIC_ALIAS)
    try:
        assert front.post(target, asking(STATIC_ALIAS), key).status == 200
        front.notes.mark()
        front.installation.run("models", "unpublish", "classifiers/*")
        try:
            assert front.post(target, asking(STATIC_ALIAS), key).status == 404
        finally:
            front.installation.run("models", "publish", "classifiers/*")
        assert front.sent() == []
    finally:
        front.installation.run("models", "unpublish", STATIC_ALIAS)


def test_a_model_that_depends_on_another_tenants_is_refused(front_with, upstream):
    """The provider says what it depends on, so the gateway has to ask it."""
    front = front_with(UPSTREAM=upstream.provider.api_url, PRIVATE_UPSTREAMS="on")
    globex = front.platform_key("globex", "*")
    assert front.post(CLASSIFY, asking(GLOBEX_VANS), globex).status == 200
    front.notes.mark()
    for target in (CLASSIFY, "/model/add"):
        assert front.post(target, asking(GLOBEX_CHILD), globex).status == 404
    assert front.sent() == []


def test_each_stage_of_a_model_that_is_made_of_two_is_authorised(front):
    """`pp_ocr/small` loads a detection and a recognition model."""
    key = front.key()
    document = {"image": image()}
    front.post("/ocr/pp-ocr", document, key)
    assert {note.model for note in front.notes.all("add")} == {"pp_ocr/small-small"}
    front.installation.run("models", "unpublish", "pp-ocrv6-rec/*")
    try:
        front.notes.mark()
        assert front.post("/ocr/pp-ocr", document, key).status == 404
        assert front.post(CLASSIFY, asking("pp_ocr/small"), key).status == 404
        assert front.sent() == []
        front.post("/ocr/pp-ocr", document | {"text_recognition": "none"}, key)
        assert {note.model for note in front.notes.all("add")} == {"pp_ocr/small-none"}
    finally:
        front.installation.run("models", "publish", "pp-ocrv6-rec/*")


def test_each_model_of_a_request_has_its_decision_before_it_is_sent(front):
    key = front.key()
    before = {one["id"] for one in front.installation.records() if "id" in one}
    answer = front.post(CLASSIFY, asking(SHARED), key)
    assert answer.status == 200
    decisions = [
        one
        for one in front.installation.records()
        if one.get("id") not in before and one.get("action") == "infer"
    ]
    assert {one["resource"]["model"] for one in decisions} == {SHARED}
    assert {(one["tenant"], one["key_id"]) for one in decisions} == {("acme", key.key_id)}
    outcome = front.installation.outcome_of(answer.record_id)
    assert outcome["bytes"] == len(answer.body)


@pytest.mark.parametrize("as_multipart", [False, True])
def test_a_raw_image_of_the_legacy_route_predicts_what_it_predicts_without_the_gateway(front, as_multipart):
    key = front.key()
    if as_multipart:
        kind = "multipart/form-data; boundary=edge"
        head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        body = head + picture(side=400) + b"\r\n--edge--\r\n"
    else:
        kind, body = "application/x-www-form-urlencoded", image(side=400)["value"].encode()
    headers = (("Content-Type", kind),)
    got = front.send("POST", LEGACY, body, (*headers, *bearer(key.token)))
    bare = send(front.upstream.server.url, "POST", LEGACY, body, (*headers, *bearer(SERVICE_KEY)))
    assert got.status == 200, got.body
    assert got.json()["predictions"] == bare.json()["predictions"]
    received = [note.sha256 for note in front.notes.requests() if note.path == LEGACY]
    assert len(received) == 2
    assert len(set(received)) == 1
