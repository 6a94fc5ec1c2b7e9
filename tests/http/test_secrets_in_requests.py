"""I8 through a real gateway: a key that a client puts anywhere into a request is found nowhere afterwards.

Each channel by which a key comes, valid or not, with the same key in each part of the request that is
recorded or logged. Then the audit folder, the log, the metrics and Redis are searched for it, plain and
in each encoded form.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from gateway.directory.edits import keys as key_operations
from gateway.identity.new_keys import KeyOrder, adopt_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId

KEY = "Zq7Canary0Of20Signs9"  # like a platform's: too short to be told from an ordinary word
OTHER = "Wx3Another0Of20Signs"
MISTYPED = "cg_test_0123456789abcdefghijklmn000000"
LONG = "Lq7Canary0OfTooLong9" * 250  # more than a credential may have
SIGNATURE = "Sg7Canary0Of43Signs00000000000000000000000A"
CANARIES = (KEY, OTHER, MISTYPED, LONG[:20], SIGNATURE)


@pytest.fixture(scope="module")
def place(build_world):
    """The world once more, with a key of a platform that is valid."""
    for built in build_world("canaries", workers=1, CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000"):
        built.installation.in_session(_adopt)
        yield built


async def _adopt(session):
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId("acme"))
    new = adopt_key(order, raw_key=KEY, peppers=session.peppers)
    await session.perform(
        "keys.import",
        lambda changes: key_operations.import_key(changes, key=new.key, digest=new.digest),
        tenant="acme",
        key_id=new.key.key_id,
    )


def escaped(text):
    return "".join(f"%{ord(one):02x}" for one in text)


def forms(key):
    """How a key may be written."""
    yield key
    yield escaped(key)
    yield quote(escaped(key))
    yield key.upper()
    yield key.encode().hex()
    for text in (key, f"{key}:", f":{key}", f"user:{key}"):
        yield b64encode(text.encode()).decode()
        yield urlsafe_b64encode(text.encode()).decode().rstrip("=")


def basic(text):
    return "Basic " + b64encode(text.encode()).decode()


CHANNELS = {
    "bearer": (KEY, (("Authorization", f"Bearer {KEY}"),), ""),
    "x-api-key": (KEY, (("X-API-Key", KEY),), ""),
    "both": (KEY, (("X-API-Key", KEY), ("Authorization", f"Bearer {KEY}")), ""),
    "two that differ": (OTHER, (("X-API-Key", OTHER), ("Authorization", f"Bearer {KEY}")), ""),
    "unknown": (OTHER, (("Authorization", f"Bearer {OTHER}"),), ""),
    "mistyped": (MISTYPED, (("Authorization", f"Bearer {MISTYPED}"),), ""),
    "too long": (LONG[:20], (("Authorization", f"Bearer {LONG}"),), ""),
    "no key at all": (OTHER, (("Authorization", f"Bearer {OTHER}, x"),), ""),
    "basic": (OTHER, (("Authorization", basic(f"user:{OTHER}")),), ""),
    "basic, as the user": (OTHER, (("Authorization", basic(f"{OTHER}:")),), ""),
    "another scheme": (OTHER, (("Authorization", f"Token {OTHER}"),), ""),
    "look-alike": (OTHER, (("X_API_KEY", OTHER), ("Authorization", f"Bearer {KEY}")), ""),
    "cookie beside a key": (OTHER, (("Cookie", f"session={OTHER}"), ("Authorization", f"Bearer {KEY}")), ""),
    "query": (OTHER, (), f"api_key={OTHER}"),
    "escaped query": (OTHER, (), f"%61pi%5fkey={escaped(OTHER)}"),
    "query beside a key": (OTHER, (("Authorization", f"Bearer {KEY}"),), f"token={OTHER}"),
    "url in the query": (
        OTHER,
        (("Authorization", f"Bearer {KEY}"),),
        "url=" + quote(f"https://x/?api_key={OTHER}", safe=""),
    ),
    "signature": (SIGNATURE, (), f"se=1999999999&sig=key_0123456789ab.{SIGNATURE}"),
}


def requests(key, headers, query):
    """The same request with the key in one part after another."""
    suffix = f"?{query}" if query else ""
    plain = ("GET", "/v1/models", suffix, ())
    yield plain
    for form in forms(key):
        segment = quote(form, safe="%")
        for path in (
            f"/v1/models/acme/{segment}/1",
            f"/v1/models/acme/cars/1/-/pkgA1/{segment}",
            f"/v1/models/acme/cars/1/-/p{segment}/weights.onnx",
            f"/v1/blobs/{segment}",
            f"/{segment}",
            f"/d/acme/{segment}/-/pkgA1/weights.onnx",
            f"/proxy/{segment}",
        ):
            yield "GET", path, suffix, ()
        for name in ("User-Agent", "Referer", "tracestate", "X-Forwarded-For", "X-Request-Id", "Range"):
            yield "GET", "/v1/models/acme/cars/1", suffix, ((name, f"loader/1.0 ({form})"),)
            yield "GET", "/v1/models/acme/cars/1", suffix, ((name, form),)
        yield "GET", f"/v1/models?after={quote(form, safe='')}", suffix.replace("?", "&"), ()
    yield (
        "GET",
        "/v1/models/acme/cars/1",
        suffix,
        (("traceparent", f"00-{key.encode().hex()[:32]}-00f067aa0ba902b7-01"),),
    )
    yield "GET", "/v1/models/acme/cars/1", suffix, (("traceparent", f"00-{key.lower()}-00f067aa0ba902b7-01"),)
    yield key.upper(), "/v1/models", suffix, ()
    yield "POST", f"/v1/models/{key}", suffix, ()


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_a_key_is_nowhere_after_requests_that_hold_it_everywhere(place, channel):
    key, headers, query = channel
    statuses = set()
    for method, path, suffix, more in requests(key, headers, query):
        answer = place.wire.request(method, path + suffix, headers=(*headers, *more))
        statuses.add(answer.status)
    assert statuses - {200}, "all of it was allowed, and no refusal was recorded"
    assert found(place) == []


def test_whole_files_that_are_answered_from_memory_hold_none_either(place):
    path = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
    with place.wire.talk() as talk:
        for _ in range(5):
            for form in forms(KEY):
                more = (("Authorization", f"Bearer {KEY}"), ("User-Agent", f"loader/1.0 ({form})"))
                assert talk.get(path, headers=more).status == 200
    assert found(place) == []


def test_the_record_of_a_request_without_a_secret_in_its_agent_keeps_it(place):
    answer = place.wire.get("/v1/whoami", KEY, headers=(("User-Agent", "loader/1.0 (linux)"),))
    [record] = [one for one in place.installation.records() if one.get("id") == answer.record_id]
    assert record["request"]["agent"] == "loader/1.0 (linux)"


def found(place):
    """Where a canary is found, in any form; of base64, the part that encodes the key alone."""
    state = place.installation.state
    contents = {
        str(path): path.read_bytes()
        for path in state.rglob("*")
        if path.is_file() and not path.is_relative_to(state / "peppers")
    }
    contents["log"] = place.gateway.log().encode()
    contents["metrics"] = place.gateway.ops.get("/metrics").body
    client = place.installation.redis()
    for name in client.scan_iter(count=1000):
        contents[f"redis {name!r}"] = name + (client.dump(name) or b"")
    client.close()
    assert any("/audit/" in name for name in contents)
    needles = {form.lower().rstrip("=").encode()[:24] for key in CANARIES for form in forms(key)}
    needles |= {key[:14].lower().encode() for key in CANARIES if key != MISTYPED}
    return [
        (name, needle)
        for name, content in contents.items()
        for lowered in [content.lower()]
        for needle in needles
        if needle in lowered
    ]
