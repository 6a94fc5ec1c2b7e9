"""What settings change of the way of a request: keys of the platform, no key of ours, the root as mount."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress

import pytest
from gateways import SERVICE_KEY
from http_client import bearer, image
from tenants_models import CARS, GLOBEX_VANS

pytestmark = pytest.mark.server

CLASSIFY = "/infer/classification"


def asking(model_id, **more):
    return {"model_id": model_id, "image": image()} | more


def keys_that_came(notes):
    """Every key that the server was sent or loaded a model with."""
    named = {
        value.removeprefix("Bearer ")
        for note in notes.requests()
        for name, value in note.headers
        if name.lower() == "authorization"
    }
    return named | {note.key for note in notes.all("add", "load", "infer") if note.key is not None}


# Keys of the platform


@pytest.fixture
def front_of_platform(front_with, upstream):
    """Whose keys and rights the platform alone knows."""
    return front_with(UPSTREAM=upstream.provider.api_url, PRIVATE_UPSTREAMS="on", AUTHORITY="platform")


@pytest.mark.parametrize("place", ["header", "query", "body"])
def test_a_key_of_the_platform_goes_to_the_server_as_it_came_and_no_other_does(
    front_of_platform, upstream, place
):
    front, token = front_of_platform, secrets.token_hex(10)
    upstream.provider.grant(token, "acme/*")
    model = upstream.new_model(CARS)  # nobody has loaded it: with whose key it is loaded, the server tells
    query = f"?api_key={token}" if place == "query" else ""
    body = asking(model, **({"api_key": token} if place == "body" else {}))
    headers = (("Content-Type", "application/json"), *(bearer(token) if place == "header" else ()))
    answer = front.send("POST", CLASSIFY + query, json.dumps(body).encode(), headers)
    assert answer.status == 200, (answer.body, front.explain(answer))
    assert answer.json()["resolved_model"]["model_id"] == model
    assert keys_that_came(front.notes) == {token}
    seen = [one for one in upstream.provider.seen("api") if one.model_id == model]
    asked = {one.headers.get("authorization") for one in seen}
    assert asked == {f"Bearer {token}"}, "nobody asks the platform with another key"
    assert token not in json.dumps(front.installation.records())


def test_what_the_platform_refuses_to_a_key_is_not_sent_though_the_model_is_in_memory(
    front_of_platform, upstream
):
    front, acme, globex = front_of_platform, secrets.token_hex(10), secrets.token_hex(10)
    upstream.provider.grant(acme, "acme/*")
    upstream.provider.grant(globex, "globex/*")
    assert front.post(CLASSIFY, asking(CARS, api_key=acme)).status == 200
    front.notes.mark()
    refused = front.post(CLASSIFY, asking(CARS, api_key=globex))
    unknown = front.post(CLASSIFY, asking(CARS, api_key=secrets.token_hex(10)))
    assert (refused.status, unknown.status) == (404, 401)
    assert front.sent() == []


# No service key


def test_without_a_service_key_keys_of_ours_run_nothing_and_say_so(front_with):
    front = front_with(INFERENCE_KEY="")
    key = front.key()
    for answer in (
        front.post(CLASSIFY, asking(CARS), key),
        front.post("/model/add", {"model_id": CARS}, key),
        front.send("GET", "/model/registry", headers=bearer(key.token)),
    ):
        assert (answer.status, front.reason(answer)) == (403, "no-service-key")
        assert answer.json()["type"] == "urn:cachegate:problem:no-service-key"
    # What is refused anyhow is refused as ever: the reason tells nobody what exists.
    assert front.post(CLASSIFY, asking(GLOBEX_VANS), key).status == 404
    assert front.sent() == []


# The mount


@pytest.fixture
def front_at_root(front_with):
    return front_with(INFERENCE_MOUNT="/")


def test_at_the_root_the_sdk_needs_the_host_alone(front_at_root, sdk):
    key = front_at_root.key()
    found = sdk.call(
        front_at_root.url, key.token, "infer", inference_input=image()["value"], model_id=CARS
    ).returned()
    assert found["resolved_model"]["model_id"] == CARS
    legacy = front_at_root.send(
        "POST", f"/{CARS}", image()["value"].encode(), (("Content-Type", "text/plain"), *bearer(key.token))
    )
    assert legacy.json()["resolved_model"]["model_id"] == CARS


def test_at_the_root_our_own_routes_come_first(front_at_root):
    front, key = front_at_root, front_at_root.key()
    assert front.send("GET", "/v1/whoami", headers=bearer(key.token)).json()["tenant"] == "acme"
    front.notes.mark()
    for target in ("/v1/models", "/v1/models/acme/1"):
        assert front.send("GET", target, headers=bearer(key.token)).status in {200, 404}
    assert front.sent() == []


@pytest.mark.parametrize(
    "target",
    ["/v1/1", "/%761/1", "/models/1", "/d/7", "/admin/2", "/.well-known/1", "/proxy/3?confidence=0.4"],
)
def test_at_the_root_a_legacy_request_for_a_reserved_name_is_refused_with_a_hint(front_at_root, target):
    front = front_at_root
    answer = front.send("POST", target, b"AAAA", (("Content-Type", "text/plain"), *bearer(front.key().token)))
    assert (answer.status, front.reason(answer)) == (400, "reserved-path")
    assert "in the body, on its task's route" in answer.json()["detail"]
    assert front.sent() == []


# A key ends


def rest_of(connection):
    """What still comes before the connection ends, in whatever way."""
    received = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            received += piece
    return received


def outcome_of(front, key):
    found = [one for one in front.installation.records() if one.get("key_id") == key.key_id]
    return next((one for one in found if one["kind"] == "outcome"), None)


@pytest.mark.parametrize("part", ["head", "body"])
def test_when_the_client_leaves_the_servers_connection_is_closed(front, eventually, part):
    key = front.new_key()
    with front.upstream.server.holding(part):
        connection = front.begin(CLASSIFY, asking(CARS), key)
        [request] = eventually(front.sent)  # the gateway also asks whether the server is ready
        if part == "body":
            eventually(lambda: front.notes.of(request, "answer"))
        connection.close()
        eventually(lambda: front.notes.of(request, "left"))
    outcome = eventually(lambda: outcome_of(front, key))
    assert outcome["ending"] == "client-gone"


def test_a_revocation_while_the_server_works_ends_the_request(front, eventually):
    key = front.new_key()
    with front.upstream.server.holding("head"):
        connection = front.begin(CLASSIFY, asking(CARS), key)
        eventually(lambda: front.notes.all("infer"))
        front.revoke(key)
        with connection:
            assert rest_of(connection) == b""
        eventually(lambda: front.notes.all("left"))
    assert eventually(lambda: outcome_of(front, key))["ending"] == "revoked"
    assert len(front.sent()) == 1


def test_a_revocation_cuts_an_answer_that_has_begun(front, eventually):
    key = front.new_key()
    with front.upstream.server.holding("body"):
        drawn = asking(CARS, image=image(side=600), visualize_predictions=True)  # too large to be read whole
        connection = front.begin(CLASSIFY, drawn, key)
        received = b""
        while b"\r\n\r\n{" not in received:
            received += connection.recv(1 << 16)
        front.revoke(key)
        with connection:
            received += rest_of(connection)
        eventually(lambda: front.notes.all("left"))
    head, _, body = received.partition(b"\r\n\r\n")
    [length] = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line]
    assert len(body) < length
    assert eventually(lambda: outcome_of(front, key))["ending"] == "revoked"


def test_between_load_and_run_a_right_that_was_taken_away_counts(front):
    """Not the key but the grant ends: the model is in the server's memory, and stays out of reach."""
    grant = ("--tenant", "acme", "--models", GLOBEX_VANS, "--actions", "infer")
    key = front.key()
    front.installation.run("grants", "add", *grant)
    assert front.post("/model/add", {"model_id": GLOBEX_VANS}, key).status == 200
    assert front.post(CLASSIFY, asking(GLOBEX_VANS), key).status == 200
    front.installation.run("grants", "remove", *grant)
    front.notes.mark()
    for target in ("/model/add", CLASSIFY):
        assert front.post(target, asking(GLOBEX_VANS), key).status == 404
    assert front.sent() == []


# What a prediction names


def test_a_model_behind_a_name_that_was_not_authorised_is_not_named(front, upstream):
    """Only the provider knows what is behind its names: without an upstream, nobody was asked."""
    name = upstream.new_model(CARS)
    with upstream.standing_for(name, GLOBEX_VANS):
        answer = front.post(CLASSIFY, asking(name), front.key())
    assert answer.status == 200, answer.body
    assert answer.json()["resolved_model"]["model_id"] == ""
    assert GLOBEX_VANS.encode() not in answer.body


def test_a_model_that_was_loaded_when_its_name_stood_for_another_is_found_out(front_with, upstream):
    """The server keeps what it has loaded. What the provider says by now is what was authorised."""
    front = front_with(UPSTREAM=upstream.provider.api_url, PRIVATE_UPSTREAMS="on")
    key, name = front.key(), upstream.new_model(CARS)
    with upstream.standing_for(name, GLOBEX_VANS):
        front.load_directly(name)
    answer = front.post(CLASSIFY, asking(name), key)
    assert (answer.status, front.reason_of_end(answer)) == (503, "unexpected-model")
    for secret in (GLOBEX_VANS.encode(), b"predictions", SERVICE_KEY.encode(), key.token.encode()):
        assert secret not in answer.body
