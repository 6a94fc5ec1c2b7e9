"""I8 by chance: each request has a key of its own, in positions and forms that are drawn; none is kept.

`test_secrets_in_requests.py` goes through channels and positions one by one. Here several positions of one
request hold its key at once, on every route that reads one, and answers are searched as well.
"""

from __future__ import annotations

import random
import re
import string
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from gateway.identity.tokens import mint_token

ROUTES = (
    *("/v1/models", "/v1/whoami", "/v1/token", "/v1/introspect", "/health", "/hooks/v1/authority"),
    *(
        "/v1/models/acme/cars/1",
        "/v1/models/acme/cars/1/-/pkgA1/weights.onnx",
        "/v1/blobs/",
        "/d/acme/cars/1",
    ),
    *("/audit/v1/proofs/", "/check/nginx", "/check/forwarded", "/check/envoy/v1/models", "/inference/infer"),
    *("/models/v1/external/weights", "/models/v1/external/stat", "/proxy", "/.well-known/jwks.json", "/"),
)
HEADERS = (
    *("User-Agent", "Referer", "Cookie", "traceparent", "tracestate", "X-Forwarded-For", "X-Request-Id"),
    *("Range", "If-None-Match", "If-Match", "If-Range", "Accept", "X-Original-URI", "X-Forwarded-Uri"),
    *(
        "X-Forwarded-Method",
        "X-Original-Method",
        "Content-Type",
        "Proxy-Authorization",
        "Forwarded",
        "X-Other",
    ),
)
QUERIES = ("api_key", "token", "url", "after", "limit", "modelId", "sig", "se", "startAfter", "other")
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


def credential(chance, key):
    """A way in which the request has its key: what it may not be found as is known by that."""
    basic = b64encode(f"user:{key}".encode()).decode()
    return chance.choice(
        [
            ("Authorization", f"Bearer {key}"),
            ("X-API-Key", key),
            ("Authorization", f"Basic {basic}"),
            ("Authorization", f"Token {key}"),
            ("X_API_KEY", key),
        ]
    )


def form(chance, key):
    """One way to write it."""
    return chance.choice(
        [
            key,
            key,
            "".join(f"%{ord(one):02X}" for one in key),
            key.encode().hex(),
            b64encode(key.encode()).decode(),
            urlsafe_b64encode(f":{key}".encode()).decode().rstrip("="),
            f"https://{key}@host/?api_key={key}",
        ]
    )


def new_key(chance):
    """A key of ours, of which none exists; or one of a foreign form."""
    if chance.random() < 0.5:
        return mint_token(chance.choice(("live", "test")))
    return "Zq" + "".join(chance.choices(string.ascii_letters + string.digits, k=24))


def raw_request(chance, key):
    method, path = chance.choice(METHODS), chance.choice(ROUTES)
    if chance.random() < 0.6:
        path = path.rstrip("/") + "/" + quote(form(chance, key), safe="%")
    names = chance.sample(QUERIES, chance.randint(0, 2))
    query = "&".join(f"{name}={quote(form(chance, key), safe='')}" for name in names)
    lines = [f"{method} {path}{'?' + query if query else ''} HTTP/1.1", "Host: gateway", "Connection: close"]
    lines.append(": ".join(credential(chance, key)))
    more = chance.sample(HEADERS, chance.randint(0, 4))
    lines += [f"{name}: {chance.choice(('', 'loader/1.0 '))}{form(chance, key)}" for name in more]
    body = b""
    if method in {"POST", "PUT"}:
        body = chance.choice((b"subject_token=", b"token=", b'{"api_key":"')) + form(chance, key).encode()
        lines.append(f"Content-Length: {len(body)}")
    return method, "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def place(build_world):
    yield from build_world("canary", workers=1, CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000")


@pytest.mark.parametrize("count", [150, pytest.param(6000, marks=pytest.mark.slow)])
def test_no_key_of_any_request_is_kept_anywhere_or_sent_back(place, count):
    chance = random.Random(count)
    keys, sent_back = set(), []
    for _ in range(count):
        key = new_key(chance)
        keys.add(key)
        method, raw = raw_request(chance, key)
        answer = place.wire.send(raw, is_head=method == "HEAD")
        told = repr(answer.headers).encode() + answer.body
        if any(needle in told.lower() for needle in needles_of(key)):
            sent_back.append((raw, answer))
    assert sent_back == []
    assert found(place, {needle for key in keys for needle in needles_of(key)}) == []


def needles_of(key):
    """What is looked for, in lower case: any 16 characters of it would do, and so would an encoded form."""
    yield key.lower().encode()[-20:]
    yield key.encode().hex().encode()[:40]
    yield b64encode(key.encode()).lower()[:24]
    yield quote("".join(f"%{ord(one):02x}" for one in key)).encode()[:40]
    yield "".join(f"%{ord(one):02x}" for one in key).encode()[:40]


def found(place, needles):
    """Where any of these is: in the runs of characters that keys and their forms consist of."""
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
    records = b"".join(content for name, content in contents.items() if "/audit/" in name)
    assert records.count(b'"decision":"deny"') > 50
    shortest = min(map(len, needles))
    starts = {needle[:shortest] for needle in needles}
    run = re.compile(rb"[0-9a-z_~+/%%=-]{%d,}" % shortest)
    return [
        (name, text)
        for name, content in contents.items()
        for text in {match[0] for match in run.finditer(content.lower())}
        if any(text[at : at + shortest] in starts for at in range(len(text) - shortest + 1))
    ][:5]
