"""Every key in a request is compared with all the others, wherever they are and however many.

With two different keys it would be ambiguous who made the request. So it is refused with 400 whatever the
first key is worth, for all ways in which keys come together: headers, `api_key` in a URL that an engine
wrapped, and a header beside a signed link.
"""

from __future__ import annotations

import asyncio
from itertools import product
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credential.extract import extract
from gateway.credential.extract_link import extract_link, link_query
from gateway.faces.proxy import Unwrapping
from gateway.identity.authenticate import Authenticator
from gateway.identity.authenticate_link import LinkAuthenticator
from gateway.identity.authenticate_token import TokenAuthenticator
from gateway.identity.keys_by_id import KeysById
from gateway.identity.links import LinkKeys, sign
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.model.access import WireRequest
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind, Tenant
from gateway.model.names import TenantId
from gateway.model.stamps import Leaf, Stamp
from gateway.problems import PROBLEMS

PUBLIC = "https://models.example"
NOW = 1_800_000_000.0

CHANNELS = {
    "Bearer": lambda key: ("header", (b"authorization", b"Bearer " + key)),
    "bearer, in another case": lambda key: ("header", (b"authorization", b"bEARER  " + key)),
    "X-API-Key": lambda key: ("header", (b"x-api-key", key)),
    "X-API-Key, with blanks": lambda key: ("header", (b"x-api-key", b" " + key + b"\t")),
    "api_key": lambda key: ("inner", b"api_key=" + key),
}
UNWRAPPING = Unwrapping(
    public_url=PUBLIC,
    upstream="https://api.example",
    offers=None,
    download=SimpleNamespace(matches=lambda _path: True),
)


def asked(keys):
    """A wrapped question with these keys, each by a channel."""
    headers, inner = [(b"host", b"x"), (b"accept", b"*/*")], [b"modelId=a"]
    for channel, key in keys:
        where, what = CHANNELS[channel](key)
        (headers if where == "header" else inner).append(what)
    url = f"https://api.example/models/v1/external/weights?{b'&'.join(inner).decode()}"
    return WireRequest(
        method="GET",
        raw_path=b"/proxy",
        query=b"url=" + quote(url, safe="").encode(),
        headers=tuple(headers),
        client="192.0.2.1",
        route="/proxy",
        trace_id=None,
        received_at=NOW,
    )


def reason_of(keys):
    """Why a request with these keys is refused; the key itself where it is not."""
    try:
        request, _route = UNWRAPPING.unwrap(asked(keys))
        return extract(request.headers, request.query).secret
    except Refusal as refusal:
        return refusal.reason


@pytest.mark.parametrize("channels", list(product(CHANNELS, repeat=3)))
def test_of_three_keys_no_two_may_differ_whichever_they_are(channels):
    for keys in product((b"one", b"two", b"three"), repeat=3):
        found = reason_of(list(zip(channels, keys, strict=True)))
        if len(set(keys)) == 1:
            assert found == keys[0].decode()
        else:
            assert found is Reason.CONFLICTING_CREDENTIALS
    assert PROBLEMS[Reason.CONFLICTING_CREDENTIALS].status == 400


@given(
    st.lists(
        st.tuples(st.sampled_from(list(CHANNELS)), st.sampled_from([b"one", b"two", b"local", b""])),
        max_size=8,
    )
)
def test_of_any_number_of_keys_no_two_may_differ_and_nobody_is_no_key(keys):
    named = {key for _, key in keys if key not in {b"local", b""}}
    found = reason_of(keys)
    if len(named) > 1:
        assert found is Reason.CONFLICTING_CREDENTIALS
    else:
        assert found == (next(iter(named)).decode() if named else Reason.NO_CREDENTIAL)


# A link and keys beside it.

PEPPERS = Peppers(current=Pepper(id="p1", secret=b"1" * 32))
ACME = Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=NOW)
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=ACME.tenant_id)
OWN, OTHER = (issue_key(ORDER, environment="live", peppers=PEPPERS) for _ in range(2))
LINK_KEYS = LinkKeys(current=b"l" * 32)
PATH = b"/d/a/-/p/f"


class Directory:
    async def find_key_digest(self, _key_id):
        return OWN.digest

    async def find_key(self, digests):
        return (OWN.key if OWN.digest in digests else None), ACME, Stamp(1, (Leaf(b"key", b"record"),))


def followed(keys):
    """What becomes of a link of OWN with these keys in headers beside it."""
    ends = int(NOW) + 60
    mac = sign(LINK_KEYS, key_id=OWN.key.key_id, expires_at=ends, signed=PATH)
    request = WireRequest(
        method="GET",
        raw_path=PATH,
        query=link_query(OWN.key.key_id, ends, mac).encode(),
        headers=tuple(CHANNELS[channel](key.encode())[1] for channel, key in keys),
        client="192.0.2.1",
        route="/d",
        trace_id=None,
        received_at=NOW,
    )
    directory = Directory()
    keys, by_id = Authenticator(directory, PEPPERS), KeysById(directory)
    subject = LinkAuthenticator(keys, by_id, LINK_KEYS, TokenAuthenticator(keys, by_id, None))
    try:
        principal, _ = asyncio.run(subject.authenticate(extract_link(request), "192.0.2.1", NOW))
    except Refusal as refusal:
        return refusal.reason
    return principal.key_id


HEADERS = [channel for channel in CHANNELS if channel != "api_key"]


@pytest.mark.parametrize("channels", list(product(HEADERS, repeat=2)))
def test_of_a_link_and_two_keys_beside_it_no_two_may_differ(channels):
    for keys in product((OWN.token, OTHER.token), repeat=2):
        found = followed(list(zip(channels, keys, strict=True)))
        expected = OWN.key.key_id if set(keys) == {OWN.token} else Reason.CONFLICTING_CREDENTIALS
        assert found == expected
