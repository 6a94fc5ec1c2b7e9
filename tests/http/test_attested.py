"""`shared_links = "attested"`: a link across owners counts only if the provider or an operator attests it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the provider beside us

from weights_provider import digest_of, site_of, urls_of

SHARED, OWN = b"weights of acme, which globex has not been given", b"of nobody else"


@pytest.fixture(scope="module")
def site(new_installation):
    with site_of(new_installation, "attested", SHARED_LINKS="attested") as site:
        yield site


@pytest.fixture(scope="module")
def acme(site):
    return site.key("acme")


@pytest.fixture(scope="module")
def globex(site):
    return site.key("globex")


def path_of(model):
    return f"/v1/models/{model}/-/pkgX1/weights.onnx"


@pytest.fixture
def forged(site, globex, eventually, request):
    """Somebody who may write to the volume put a package of globex's there that links acme's blob."""
    name = request.node.name.replace("[", "-").replace("]", "")
    content = SHARED + name.encode()
    victim, forger = f"acme/{name}/1", f"globex/{name}/1"
    for model in (victim, forger):
        site.fill(model, {"pkgX1": {"weights.onnx": content, "own.bin": OWN + model.encode()}})
    own = f"/v1/models/{forger}/-/pkgX1/own.bin"
    eventually(lambda: site.wire.get(own, globex["token"]).status == 200)
    return victim, forger, content


def test_a_forged_link_opens_nothing_by_any_way(site, globex, forged, eventually):
    _, forger, content = forged
    refused = eventually(
        lambda: (one := site.wire.get(path_of(forger), globex["token"])).status == 404 and one
    )
    absent = site.wire.get(path_of("globex/none/1"), globex["token"])
    assert refused.comparable() == absent.comparable()
    assert site.record(refused)["reason"] == "unattested"
    assert site.wire.get(f"/v1/blobs/{digest_of(content)}", globex["token"]).status == 404


def test_what_only_one_owner_links_needs_nobodys_word(site, acme, globex, forged):
    victim, forger, _ = forged
    for model, key in ((victim, acme), (forger, globex)):
        answer = site.wire.get(f"/v1/models/{model}/-/pkgX1/own.bin", key["token"])
        assert (answer.status, answer.body) == (200, OWN + model.encode())


def test_models_of_one_owner_may_share(site, acme, eventually):
    for model in ("acme/twin/1", "acme/twin/2"):
        site.fill(model, {"pkgX1": {"weights.onnx": b"of twins"}})
    for model in ("acme/twin/1", "acme/twin/2"):
        answer = eventually(
            lambda model=model: (one := site.wire.get(path_of(model), acme["token"])).status == 200 and one
        )
        assert answer.body == b"of twins"


def test_the_providers_metadata_of_that_very_model_attests(site, acme, globex, forged, eventually):
    victim, forger, content = forged
    eventually(lambda: site.wire.get(path_of(victim), acme["token"]).status == 404)
    site.provider.offer(victim, {"pkgX1": {"weights.onnx": content}})
    urls = urls_of(site.ask(victim, acme["token"]))
    assert site.follow(urls["pkgX1", "weights.onnx"]).body == content
    assert eventually(lambda: site.wire.get(path_of(victim), acme["token"]).status == 200)
    assert site.wire.get(path_of(forger), globex["token"]).status == 404
    changes = [one for one in site.installation.records() if one.get("action") == "cache.attest"]
    assert any(one["subject"] == [victim, "1 digests named by the provider"] for one in changes)


def test_an_operator_attests_what_the_manifests_list(site, acme, globex, forged, eventually):
    victim, forger, content = forged
    eventually(lambda: site.wire.get(path_of(victim), acme["token"]).status == 404)
    done = site.installation.json("cache", "attest", victim)
    assert done["changed"] is True
    answer = site.wire.get(path_of(victim), acme["token"])
    assert (answer.status, answer.body) == (200, content)
    assert site.wire.get(f"/v1/blobs/{digest_of(content)}", acme["token"]).body == content
    assert site.wire.get(path_of(forger), globex["token"]).status == 404
    assert site.installation.json("cache", "attest", victim)["changed"] is False


def test_an_operator_attests_named_digests(site, acme, forged, eventually):
    victim, _, content = forged
    eventually(lambda: site.wire.get(path_of(victim), acme["token"]).status == 404)
    site.installation.run("cache", "attest", victim, "--digests", digest_of(b"x"), digest_of(b"y"))
    assert site.wire.get(path_of(victim), acme["token"]).status == 404
    site.installation.run("cache", "attest", victim, "--digests", digest_of(content))
    assert site.wire.get(path_of(victim), acme["token"]).status == 200


def test_a_link_that_counted_is_looked_at_again_when_others_link_the_blob(site, acme, eventually):
    content = b"alone at first"
    site.fill("acme/first/1", {"pkgX1": {"weights.onnx": content}})
    assert eventually(lambda: site.wire.get(path_of("acme/first/1"), acme["token"]).status == 200)
    site.fill("globex/second/1", {"pkgX1": {"weights.onnx": content}})
    assert eventually(lambda: site.wire.get(path_of("acme/first/1"), acme["token"]).status == 404)


def test_what_is_answered_from_memory_is_looked_at_again_too(site, acme, eventually):
    content = b"alone at first, and often read"
    site.fill("acme/often/1", {"pkgX1": {"weights.onnx": content}})
    before = site.gateway.metrics()["cachegate_answers_at_once_total"]

    with site.wire.talk() as conversation:

        def status():
            return conversation.get(path_of("acme/often/1"), acme["token"]).status

        def comes_from_memory():
            assert status() in {200, 404}
            return site.gateway.metrics()["cachegate_answers_at_once_total"] > before

        eventually(comes_from_memory)
        site.fill("globex/often/1", {"pkgX1": {"weights.onnx": content}})
        assert eventually(lambda: status() == 404)


def test_of_a_model_that_is_not_there_nothing_can_be_attested_unnamed(site):
    done = site.installation.run("cache", "attest", "acme/nowhere/1", status=1)
    assert "no package of acme/nowhere/1" in done.stderr
