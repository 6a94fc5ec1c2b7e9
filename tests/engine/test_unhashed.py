"""Files without a digest: bound to the host and path of their URL, for as long as a client keeps them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from catalogue import HEAVY, LOOSE
from tenant import WAYS

pytestmark = pytest.mark.engine

in_both_ways = pytest.mark.parametrize("way", WAYS)
WITHOUT_A_DIGEST = {"download_files_without_hash": True}


@in_both_ways
@pytest.mark.parametrize("model", [LOOSE, HEAVY])
def test_they_load_for_those_who_take_them(guarded, provider, join, filled, way, model):
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(model, acme.key, **WITHOUT_A_DIGEST).loaded()
    assert outcome.prediction == filled.prediction(model)
    assert provider.seen("storage") == []


@in_both_ways
def test_a_large_one_is_fetched_whole(guarded, join, way):
    """With ranges the engine would compare the MD5 of the whole with none, and refuse it."""
    acme = guarded.tenant("acme")
    join(guarded, way, "acme").load(HEAVY, acme.key, **WITHOUT_A_DIGEST).loaded()
    weights = [one for one in guarded.downloads("GET") if "weights.onnx" in one.url]
    assert [one.headers.get("range") for one in weights] == [None]


@in_both_ways
def test_they_stay_refused_for_those_who_do_not(guarded, join, way):
    acme = guarded.tenant("acme")
    outcome = join(guarded, way, "acme").load(LOOSE, acme.key)
    assert outcome.exception == "ModelPackageAlternativesExhaustedError"


@in_both_ways
def test_a_later_load_takes_the_new_signature_for_the_same_file(guarded, join, filled, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    for _ in range(2):
        outcome = client.load(LOOSE, acme.key, **WITHOUT_A_DIGEST).loaded()
        assert outcome.prediction == filled.prediction(LOOSE)


@in_both_ways
def test_a_provider_that_moves_its_files_moves_nothing_for_clients(guarded, provider, join, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(LOOSE, acme.key, **WITHOUT_A_DIGEST).loaded()
    provider.bucket = "elsewhere"
    assert client.load(LOOSE, acme.key, **WITHOUT_A_DIGEST).ok


@in_both_ways
def test_another_key_of_the_tenant_finds_them_where_they_were(guarded, join, way):
    first, second = guarded.tenant("acme"), guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(LOOSE, first.key, **WITHOUT_A_DIGEST).loaded()
    client.load(LOOSE, second.key, **WITHOUT_A_DIGEST).loaded()


def test_host_and_path_are_the_same_in_every_answer(guarded):
    acme = guarded.tenant("acme")
    urls = set()
    for _ in range(2):
        answer = guarded.gateway.wire.get(f"/models/v1/external/weights?modelId={LOOSE}", acme.key)
        packages = answer.json()["modelMetadata"]["modelPackages"]
        files = {one["fileHandle"]: one for package in packages for one in package["packageFiles"]}
        url = urlsplit(files["class_names.txt"]["downloadUrl"])
        urls.add((url.scheme, url.netloc, url.path))
    assert len(urls) == 1


def test_without_the_gateway_a_large_one_loads_only_from_a_storage_without_ranges(provider, start, home):
    """The engine compares the MD5 of the whole with the none that it was told."""
    key = "acme-platform-key-1"
    provider.grant(key, "acme/*")
    client = start(home, ROBOFLOW_API_HOST=provider.api_url)
    refused = client.load(HEAVY, key, **WITHOUT_A_DIGEST)
    assert "FileHashSumMissmatch" in refused.message
    with provider.behaving("storage", has_ranges=False):
        assert client.load(HEAVY, key, **WITHOUT_A_DIGEST).ok


def test_without_the_gateway_a_moved_file_makes_the_package_unloadable(provider, start, home):
    """Why host and path may never change: there is no way back but to delete the package."""
    key = "acme-platform-key-1"
    provider.grant(key, "acme/*")
    client = start(home, ROBOFLOW_API_HOST=provider.api_url, AUTO_LOADER_CACHE_EXPIRATION_MINUTES="0")
    client.load(LOOSE, key, **WITHOUT_A_DIGEST).loaded()
    client.load(LOOSE, key, **WITHOUT_A_DIGEST).loaded()
    provider.bucket = "elsewhere"
    outcome = client.load(LOOSE, key, **WITHOUT_A_DIGEST)
    assert outcome.exception == "ModelPackageAlternativesExhaustedError"
    assert "Refusing to mutate" in outcome.message
