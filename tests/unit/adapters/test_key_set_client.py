from __future__ import annotations

import asyncio
import json

import pytest

from gateway.adapters import key_set_client
from gateway.adapters.key_set_client import KeySetClient
from gateway.model.errors import Reason, Unavailable
from gateway.model.issuers import MAX_KEY_SET_BYTES
from tests.outside_issuer import Issuer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


@pytest.fixture
async def client(issuer, monkeypatch):
    issuer.behave("well")
    monkeypatch.setenv("SSL_CERT_FILE", issuer.authority)
    client = KeySetClient(private_issuers=True)
    yield client
    await client.close()


async def refused(client, url):
    with pytest.raises(Unavailable) as caught:
        await client.fetch(url)
    assert caught.value.reason is Reason.ISSUER_UNDECIDED
    return caught.value.why


async def test_a_key_set_comes_as_the_issuer_wrote_it(client, issuer):
    keys = json.loads(await client.fetch(issuer.key_set_url))["keys"]
    assert {key["alg"] for key in keys} == {"RS256", "ES256", "EdDSA"}


@pytest.mark.parametrize("how", ["failing", "redirecting", "wrong-type", "encoded", "huge"])
async def test_an_answer_that_is_no_key_set_is_undecided(client, issuer, how):
    issuer.behave(how)
    await refused(client, issuer.key_set_url)


async def test_a_redirect_is_not_followed(client, issuer):
    issuer.behave("redirecting")
    before = issuer.fetches
    assert "302" in await refused(client, issuer.key_set_url)
    assert issuer.fetches == before + 1


@pytest.mark.parametrize("how", ["hanging", "dripping"])
async def test_an_issuer_that_takes_its_time_gets_no_more_than_the_bound(client, issuer, how, monkeypatch):
    monkeypatch.setattr(key_set_client, "FETCH_SECONDS", 0.5)
    issuer.behave(how)
    began = asyncio.get_running_loop().time()
    await refused(client, issuer.key_set_url)
    assert asyncio.get_running_loop().time() - began < 10  # of a dripping set of a kilobyte, minutes


async def test_a_body_is_read_up_to_its_bound_and_no_further(client, issuer):
    issuer.behave("huge")
    assert str(MAX_KEY_SET_BYTES) in await refused(client, issuer.key_set_url)


async def test_a_certificate_that_nobody_trusts_is_refused(client, issuer, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    stranger = KeySetClient(private_issuers=True)
    await refused(stranger, issuer.key_set_url)
    await stranger.close()


async def test_private_addresses_and_plain_http_need_the_setting(client, issuer):
    public_only = KeySetClient(private_issuers=False)
    before = issuer.fetches
    await refused(public_only, issuer.key_set_url)
    await refused(public_only, issuer.key_set_url.replace("https", "http"))
    assert issuer.fetches == before
    await public_only.close()


@pytest.mark.parametrize(
    "url", ["ftp://localhost/keys", "https://", "file:///etc/passwd", "https://u:p@localhost/"]
)
async def test_a_url_of_another_kind_is_not_asked(client, url):
    await refused(client, url)
