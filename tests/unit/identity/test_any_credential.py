"""Whose token it is follows from the issuer that it names, and from nothing else."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest

from gateway.identity.any_credential import AnyAuthenticator
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal

pytestmark = pytest.mark.anyio

OURS, THEIRS = "https://models.example", "https://ci.example"


def token(issuer):
    parts = ({"alg": "EdDSA", "kid": "k", "typ": "JWT"}, {"iss": issuer})
    encoded = [urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts]
    return Credential(".".join([*encoded, "AAAA"]))


class Part:
    """One of the authenticators; it says that it was asked."""

    issuer = OURS
    memories = ()

    def __init__(self, name, recalled=None):
        self.name, self.recalled = name, recalled

    def recall(self, *_):
        return self.recalled

    async def authenticate(self, *_):
        return self.name

    async def reauthenticate(self, stamp, *_):
        return self.name if self.name in {stamp, "keys"} else None


def build(**recalled):
    keys, links, tokens, outside = (
        Part(name, recalled.get(name)) for name in ("keys", "links", "tokens", "outside")
    )
    return AnyAuthenticator(keys, links, tokens, outside)


async def test_a_token_goes_to_the_one_who_knows_its_issuer():
    authenticator = build()
    assert await authenticator.authenticate(token(OURS), "", 0.0) == "tokens"
    assert await authenticator.authenticate(token(THEIRS), "", 0.0) == "outside"
    assert await authenticator.authenticate(Credential("cg_live_x"), "", 0.0) == "keys"


async def test_a_text_that_only_begins_like_a_token_is_nobodys():
    with pytest.raises(Refusal) as caught:
        await build().authenticate(Credential("eyJ-and-more"), "", 0.0)
    assert caught.value.reason is Reason.MALFORMED_TOKEN


async def test_what_either_remembers_is_recalled():
    assert build(tokens="ours").recall(token(OURS), "", 0.0) == "ours"
    assert build(outside="theirs").recall(token(THEIRS), "", 0.0) == "theirs"
    assert build(keys="a key").recall(token(THEIRS), "", 0.0) is None


async def test_a_transfer_is_judged_by_what_it_stands_on():
    assert await build().reauthenticate("outside", "", 0.0) == "outside"
    assert await build().reauthenticate("a key's", "", 0.0) == "keys"
