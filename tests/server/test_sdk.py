"""The unmodified SDK with a new host name: what is open works as before, what is closed stays closed."""

from __future__ import annotations

from itertools import product
from urllib.parse import parse_qsl

import pytest
from calls import CLOSED, FAILING, PREDICTING
from gateways import SERVICE_KEY
from http_client import encoded
from sdk import TRANSPORTS
from tenants_models import ALIAS, ALIASES, CARS, GLOBEX_VANS, SHARED, STATIC_ALIAS

pytestmark = pytest.mark.server

VARYING = {"time", "inference_id", "detection_id"}
RESOLVED = ALIASES | {STATIC_ALIAS: SHARED}


def comparable(result):
    """A result without what is another in every answer."""
    if isinstance(result, dict):
        return {name: comparable(value) for name, value in result.items() if name not in VARYING}
    return [comparable(one) for one in result] if isinstance(result, list) else result


@pytest.fixture(scope="module")
def without_gateway(_upstream, sdk):
    """What the operator's key gets from the server itself, asked once for each call."""
    known = {}

    def find(call):
        if str((call, call.arguments)) not in known:
            _upstream.provider.grant(SERVICE_KEY, "*")
            known[str((call, call.arguments))] = sdk.call(
                _upstream.server.url, SERVICE_KEY, call.method, version=call.version, **call.arguments
            )
        return known[str((call, call.arguments))]

    return find


def keys_in(note):
    """All keys of a request that reached the server, by their places."""
    found = [("query", value) for name, value in parse_qsl(note.query, True) if "key" in name.lower()]
    found += [("header", value) for name, value in note.headers if name.lower() == "authorization"]
    if isinstance(note.json, dict) and "api_key" in note.json:
        found.append(("body", note.json["api_key"]))
    return found


def assert_only_the_service_key(front, key):
    for note in front.sent():
        assert keys_in(note) in ([("header", f"Bearer {SERVICE_KEY}")], []), note
        assert key.token not in repr(note.values), note
    for note in front.notes.all("add", "load", "infer"):
        assert note.key in (SERVICE_KEY, None), note  # `infer` repeats the body's key, which is out


@pytest.mark.parametrize(("call", "transport"), list(product(PREDICTING, TRANSPORTS)), ids=str)
def test_a_method_predicts_what_it_predicts_without_the_gateway(front, sdk, without_gateway, call, transport):
    expected = without_gateway(call).returned()
    key = front.key()
    front.notes.mark()
    outcome = sdk.call(
        front.url, key.token, call.method, transport=transport, version=call.version, **call.arguments
    )
    assert comparable(outcome.returned()) == comparable(expected)
    used = [note.model for note in front.notes.all("infer")]
    assert used == list(call.models)
    assert_only_the_service_key(front, key)


@pytest.mark.parametrize(("call", "transport"), list(product(FAILING, TRANSPORTS)), ids=str)
def test_a_method_reaches_the_same_model_where_the_server_fails(front, sdk, without_gateway, call, transport):
    bare = without_gateway(call)
    assert bare.status == call.status
    key = front.key()
    front.notes.mark()
    outcome = sdk.call(front.url, key.token, call.method, transport=transport, **call.arguments)
    assert not outcome.ok
    assert outcome.status is not None
    assert outcome.status >= 400
    assert {note.model for note in front.notes.all("add")} == set(call.models), outcome
    assert SERVICE_KEY not in (outcome.message or "")
    assert_only_the_service_key(front, key)


@pytest.mark.parametrize("call", CLOSED, ids=str)
def test_what_is_closed_is_refused_and_not_sent(front, sdk, call):
    outcome = sdk.call(front.url, front.key().token, call.method, **call.arguments)
    assert (outcome.ok, outcome.status) == (False, 404)
    assert front.sent() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", ["", "_async"])
def test_a_caller_lists_the_models_that_it_may_infer_and_no_others(front, sdk, transport, way):
    acme, globex = front.key("acme"), front.key("globex")
    sdk.call(front.url, acme.token, "load_model", transport=transport, model_id=CARS).returned()
    sdk.call(front.url, globex.token, "load_model", transport=transport, model_id=GLOBEX_VANS).returned()
    sdk.call(front.url, globex.token, "load_model", transport=transport, model_id=SHARED).returned()

    def listed(key):
        found = sdk.call(front.url, key.token, "list_loaded_models" + way, transport=transport).returned()
        return {model["model_id"] for model in found["models"]}

    assert {CARS, SHARED} <= listed(acme)
    assert {GLOBEX_VANS, SHARED} <= listed(globex)
    assert not any(model.startswith("globex/") for model in listed(acme))
    assert not any(model.startswith("acme/") for model in listed(globex))


@pytest.mark.parametrize("way", ["", "_async"])
def test_loading_lists_no_model_of_another_tenant(front, sdk, way):
    sdk.call(front.url, front.key("globex").token, "load_model", model_id=GLOBEX_VANS).returned()
    answer = sdk.call(front.url, front.key("acme").token, "load_model" + way, model_id=CARS).returned()
    names = {model["model_id"] for model in answer["models"]}
    assert CARS in names
    assert not any(name.startswith("globex/") for name in names)


@pytest.mark.parametrize("way", ["", "_async"])
def test_a_model_is_described(front, sdk, way):
    described = sdk.call(
        front.url, front.key().token, "get_model_description" + way, model_id=CARS, allow_loading=True
    ).returned()
    assert (described["model_id"], described["task_type"]) == (CARS, "classification")


@pytest.mark.parametrize("key", [None, "a key"])
def test_the_servers_information_is_ours_and_needs_no_key(front, sdk, key):
    one, other = (sdk.call(front.url, key, "get_server_info").returned() for _ in range(2))
    assert one == other
    assert one["uuid"]
    bare = sdk.call(front.upstream.server.url, None, "get_server_info").returned()
    assert one["uuid"] != bare["uuid"]
    assert one["version"]  # of the gateway
    assert [note for note in front.notes.requests() if note.path.startswith("/inference")] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_alias_is_one_model_whether_listed_or_not(front, sdk, transport):
    key = front.key()
    for _ in range(2):
        result = sdk.call(
            front.url, key.token, "infer", transport=transport, inference_input=encoded(), model_id=ALIAS
        ).returned()
        assert result["resolved_model"]["model_id"] == RESOLVED[ALIAS]
