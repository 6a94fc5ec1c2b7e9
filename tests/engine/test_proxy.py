"""`/proxy` is no open proxy: it requests only the platform's API and URLs that it handed out itself."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import quote, urlsplit

import pytest
from catalogue import CARS, FRESH

pytestmark = pytest.mark.engine

REFUSED = {400, 401, 403, 404}


class Bystander:
    """A server that has nothing to do with it, and counts who comes."""

    def __init__(self):
        self.visits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.visits += 1
                connection.close()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def bystander():
    running = Bystander()
    yield running
    running.close()


def through(guarded, url, key, method="GET"):
    return guarded.gateway.wire.request(method, f"/proxy?url={quote(url, safe='')}", key)


HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/models/v1/external/weights?modelId=acme/cars/1",
    "http://{api}@127.0.0.1:{port}/models/v1/external/weights",
    "http://127.0.0.1:{port}#@{api}/models/v1/external/weights",
    "http://127.0.0.1:{port}\\@{api}/",
    "http://0x7f000001:{port}/",
    "http://2130706433:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file:///etc/hostname",
    "http%3A%2F%2F127.0.0.1:{port}%2F",
    "",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_other_host_is_reached_however_it_is_spelt(guarded, provider, bystander, pattern, method):
    acme = guarded.tenant("acme") if method == "GET" else None
    url = pattern.format(port=bystander.port, api=urlsplit(provider.api_url).netloc)
    answer = through(guarded, url, acme.key if acme else None, method)
    assert answer.status in REFUSED
    assert bystander.visits == 0
    assert provider.seen() == []


def test_two_urls_are_none(guarded, provider, bystander):
    acme = guarded.tenant("acme")
    good = quote(f"{provider.api_url}/models/v1/external/weights?modelId={CARS}", safe="")
    bad = quote(f"http://127.0.0.1:{bystander.port}/", safe="")
    assert guarded.gateway.wire.get(f"/proxy?url={good}", acme.key).status == 200
    for target in (f"/proxy?url={good}&url={bad}", f"/proxy?url={bad}&url={good}"):
        assert guarded.gateway.wire.get(target, acme.key).status in REFUSED
    assert bystander.visits == 0


def test_a_signed_url_of_the_storage_that_nobody_handed_out_is_refused(guarded, provider):
    acme = guarded.tenant("acme")
    packages = provider.metadata(FRESH, None)["modelPackages"]
    url = packages[0]["packageFiles"][0]["downloadUrl"]
    assert through(guarded, url, acme.key).status in REFUSED
    assert through(guarded, url, None).status in REFUSED
    assert provider.seen("storage") == []


def test_a_url_that_was_handed_out_to_one_tenant_opens_nothing_to_another_key(guarded, provider, join):
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    join(guarded, "secure", "acme").load(FRESH, acme.key).loaded()
    provider.forget()
    storage = urlsplit(provider.storage_url).netloc
    handed_out = {one.target for one in guarded.requests if urlsplit(one.url).netloc == storage}
    for target in handed_out:
        assert guarded.gateway.wire.get(target, globex.key).status in REFUSED
    assert provider.seen("storage") == []


def test_a_redirect_of_the_storage_is_not_followed_elsewhere(guarded, provider, bystander, join):
    """The storage's own redirect stays on its host and is followed; the engine's HEAD does not follow it."""
    acme = guarded.tenant("acme")
    client = join(guarded, "secure", "acme")
    with provider.behaving("storage", redirects_to=""):
        assert client.load(FRESH, acme.key).ok
    with provider.behaving("storage", redirects_to=f"http://127.0.0.1:{bystander.port}"):
        assert not join(guarded, "secure", "acme-elsewhere").load(FRESH, acme.key).ok
    assert bystander.visits == 0


def test_its_health_is_what_clients_probe_for(guarded):
    answer = guarded.gateway.wire.get("/health")
    assert answer.status == 200
    assert answer.json()["status"] == "healthy"
