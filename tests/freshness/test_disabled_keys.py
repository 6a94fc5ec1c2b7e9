"""I6 for disabled keys: disabling is a revocation, for the key, its tokens and links, that can be undone."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from gateway.adapters.clock import SystemClock
from gateway.directory.edits import keys
from gateway.identity.links import load_link_keys
from gateway.identity.signing_keys import load_signing_keys
from gateway.model_metadata.links import Links
from tests.forged_tokens import Forge

PUBLIC_URL = "https://models.example"
TURNS = 25
CONNECTIONS = 12  # each is a connection of its own, so that every worker is asked


@pytest.fixture(scope="module")
def fleet(build_fleet):
    return build_fleet(CACHEGATE_PUBLIC_URL=PUBLIC_URL)


@pytest.fixture(scope="module")
def ways(fleet, tools):
    """Every way to ask with the key: itself, an access token and a signed link."""
    key_id, now = fleet.key_ids["acme"], SystemClock().now()
    key, *_ = load_signing_keys(fleet.installation.state / "signing" / "tokens")
    forge = Forge(
        private=key.private,
        kid=key.kid,
        url=PUBLIC_URL,
        key_id=key_id,
        tenant="acme",
        tenant_record=fleet.installation.json("tenants", "show", "acme")["record_id"],
        now=int(now),
    )
    token = forge.good(scope='"discover read infer"')
    link_keys = load_link_keys(fleet.installation.state / "signing" / "links.key")
    links = Links(
        public_url=PUBLIC_URL, keys=link_keys, link_seconds=3600, clock=SimpleNamespace(now=lambda: now)
    )
    model = tools.owned
    url = urlsplit(links.url(key_id, model, tools.package, "weights.onnx"))
    path = tools.path_of(model)
    return {
        "key": lambda: fleet.wire.get(path, fleet.tokens["acme"]).status,
        "token": lambda: fleet.wire.get(path, token).status,
        "link": lambda: fleet.wire.get(f"{url.path}?{url.query}").status,
    }


def change(fleet, edit, action):
    key_id, now = fleet.key_ids["acme"], SystemClock().now()
    done = fleet.change(lambda changes: edit(changes, key_id=key_id, now=now), action=action, key_id=key_id)
    assert done.result.is_changed
    assert done.barrier.is_sure


def test_once_disabling_or_enabling_has_returned_every_worker_answers_so_in_every_way(fleet, ways):
    for _ in range(TURNS):
        assert {name: ask() for name, ask in ways.items()} == {"key": 200, "token": 200, "link": 200}
        change(fleet, keys.disable_key, "keys.disable")
        seen = {name: {ask() for _ in range(CONNECTIONS)} for name, ask in ways.items()}
        assert seen == {"key": {401}, "token": {401}, "link": {401}}
        change(fleet, keys.enable_key, "keys.enable")
