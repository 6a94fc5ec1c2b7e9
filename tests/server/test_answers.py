"""What of the server's answers reaches a tenant."""

from __future__ import annotations

import json

import pytest
from gateways import SERVICE_KEY
from http_client import image, post
from tenants_models import CARS, GLOBEX_VANS

pytestmark = pytest.mark.server

CLASSIFY = "/infer/classification"


def asking(model_id, **more):
    return {"model_id": model_id, "image": image()} | more


@pytest.mark.parametrize("other", [GLOBEX_VANS, "clip/ViT-B-16", "acme/2"])
def test_nothing_is_sent_of_an_answer_that_names_another_model(front, other):
    key = front.key()
    with front.upstream.server.reporting(other):
        answer = front.post(CLASSIFY, asking(CARS), key)
    assert (answer.status, front.reason_of_end(answer)) == (503, "unexpected-model")
    for secret in (b"predictions", b"cars", other.encode()):
        assert secret not in answer.body
    assert front.post(CLASSIFY, asking(CARS), key).status == 200


def test_an_error_that_names_another_model_is_withheld_as_well(front):
    with front.upstream.server.reporting(GLOBEX_VANS):
        answer = front.post(CLASSIFY, asking(CARS, image={"type": "base64", "value": "AAAA"}), front.key())
    assert (answer.status, front.reason_of_end(answer)) == (503, "unexpected-model")


def test_response_headers_pass_by_a_list(front):
    answer = front.post(CLASSIFY, asking(CARS), front.key())
    bare = post(front.upstream.server.url, CLASSIFY, asking(CARS), SERVICE_KEY)
    assert bare.header("x-model-cold-start") is not None
    names = {name for name, _ in answer.headers}
    told = {name for name in names if name.startswith("x-model-")} - {"x-model-id"}
    assert not told
    assert not names & {"server", "x-inference-engine"}


@pytest.mark.parametrize(
    ("target", "document"),
    [
        (CLASSIFY, asking(CARS, image={"type": "base64", "value": "AAAA"})),
        (CLASSIFY, {"model_id": CARS}),
        (CLASSIFY, asking(CARS, confidence="much")),
        ("/infer/embeddings", asking(CARS)),
        ("/sam3/embed_image", {"image": image()}),
        ("/doctr/ocr", {"image": image()}),
        ("/clip/embed_image", {"image": {"type": "base64", "value": "AAAA"}}),
    ],
)
def test_an_error_of_the_server_is_a_problem_of_ours_without_its_secrets(front, target, document):
    key = front.key()
    answer = front.post(target, document, key)
    assert len(front.sent()) == 1
    assert answer.status >= 400
    assert answer.header("content-type") == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    for secret in (SERVICE_KEY, key.token, "/tmp", "Traceback", "X-Goog", "127.0.0.1"):
        assert secret not in answer.body.decode(), problem


@pytest.mark.parametrize("target", ["/readiness", "/healthz"])
def test_health_is_answered_by_the_gateway(front, target):
    answer = front.send("GET", target)
    assert answer.status == 200
    assert [note for note in front.notes.requests() if note.query] == []
