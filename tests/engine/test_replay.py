"""A second tenant that has seen every request of the first, and sends each of them again.

A signed URL carries the authority of the key that it was made for: the engine's downloads send nothing else.
A request with more, another key or another signature, has two authorities and is refused.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from catalogue import ABSENT, CARS, GLOBEX_CARS
from tenant import WAYS
from window import changed

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]

REFUSED = {400, 401, 404}


@pytest.fixture
def replay(guarded, join, way):
    """What acme's loads asked for, and globex, who has all of it."""
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    client = join(guarded, way, "acme")
    client.load(CARS, acme.key).loaded()
    return Replay(guarded, acme, globex)


class Replay:
    def __init__(self, guarded, acme, globex):
        self.guarded, self.acme, self.globex = guarded, acme, globex
        seen = guarded.requests
        self.metadata = sorted({one.target for one in seen if one.is_metadata})
        self.downloads = sorted({one.target for one in seen if one.is_download})
        assert len(self.metadata) == 1
        assert len(self.downloads) == 3

    def send(self, target, key=None, method="GET"):
        return self.guarded.gateway.wire.request(method, target, key)

    def statuses(self, targets, key=None):
        return [self.send(target, key, method).status for target in targets for method in ("HEAD", "GET")]


def test_the_metadata_is_nobodys_without_a_key_and_not_found_with_another(replay):
    assert {replay.send(target).status for target in replay.metadata} == {401}
    assert {replay.send(target, replay.globex.key).status for target in replay.metadata} == {404}
    assert {replay.send(target, replay.acme.key).status for target in replay.metadata} == {200}


def test_another_tenants_key_beside_the_signature_opens_nothing(replay):
    assert set(replay.statuses(replay.downloads, replay.globex.key)) <= REFUSED


def test_without_its_signature_a_path_opens_nothing(replay):
    bare = [changed(target, query=lambda _: "") for target in replay.downloads]
    assert set(replay.statuses(bare)) <= REFUSED
    assert set(replay.statuses(bare, replay.globex.key)) <= REFUSED


def test_ones_own_signature_opens_no_other_path(replay, join, way):
    replay.guarded.begin()
    join(replay.guarded, way, "globex").load(GLOBEX_CARS, replay.globex.key).loaded()
    own = next(urlsplit(one.url).query for one in replay.guarded.downloads("GET"))
    forged = [changed(target, query=lambda _: own) for target in replay.downloads]
    assert set(replay.statuses(forged)) <= REFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"path": lambda path: path.replace("weights.onnx", "class_names.txt")},
        {"path": lambda path: path.replace(CARS, ABSENT)},
        {"path": lambda path: path.replace(CARS, GLOBEX_CARS)},
        {"path": lambda path: path.replace("pkgA1", "pkgA2")},
        {"query": lambda query: query.replace("se=", "se=9")},
        {"query": lambda query: query[:-1] + ("A" if query[-1] != "A" else "B")},
    ],
    ids=["file", "absent model", "other model", "package", "expiry", "last character"],
)
def test_a_signature_is_bound_to_all_that_it_names(replay, changes):
    weights = next(one for one in replay.downloads if "weights" in one)
    other = changed(weights, **changes)
    assert other != weights
    assert replay.statuses([changed(weights)]) == [200, 200]
    assert set(replay.statuses([other])) <= REFUSED


def test_a_signature_ends_with_its_key(replay):
    assert set(replay.statuses(replay.downloads)) == {200}
    replay.guarded.revoke(replay.acme)
    assert set(replay.statuses(replay.downloads)) <= {401, 404}


def test_a_digest_opens_nothing(replay, filled):
    """I2: the name of a blob is no right on it, in no spelling of it."""
    weights = next(filled.root.glob("models-cache/*/pkgA1/weights.onnx")).resolve().name
    for path in (f"/v1/blobs/{weights}", f"/d/{weights}", f"/shared-blobs/{weights}"):
        assert replay.send(path, replay.globex.key).status in REFUSED
        assert replay.send(path).status in REFUSED
