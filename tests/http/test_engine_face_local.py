"""The engine face without a provider: answers from the content of the cache."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import sample_directory

sys.path.append(str(Path(__file__).parent))  # the provider beside us

from weights_provider import PUBLIC_URL, STAT, WEIGHTS, site_of, urls_of

PACKAGES = {"pkgA1": {"weights.onnx": b"weights", "labels.txt": b"car\n"}, "pkgA2": {"weights.onnx": b"two"}}


@pytest.fixture(scope="module")
def site(new_installation):
    with site_of(new_installation, "local-face", has_upstream=False) as site:
        site.fill("acme/cars/1", PACKAGES)
        yield site


@pytest.fixture(scope="module")
def acme(site):
    return site.key("acme")


def test_everything_that_the_cache_has_is_offered_and_opens(site, acme):
    answer = site.ask("acme/cars/1", acme["token"])
    assert answer.status == 200
    assert answer.json()["modelMetadata"]["modelId"] == "acme/cars/1"
    urls = urls_of(answer)
    assert set(urls) == {(package, handle) for package, files in PACKAGES.items() for handle in files}
    for (package, handle), url in urls.items():
        assert site.follow(url).body == PACKAGES[package][handle]


def test_two_answers_are_the_same_to_the_byte(site, acme):
    first, second = (site.ask("acme/cars/1", acme["token"]) for _ in range(2))
    assert first.body.partition(b"?se=")[0] == second.body.partition(b"?se=")[0]


def test_what_is_absent_and_what_is_not_ones_own_are_one_answer(site, acme):
    site.fill("globex/cars/1", {"pkgG1": {"weights.onnx": b"of globex"}})
    answers = [
        site.ask(model, acme["token"]) for model in ("acme/nothing/1", "globex/cars/1", "globex/none/1")
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.comparable() for answer in answers}) == 1


def test_stat_is_the_head_of_the_answer(site, acme):
    answer = site.ask("acme/cars/1", acme["token"], path=STAT)
    assert answer.status == 200
    metadata = answer.json()["modelMetadata"]
    assert {"modelArchitecture", "taskType", "modelId", "modelLatencyMs"} <= metadata.keys()
    assert "modelPackages" not in metadata
    assert site.ask("acme/nothing/1", acme["token"], path=STAT).status == 404


def test_a_page_that_was_never_announced_is_refused(site, acme):
    assert site.ask("acme/cars/1", acme["token"], more="&startAfter=2").status == 400


@pytest.mark.parametrize("record", [b"{", b"[]", b"\xff" * 100])
def test_a_damaged_record_costs_no_answer(site, acme, record):
    registry = site.installation.cache_root / "offline-weights-registry"
    registry.mkdir(exist_ok=True)
    (registry / f"{sample_directory('acme/cars/1')}.json").write_bytes(record)
    assert site.ask("acme/cars/1", acme["token"]).status == 200
    assert site.gateway.metrics()["cachegate_damaged_registry_records_total"] >= 1


def test_a_record_that_is_a_link_is_not_followed(site, acme, tmp_path):
    site.fill("acme/linked/1", {"pkgL1": {"weights.onnx": b"linked"}})
    registry = site.installation.cache_root / "offline-weights-registry"
    registry.mkdir(exist_ok=True)
    (registry / f"{sample_directory('acme/linked/1')}.json").symlink_to(tmp_path / "elsewhere.json")
    assert site.ask("acme/linked/1", acme["token"]).status == 200


def test_an_engine_that_asks_its_default_host_is_answered_by_us(site, acme):
    url = "https://api.roboflow.com/models/v1/external/weights?modelId=acme%2Fcars%2F1"
    answer = site.ask_wrapped(url, acme["token"])
    assert answer.status == 200
    for url in urls_of(answer).values():
        assert url.startswith(f"{PUBLIC_URL}/proxy?url=")


def test_without_a_public_url_none_of_it_is_there(new_installation):
    installation = new_installation("no-face")
    gateway = installation.serve()
    try:
        token = installation.admin_key
        for path in (f"{WEIGHTS}?modelId=a%2Fb", "/proxy?url=x", "/health", "/d/a/b/-/p/f?se=1&sig=x"):
            answer = gateway.wire.get(path, token)
            assert answer.status == 404, path
    finally:
        gateway.stop()
