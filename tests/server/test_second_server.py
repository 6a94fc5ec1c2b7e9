"""A second server beside the first: which of them a request goes to, and what it does where routes differ.

The second one lacks the routes that can be switched off: those of core models, the registry and some more.
"""

from __future__ import annotations

import pytest
from gateways import PROBES, SERVICE_KEY
from http_client import bearer, encoded, image, post
from tenants_models import CARS, GLOBEX_VANS, SHARED

from gateway.front_door.servers import Servers
from gateway.front_door.table import could_be_legacy, load_table
from gateway.front_door.values import Answering, Existence
from gateway.model.inference import InferenceServer
from gateway.model.names import TenantId

pytestmark = pytest.mark.server

CLASSIFY = "/infer/classification"
TABLE = load_table("1.8.3")


def asking(model_id, **more):
    return {"model_id": model_id, "image": image()} | more


def received(server):
    """What the gateway sent there, but for its probes."""
    return [note for note in server.notes.requests() if note.path not in PROBES]


@pytest.fixture
def bound(front_with, upstream, second):
    """The second server is acme's alone."""
    return front_with(INFERENCE_URL=f"{upstream.server.url},acme={second.url}")


@pytest.fixture
def either(front_with, upstream, second):
    """Both servers are everybody's."""
    return front_with(INFERENCE_URL=f"{upstream.server.url},{second.url}")


def home_of(model, *servers):
    """The server that a model belongs to, by its hash."""
    known = Servers([InferenceServer(url=one.url) for one in servers], Still())
    url = known.choose(model, TenantId("acme")).url
    return next(one for one in servers if one.url == url)


class Still:
    def monotonic(self):
        return 0.0


# Bound to a tenant


def test_a_bound_server_has_its_tenants_requests_and_no_others(bound, upstream, second):
    acme, globex = bound.key("acme"), bound.key("globex")
    for model in (CARS, SHARED):
        assert bound.post(CLASSIFY, asking(model), acme).status == 200
    assert [note.json["model_id"] for note in received(second)] == [CARS, SHARED]
    assert bound.sent() == []
    second.notes.mark()
    for model in (GLOBEX_VANS, SHARED):
        assert bound.post(CLASSIFY, asking(model), globex).status == 200
    assert [note.json["model_id"] for note in bound.sent()] == [GLOBEX_VANS, SHARED]
    assert received(second) == []


def test_what_is_recorded_says_which_server_it_was(bound, second):
    answer = bound.post(CLASSIFY, asking(CARS), bound.key("acme"))
    outcome = bound.installation.outcome_of(answer.record_id)
    assert outcome["upstream"]["server"] == second.url.removeprefix("http://")


# Several


def test_a_model_stays_on_the_server_of_its_hash_whoever_asks(either, upstream, second):
    servers = upstream.server, second
    models = []
    while {home_of(one, *servers) for one in models} != set(servers) or len(models) < 5:
        models.append(upstream.new_model(CARS))
    for _ in range(3):
        for model in models:
            assert either.post(CLASSIFY, asking(model), either.key()).status == 200
    for server in servers:
        own = [model for model in models if home_of(model, *servers) is server]
        assert [note.json["model_id"] for note in received(server)] == own * 3


# Routes that are switched off


TASKS = ("object_detection", "instance_segmentation", "semantic_segmentation", "classification")
ALWAYS_THERE = {f"/infer/{task}" for task in (*TASKS, "embeddings", "keypoints_detection")} | {"/model/add"}
SWITCHED_OFF = [
    route
    for route in TABLE.routes
    if route.exists is Existence.ALWAYS and could_be_legacy(route) and route.path not in ALWAYS_THERE
    if route.answering is Answering.PASS
]


@pytest.mark.parametrize("route", SWITCHED_OFF, ids=lambda route: route.path)
def test_a_route_that_is_switched_off_there_loads_no_model_of_its_name(bound, upstream, second, route):
    """`POST /clip/embed_text` is then a request for the model `clip/embed_text`, with the operator's key."""
    assert (route.method, route.path) not in second.notes.routes()
    name = route.path.removeprefix("/")
    upstream.provider.models[name] = upstream.provider.models[SHARED]  # so that it could be loaded
    bound.installation.run("models", "publish", "grounding_dino/*", "sam/*")
    try:
        document = {"image": image(), "text": ["a"], "subject": image(), "prompt": "a"}
        document |= {"video": {"type": "base64", "value": encoded()}} if "action" in route.path else {}
        if route.model == "member":
            document["model_id"] = CARS
        answer = bound.post(route.path, document, bound.key())
        assert len(received(second)) == 1, (answer.status, answer.body)
        assert answer.status in {404, 405, 422, 502}
        assert second.notes.all("add", "load", "infer") == []
    finally:
        bound.installation.run("models", "unpublish", "grounding_dino/*", "sam/*")
        del upstream.provider.models[name]


def test_without_the_mark_such_a_route_would_load_it(upstream, second):
    """Else the test above could not fail."""
    post(second.url, "/clip/embed_text", {"text": "a"}, SERVICE_KEY)
    assert [note.model for note in second.notes.all("add")] == ["clip/embed_text"]


def test_a_registry_that_is_switched_off_is_no_model_and_the_others_are_listed(either, upstream, second):
    key = either.key()
    post(upstream.server.url, "/model/add", {"model_id": CARS}, SERVICE_KEY)
    answer = either.send("GET", "/model/registry", headers=bearer(key.token))
    assert CARS in {one["model_id"] for one in answer.json()["models"]}
    assert len(received(second)) == 1
    assert second.notes.all("add", "load", "infer") == []


def test_doctor_names_what_is_switched_off_there(either, upstream, second):
    found = {one["name"]: one for one in either.installation.json("doctor", status=None)["checks"]}
    names = [
        f"inference server {one.url.removeprefix('http://')}: routes" for one in (upstream.server, second)
    ]
    assert found[names[0]]["status"] == "ok", found[names[0]]
    assert found[names[1]]["status"] == "warning"
    named = found[names[1]]["found"].removeprefix("switched off: ").split(", ")
    by_hand = {route.path for route in SWITCHED_OFF} | {
        *("/infer/lmm/{model_id:path}", "/infer/depth-estimation/{model_id:path}", "/model/registry")
    }
    assert set(named) == by_hand


# The end of a server


def test_when_the_second_server_dies_requests_go_on_and_its_tenants_wait(
    either, bound, upstream, second, eventually
):
    servers = upstream.server, second
    models = [upstream.new_model(CARS) for _ in range(6)]
    moving = [model for model in models if home_of(model, *servers) is second]
    while not moving:
        models.append(upstream.new_model(CARS))
        moving = [model for model in models if home_of(model, *servers) is second]
    second.kill()
    for _ in range(2):
        for model in models:
            assert either.post(CLASSIFY, asking(model), either.key()).status == 200
    assert [note.json["model_id"] for note in either.sent()] == models * 2
    # Who is bound to it is sent nowhere else.
    either.notes.mark()
    answer = bound.post(CLASSIFY, asking(CARS), bound.key("acme"))
    assert (answer.status, bound.reason(answer)) == (503, "inference-unavailable")
    assert bound.post(CLASSIFY, asking(GLOBEX_VANS), bound.key("globex")).status == 200
    assert [note.json["model_id"] for note in bound.sent()] == [GLOBEX_VANS]
