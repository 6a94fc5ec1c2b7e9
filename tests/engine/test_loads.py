"""The unmodified engine loads through the gateway what it loads without, in both of its ways.

"The same" is the prediction, to the last bit, of what the operator's engine loaded from the provider.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import pytest
from catalogue import (
    ALIAS,
    BOXES,
    CARS,
    FIRST_OF_MANY,
    FRESH,
    GLOBEX_CARS,
    LARGE,
    MANY,
    MID,
    PARENT,
    SECOND_OF_MANY,
)
from provider import WEIGHTS
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]

MEBIBYTE = 1 << 20


def test_a_cold_load_predicts_as_without_the_gateway(guarded, provider, join, filled, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    for model in (CARS, BOXES, MID, LARGE):
        assert client.load(model, acme.key).loaded().prediction == filled.prediction(model), model
    assert provider.seen("storage") == [], "what is in the cache is not fetched again"


@pytest.mark.parametrize("model", [PARENT, ALIAS])
def test_a_dependency_and_an_alias_are_followed_from_nothing(guarded, join, filled, way, model):
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(model, acme.key).loaded()
    assert outcome.prediction == filled.prediction(model)
    asked = {urlsplit(one.url).path for one in guarded.downloads("GET")}
    assert f"/d/{CARS}/-/pkgA1/weights.onnx" in asked


def test_each_of_several_packages_is_the_one_that_was_asked_for(guarded, provider, join, filled, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    provider.page_size = 1
    for package in (FIRST_OF_MANY, SECOND_OF_MANY):
        outcome = client.load(MANY, acme.key, model_package_id=package).loaded()
        assert outcome.prediction == filled.prediction(MANY, package)
    assert filled.prediction(MANY, FIRST_OF_MANY) != filled.prediction(MANY, SECOND_OF_MANY)


def test_a_warm_load_asks_for_the_metadata_and_downloads_nothing(guarded, join, filled, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(CARS, acme.key).loaded()
    guarded.begin()
    outcome = client.load(CARS, acme.key).loaded()
    assert outcome.prediction == filled.prediction(CARS)
    assert [one.is_metadata for one in guarded.requests] == [True]


def test_the_key_goes_with_the_metadata_and_never_with_a_download(guarded, join, way):
    acme = guarded.tenant("acme")
    join(guarded, way, "acme").load(CARS, acme.key).loaded()
    assert Counter(one.method for one in guarded.downloads()) == {"HEAD": 3, "GET": 3}
    assert not [one for one in guarded.downloads() if "authorization" in one.headers]
    metadata = [one for one in guarded.requests if one.is_metadata]
    assert [one.headers["authorization"] for one in metadata] == [f"Bearer {acme.key}"]


def test_every_request_of_a_client_goes_to_the_gateway(guarded, join, way):
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(PARENT, acme.key).loaded()
    assert set(outcome.network) == {urlsplit(guarded.window.url).netloc}


@pytest.mark.parametrize(
    ("model", "step", "parts"), [(MID, 16 * MEBIBYTE, 3), (LARGE, None, 8)], ids=["40 MiB", "140 MiB"]
)
def test_a_large_file_is_fetched_in_ranges_at_once(guarded, join, filled, way, model, step, parts):
    acme = guarded.tenant("acme")
    join(guarded, way, "acme").load(model, acme.key).loaded()
    ranges = [one.headers["range"] for one in guarded.downloads("GET") if "range" in one.headers]
    starts = sorted(int(one.removeprefix("bytes=").partition("-")[0]) for one in ranges)
    assert len(starts) == parts
    if step is not None:
        assert starts == [number * step for number in range(parts)]


def test_two_tenants_on_one_blob_each_load_it_under_their_own_name(guarded, join, filled, way):
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    ours = join(guarded, way, "acme").load(CARS, acme.key).loaded()
    theirs = join(guarded, way, "globex").load(GLOBEX_CARS, globex.key).loaded()
    assert (ours.prediction, theirs.prediction) == (
        filled.prediction(CARS),
        filled.prediction(GLOBEX_CARS),
    )
    assert ours.class_names != theirs.class_names
    asked = [urlsplit(one.url).path for one in guarded.downloads("GET")]
    assert [path for path in asked if path.startswith(f"/d/{CARS}/-/")]
    assert [path for path in asked if path.startswith(f"/d/{GLOBEX_CARS}/-/")]


def test_a_model_that_is_not_in_the_cache_is_fetched_from_the_provider(guarded, provider, join, way):
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(FRESH, acme.key).loaded()
    assert Counter(one.method for one in provider.seen("storage")) == {"HEAD": 3, "GET": 3}
    assert outcome.class_names[-1] == "vans"
    if way == "host":
        assert urlsplit(provider.storage_url).netloc in outcome.network


def test_a_relay_keeps_clients_away_from_the_storage(guard, provider, join, way):
    guarded = guard(relay=True)
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(FRESH, acme.key).loaded()
    assert set(outcome.network) == {urlsplit(guarded.window.url).netloc}
    assert {one.path.rpartition("/")[2] for one in provider.seen("storage", "GET")} == {
        "weights.onnx",
        "class_names.txt",
        "inference_config.json",
    }


def test_extra_parameters_reach_the_provider_and_internal_headers_do_not(
    guarded, provider, join, unseen, way
):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(
        unseen,
        acme.key,
        weights_provider_extra_query_params=[["mark", "of the test"], ["mark", "twice"]],
        weights_provider_extra_headers={"X-Roboflow-Internal-Service-Secret": "a guess"},
    ).loaded()
    asked = [one.pairs for one in provider.seen("api") if one.path == WEIGHTS]
    assert [value for name, value in asked[0] if name == "mark"] == ["of the test", "twice"]
    assert not [one for one in provider.seen() if "x-roboflow-internal-service-secret" in one.headers]


def test_the_provider_is_asked_with_the_tenants_own_key(guarded, provider, join, unseen, way):
    acme = guarded.tenant("acme")
    join(guarded, way, "acme").load(unseen, acme.key).loaded()
    asked = [one.headers.get("authorization") for one in provider.seen("api")]
    assert set(asked) == {f"Bearer {acme.key}"}
