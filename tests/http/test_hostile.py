"""Hostile input over raw sockets: paths, headers, framing, connections (I1, I4).

Whatever a request contains, it is answered once, in order, for its own caller, or refused. What is parsed as
a path, a key or a request boundary must not depend on anything that a proxy could parse differently.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path

import pytest

from gateway.problems import UNRECORDED

CASES = json.loads((Path(__file__).parents[1] / "cases" / "paths.json").read_text("utf-8"))["cases"]
WHOAMI = b"GET /v1/whoami HTTP/1.1\r\n"
HOST = b"Host: gateway\r\n"
_ENDS_A_PATH = re.compile(rb"[?#]")
_NEVER_IN_A_REQUEST_LINE = re.compile(rb"[^\x21-\x7e]")


def bearer(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode() + b"\r\n"


def exchange(wire, raw: bytes, timeout: float = 0.5) -> bytes:
    """All bytes that come back, until the server closes or sends nothing more."""
    received = b""
    with wire.connect(timeout) as connection:
        try:
            connection.sendall(raw)
            while piece := connection.recv(1 << 16):
                received += piece
        except OSError:
            pass
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


# --- paths


def raw_path(case) -> bytes:
    if "repeat" in case:
        prefix, unit, times, suffix = case["repeat"]
        return (prefix + unit * times + suffix).encode()
    return case["path"].encode()


def cases(outcome):
    """The cases that can stand in a request line: there, `?` and `#` end the path."""
    return [
        pytest.param(case, id=case["name"])
        for case in CASES
        if outcome in case and not _ENDS_A_PATH.search(raw_path(case))
    ]


@pytest.fixture(scope="session")
def recorded(world, eventually):
    """The decision record that an answer names, as it is in the audit log."""

    def find(answer):
        return eventually(
            lambda: next((one for one in world.installation.records() if one["id"] == answer.record_id), None)
        )

    return find


@pytest.mark.parametrize("case", cases("names"))
def test_a_good_path_is_decided_as_exactly_what_it_names(case, world, recorded):
    path = raw_path(case)
    answer = world.wire.get(path, world.token("hooli"))
    if _NEVER_IN_A_REQUEST_LINE.search(path):
        # The grammar accepts bytes that were not escaped; the server in front of it refuses them.
        assert answer.status == 400
        return
    assert answer.status in (200, 404)
    names = dict(case["names"])
    if "model_of" in names:
        unit, times = names.pop("model_of")
        names["model"] = unit * times
    if names["kind"] == "blob":
        return  # decided as the file through which it may be read; test_matrix has it
    resource = recorded(answer)["resource"]
    asked = {"kind": resource["kind"], "model": resource.get("requested")}
    asked |= {name: resource.get(name) for name in ("package", "file")}
    assert asked == {"model": None, "package": None, "file": None} | names


@pytest.mark.parametrize("case", cases("refused"))
def test_a_bad_path_is_refused_with_a_valid_key_too(case, world, recorded):
    path = raw_path(case)
    answer = world.wire.get(path, world.token("acme"))
    if case["refused"] == "path-too-long":
        assert answer.status == 414
        return
    assert answer.status == 400
    if not _NEVER_IN_A_REQUEST_LINE.search(path):
        assert recorded(answer)["reason"] == "malformed-path"


def test_a_bad_path_tells_a_stranger_no_more_than_a_good_one(world):
    answers = {
        world.wire.get(raw_path(case.values[0])).comparable()
        for case in cases("refused")
        if case.values[0]["refused"] == "malformed-path"
        and not _NEVER_IN_A_REQUEST_LINE.search(raw_path(case.values[0]))
        and raw_path(case.values[0]).startswith((b"/v1/models", b"/v1/blobs"))
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 401


# --- credentials


def test_the_same_key_twice_is_one_key(world):
    key = bearer(world.token("acme"))
    for raw in (key + key, key + b"X-API-Key: " + world.token("acme").encode() + b"\r\n"):
        assert world.wire.send(WHOAMI + HOST + raw + b"\r\n").json()["tenant"] == "acme"


@pytest.mark.parametrize("first", ["acme", "globex"])
@pytest.mark.parametrize("form", ["authorization", "x-api-key"])
def test_two_different_keys_are_refused_in_either_order(first, form, world):
    second = "globex" if first == "acme" else "acme"
    token = world.token(second).encode()
    other = bearer(world.token(second)) if form == "authorization" else b"X-API-Key: " + token + b"\r\n"
    for lines in ((bearer(world.token(first)), other), (other, bearer(world.token(first)))):
        answer = world.wire.send(WHOAMI + HOST + b"".join(lines) + b"\r\n")
        assert answer.status == 400
        assert b"acme" not in answer.body


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer k\xc3\xa9y-of-somebody-else\r\n",
        b"Authorization: Bearer\r\n <key>\r\n",
        b"Authorization: Bearer <key>\r\n and more\r\n",
        b"Authorization: Bearer <key>\x00\r\n",
        b"Authorization: Bearer <key>\x01\r\n",
        b"Authorization: Bearer <key>\rX: y\r\n",
        b"Authorization: Bearer <key>\n",
        b"Authorization : Bearer <key>\r\n",
        b"\x00Authorization: Bearer <key>\r\n",
        b"Authorization: Bearer <key>, Bearer <other>\r\n",
        b"Authorization: Bearer <key> <other>\r\n",
        b"Authorization: Basic <key>\r\nX-API-Key: <key>\r\n",
        b"Authorization: <key>\r\n",
        b"Authorization: Token <key>\r\n",
        b"authorization:\r\n",
        b"Authorization\r\n",
        b"X_API_Key: <key>\r\n",
        b"X-Api_Key: <key>\r\n",
        b"Proxy-Authorization: Bearer <key>\r\n",
        b"Cookie: api_key=<key>\r\n",
        b"X-API-Key: <key>,<other>\r\n",
        b"X-API-Key: Bearer <key>\r\n",
    ],
)
def test_a_key_that_does_not_come_in_a_plain_way_opens_nothing(line, world):
    raw = line.replace(b"<key>", world.token("acme").encode())
    raw = raw.replace(b"<other>", world.token("globex").encode())
    received = exchange(world.wire, WHOAMI + HOST + raw + b"Connection: close\r\n\r\n")
    assert len(statuses(received)) == 1
    assert statuses(received)[0] in (400, 401)
    assert b'"tenant"' not in received


@pytest.mark.parametrize(
    "query",
    [
        *("api_key=<key>", "API_KEY=<key>", "token=<key>", "access_token=<key>", "key=<key>", "apikey=<key>"),
        *("x-api-key=<key>", "x_api_key=<key>", "authorization=<key>", "apiKey[]=<key>", "?api_key=<key>"),
        *("limit=2&api_key=<key>", "limit=2;api_key=<key>", "api%5Fkey=<key>", "api_key", "+api_key=<key>"),
    ],
)
def test_a_key_in_the_url_is_refused_beside_a_good_one_too(query, world):
    path = "/v1/models?" + query.replace("<key>", world.token("acme"))
    for key in (None, world.token("acme")):
        answer = world.wire.get(path, key)
        assert answer.status == 400
        assert world.token("acme").encode() not in answer.body


# --- which client address is taken from the network


@pytest.mark.parametrize(
    "headers",
    [
        (("X-Forwarded-For", "203.0.113.7"),),
        (("X-Forwarded-For", "203.0.113.7, 127.0.0.1"),),
        (("X-Real-IP", "203.0.113.7"), ("Forwarded", "for=203.0.113.7"), ("True-Client-IP", "203.0.113.7")),
        (("X_Forwarded_For", "203.0.113.7"), ("X-Client-IP", "203.0.113.7"), ("Via", "1.1 203.0.113.7")),
    ],
)
def test_nobody_comes_from_elsewhere_by_saying_so(headers, world):
    assert world.wire.get("/v1/whoami", world.token("acme from outside"), headers=headers).status == 401
    # And no caller is refused because of what another hop added.
    assert world.wire.get("/v1/whoami", world.token("acme from inside"), headers=headers).status == 200


def test_the_proxy_protocol_is_not_spoken(world):
    line = b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n"
    raw = line + WHOAMI + HOST + bearer(world.token("acme from outside")) + b"\r\n"
    assert statuses(exchange(world.wire, raw)) == [400]


# --- that the Host header decides nothing


@pytest.mark.parametrize(
    "raw",
    [
        b"GET <path> HTTP/1.1\r\nHost: evil.example/v1/models/globex?x#y\r\n",
        b"GET <path> HTTP/1.1\r\nHost: ../../v1/models\r\n",
        b"GET <path> HTTP/1.1\r\nHost:\r\nX-Forwarded-Host: globex\r\nX-Original-URL: /v1/models\r\n",
        b"GET <path> HTTP/1.1\r\nHost: a\r\nX-Rewrite-URL: /v1/whoami\r\nX-HTTP-Method-Override: DELETE\r\n",
        b"GET http://evil.example<path> HTTP/1.1\r\nHost: gateway\r\n",
        b"GET https://user:password@gateway:8443<path> HTTP/1.1\r\nHost: gateway\r\n",
    ],
)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/acme/trucks/2/-/pkgT1/weights.onnx", 200),
        ("/v1/models/globex/cars/1/-/pkgA1/weights.onnx", 404),
        ("/v1/models/globex/lab/1/-/pkgL1/weights.onnx", 403),
        ("/v1/models/acme//cars", 400),
    ],
)
def test_the_host_decides_nothing(raw, path, status, world):
    plain = world.wire.get(path, world.token("acme"))
    assert plain.status == status
    raw = raw.replace(b"<path>", path.encode()) + bearer(world.token("acme")) + b"Connection: close\r\n\r\n"
    assert world.wire.send(raw).comparable() == plain.comparable()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/whoami HTTP/1.1\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        b"GET /v1/whoami HTTP/1.0\r\nHost: a\r\nHost: b\r\n",
        b"GET /v1/whoami HTTP/0.9\r\nHost: a\r\n",
        b"GET /v1/whoami HTTP/2.0\r\nHost: a\r\n",
        b"GET /v1/whoami#fragment HTTP/1.1\r\nHost: a\r\n",
        b"GET /v1/whoami?a#fragment HTTP/1.1\r\nHost: a\r\n",
    ],
)
def test_what_rfc_9112_wants_refused_is_refused_and_the_record_is_named(raw, world):
    answer = world.wire.send(raw + bearer(world.token("acme")) + b"\r\n")
    assert answer.status == 400
    assert b"tenant" not in answer.body
    assert answer.json()["record"] == answer.record_id != UNRECORDED
    if (record := recorded_or_summary(world, answer.record_id)) is not None:
        assert record["reason"] == "malformed-request"


def recorded_or_summary(world, record_id):
    """The record itself; None while the summary (of refusals beyond the limit) is not written yet."""
    found = next((one for one in world.installation.records() if one["id"] == record_id), None)
    return found if found is not None and found.get("decision") == "deny" else None


def test_an_absolute_target_without_a_path_is_refused(world):
    raw = b"GET http://evil.example HTTP/1.1\r\n" + HOST + bearer(world.token("acme")) + b"\r\n"
    assert statuses(exchange(world.wire, raw)) == [400]


# --- limits, versions, other protocols


def test_what_is_too_large_is_refused_before_it_is_looked_at(world):
    key = bearer(world.token("acme"))
    many = b"".join(b"X-%d: a\r\n" % number for number in range(200))
    for raw, status in (
        (b"GET /v1/models/" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + key, 414),
        (b"GET /v1/models?" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + key, 414),
        (WHOAMI + HOST + key + b"X: " + b"a" * 1_000_000 + b"\r\n", 431),
        (WHOAMI + HOST + key + b"X" * 1_000_000 + b": a\r\n", 431),
        (WHOAMI + HOST + key + many, 431),
    ):
        answer = world.wire.send(raw + b"\r\n")
        assert answer.status == status
        assert b"tenant" not in answer.body


def test_http_1_0_is_answered_and_the_connection_closed(world):
    received = exchange(
        world.wire, b"GET /v1/whoami HTTP/1.0\r\n" + bearer(world.token("acme")) + b"\r\n", timeout=10
    )
    assert statuses(received) == [200]
    assert b'"tenant":"acme"' in received


@pytest.mark.parametrize(
    "raw",
    [
        b"CONNECT gateway:80 HTTP/1.1\r\n<host><key>\r\n",
        (
            b"GET /v1/whoami HTTP/1.1\r\n<host><key>Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00\r\n\r\n",
        b"GET /v1/who ami HTTP/1.1\r\n<host><key>\r\n",
        b"GET v1/whoami HTTP/1.1\r\n<host><key>\r\n",
        b"GET  HTTP/1.1\r\n<host><key>\r\n",
        b"GET /v1/whoami HTTP/9.9\r\n<host><key>\r\n",
        b"GET /v1/whoami FTP/1.1\r\n<host><key>\r\n",
        b"GET /v1/whoami\x00 HTTP/1.1\r\n<host><key>\r\n",
        b"GET\t/v1/whoami\tHTTP/1.1\r\n<host><key>\r\n",
    ],
)
def test_what_is_not_a_request_of_ours_is_refused_and_the_connection_closed(raw, world):
    raw = raw.replace(b"<host>", HOST).replace(b"<key>", bearer(world.token("acme")))
    received = exchange(world.wire, raw + WHOAMI + HOST + bearer(world.token("acme")) + b"\r\n", timeout=3)
    assert statuses(received) == [400]
    assert b"acme" not in received


def test_a_star_names_nothing(world):
    answer = world.wire.request("OPTIONS", "*", world.token("acme"))
    assert answer.comparable() == world.wire.get("/nowhere", world.token("acme")).comparable()


def test_an_offer_of_another_protocol_is_ignored_and_ends_the_connection(world):
    raw = (
        WHOAMI
        + HOST
        + bearer(world.token("acme"))
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    )
    received = exchange(world.wire, raw + WHOAMI + HOST + bearer(world.token("globex")) + b"\r\n", timeout=3)
    assert statuses(received) == [200]
    assert b"globex" not in received


# --- where one request ends and the next begins


SMUGGLED = WHOAMI + b"Host: smuggled\r\n<key>\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: <length>\r\n\r\n",
        b"Content-Length: <length+5>\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: <length>\r\n\r\n",
        b"Content-Length: <length>\r\nContent-Length: <length>\r\n\r\n",
        b"Content-Length: 0, <length>\r\n\r\n",
        b"Content-Length: +<length>\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 0x10\r\n\r\n",
        b"Content-Length: 1 0\r\n\r\n",
        b"Content-Length:\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Content-Length : <length>\r\n\r\n",
        b"Content-Length: <length>\nX: y\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked, cow\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0;a=b\nx\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n<hex length>\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_request_is_not_hidden_in_another_ones_body(framing, method, world):
    inner = SMUGGLED.replace(b"<key>", bearer(world.token("acme")))
    length = b"%d" % len(inner)
    framing = framing.replace(b"<length+5>", b"%d" % (len(inner) + 5)).replace(b"<length>", length)
    framing = framing.replace(b"<hex length>", b"%x" % len(inner))
    outer = method + b" /v1/models HTTP/1.1\r\n" + HOST + bearer(world.token("globex"))
    received = exchange(world.wire, outer + framing + inner)
    assert len(statuses(received)) == 1
    assert statuses(received)[0] in (400, 405, 413)
    assert b"acme" not in received


def test_a_body_that_is_refused_is_not_read_as_the_next_request(world):
    # Well framed: the body is skipped, and the next request is one of its own.
    body = SMUGGLED.replace(b"<key>", bearer(world.token("acme")))
    raw = WHOAMI + HOST + bearer(world.token("globex")) + b"Content-Length: %d\r\n\r\n" % len(body) + body
    raw += WHOAMI + HOST + bearer(world.token("hooli")) + b"\r\n"
    received = exchange(world.wire, raw)
    assert statuses(received)[0] == 413
    assert statuses(received)[1:] in ([], [200])
    assert b"acme" not in received


def test_trailers_do_not_join_the_headers(world):
    raw = WHOAMI + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + bearer(world.token("acme")) + b"\r\n"
    received = exchange(world.wire, raw)
    assert b"acme" not in received
    assert 200 not in statuses(received)


# --- connections


def test_pipelined_requests_get_their_own_answers_in_order(world):
    order = ["acme", "globex", "nobody", "hooli", "acme", "acme revoked", "globex"]
    callers = [world.callers[name] for name in order]
    raw = b"".join(
        WHOAMI + HOST + (bearer(caller.token) if caller.token else b"") + b"\r\n" for caller in callers
    )
    with world.wire.connect() as connection:
        connection.sendall(raw)
        received = b""
        while len(statuses(received)) < len(order) or not received.endswith(b"}\n"):
            received += connection.recv(1 << 16)
    assert statuses(received) == [200 if caller.is_valid else 401 for caller in callers]
    tenants = [tenant.decode() for tenant in re.findall(rb'"tenant":"(\w+)"', received)]
    assert tenants == [caller.tenant for caller in callers if caller.is_valid]


def test_a_pipelined_refusal_does_not_disturb_what_was_asked_before_it(world):
    raw = b"".join(WHOAMI + HOST + bearer(world.token(name)) + b"\r\n" for name in ("acme", "globex"))
    received = exchange(
        world.wire, raw + b"NONSENSE\r\n\r\n" + WHOAMI + HOST + bearer(world.token("hooli")) + b"\r\n"
    )
    assert statuses(received) == [200, 200, 400]
    assert re.findall(rb'"tenant":"(\w+)"', received) == [b"acme", b"globex"]


def test_connections_that_change_keys_never_mix_their_callers_up(world):
    wrong: list[str] = []
    order = ["acme", "globex", "hooli", "nobody", "acme by x-api-key", "acme expired", "globex"]

    def use_one_connection(offset: int) -> None:
        with world.wire.talk() as talk:
            for step in range(60):
                caller = world.callers[order[(offset + step) % len(order)]]
                answer = talk.get("/v1/whoami", headers=caller.headers)
                found = answer.json().get("tenant") if answer.status == 200 else answer.status
                if found != (caller.tenant if caller.is_valid else 401):
                    wrong.append(f"{caller.name} was answered as {found}")

    threads = [threading.Thread(target=use_one_connection, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_connection_that_sends_byte_by_byte_is_answered_as_any_other(world):
    raw = WHOAMI + HOST + bearer(world.token("acme")) + b"Connection: close\r\n\r\n"
    with world.wire.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw:
            connection.send(bytes([byte]))
        assert world.wire.read(connection).json()["tenant"] == "acme"
