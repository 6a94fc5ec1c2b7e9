"""One table of requests through nginx, Envoy, Traefik and Caddy, which ask the gateway before they serve.

Each has its shipped configuration. The statuses are the same through each; what is not allowed never reaches
the server of the files; and every answer with content has a record of an allow, closed as handed off.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any

import pytest
from asking import BEHIND, COMMANDS, Files, Ports, proxy_running

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import keys as key_operations
from gateway.directory.edits.models import own
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import parse_pattern, parse_tenant_id

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 2000
HIDDEN_CONTENT = b"of another tenant\n" * 50
MD5 = md5(CONTENT, usedforsecurity=False).hexdigest()
HIDDEN_MD5 = md5(HIDDEN_CONTENT, usedforsecurity=False).hexdigest()
BLOB = f"/v1/blobs/{MD5}"
FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
HIDDEN = "/v1/models/globex/cars/1/-/pkgG1/weights.bin"
ABSENT = "/v1/models/globex/none/1/-/pkgG1/weights.bin"
METADATA = "/models/v1/external/weights?modelId=acme/cars/1"
SETTINGS = {
    "CACHEGATE_TRUSTED_PROXIES": "127.0.0.1",
    "CACHEGATE_PUBLIC_URL": "http://gateway",
    "CACHEGATE_AUDIT_REFUSALS_PER_SECOND": "10000",  # each refusal of a stranger is looked up
}


@dataclass
class Asking:
    """A gateway, the proxies that ask it, and what is behind them."""

    installation: Any
    gateway: Any
    keys: dict[str, str]
    wires: dict[str, Any]
    folders: dict[str, Path]
    files: Files
    link: str

    def send(self, proxy, raw):
        return self.wires[proxy].send(raw, is_head=raw.startswith(b"HEAD "))


async def _furnish(session):
    now, made = session.clock.now(), {}
    tenants = {name: parse_tenant_id(name) for name in ("acme", "globex")}
    orders = {
        "owner": KeyOrder(now=now, kind=KeyKind.TENANT, tenant=tenants["acme"]),
        "other": KeyOrder(now=now, kind=KeyKind.TENANT, tenant=tenants["globex"]),
        "discover": KeyOrder(
            now=now, kind=KeyKind.TENANT, tenant=tenants["acme"], scopes=frozenset({Scope.DISCOVER})
        ),
        "bound": KeyOrder(now=now, kind=KeyKind.TENANT, tenant=tenants["acme"], networks=("203.0.113.0/24",)),
    }
    issued = {
        name: issue_key(order, environment="test", peppers=session.peppers) for name, order in orders.items()
    }

    async def work(changes):
        for name, tenant in tenants.items():
            await create_tenant(changes, tenant_id=tenant, name=name, now=now)
            await own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{name}/*")])
        for name, new in issued.items():
            await key_operations.create_key(changes, key=new.key, digest=new.digest)
            made[name] = new.token

    await session.perform("site.furnish", work)
    return made


@contextmanager
def asking(installation, new_wire, tmp_path_factory, *, awaited=401):
    """Everything started; `awaited` is what the proxies answer to a stranger once they ask."""
    models = [
        SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"weights.bin": CONTENT}}),
        SampleModel(model_id="globex/cars/1", packages={"pkgG1": {"weights.bin": HIDDEN_CONTENT}}),
    ]
    write_sample_cache(installation.cache_root, models)
    keys = installation.in_session(_furnish)
    with ExitStack() as stack:
        gateway = installation.serve(workers=1)
        stack.callback(gateway.stop)
        files = Files()
        stack.callback(files.stop)
        wires, folders = {}, {}
        for name in COMMANDS:
            wire = new_wire()
            ports = Ports(proxy=wire.port, gateway=gateway.wire.port, files=files.port)
            folder = tmp_path_factory.mktemp(name)
            stack.enter_context(proxy_running(name, folder, ports, installation.cache_root, wire, awaited))
            wires[name], folders[name] = wire, folder
        answer = gateway.wire.get(METADATA, keys["owner"])
        [link] = re.findall(r'"(http://gateway/d/[^"]+)"', answer.body.decode())
        yield Asking(installation, gateway, keys, wires, folders, files, link.removeprefix("http://gateway"))


@pytest.fixture(scope="module")
def site(new_installation, new_wire, tmp_path_factory):
    installation = new_installation("asking", **SETTINGS)
    with asking(installation, new_wire, tmp_path_factory) as made:
        yield made


def raw(method, target, key=None, *headers, host="gateway"):
    lines = [f"{method} {target} HTTP/1.1", "Connection: close"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def of(name, target, *headers, method="GET", host="gateway", body=b"", key="owner"):
    """A case: what it is called, and a function from the keys of the site to the bytes that are sent."""
    return pytest.param(lambda keys: raw(method, target, keys.get(key), *headers, host=host) + body, id=name)


TOLD = ("X-Original-URI: {0}", "X-Original-Method: GET", "X-Forwarded-Uri: {0}", "X-Forwarded-Method: GET")
ALIKE = ("X_Original_URI: {0}", "X_Original_Method: GET", "X_Forwarded_Uri: {0}", "X_Forwarded_For: {1}")


def told(headers, target, client="203.0.113.9"):
    return tuple(one.format(target, client) for one in headers)


ALLOWED = [
    of("blob", BLOB),
    of("head-of-a-blob", BLOB, method="HEAD"),
    of("file", FILE),
    of("head-of-a-file", FILE, method="HEAD"),
    of("range", BLOB, "Range: bytes=0-9"),
    of("key-in-two-headers", FILE, "X-API-Key: {owner}"),
    of("empty-query", FILE + "?"),
    of("absolute-form", "http://gateway" + BLOB),
    of("absolute-form-of-another-host", "http://elsewhere.example" + BLOB),
    of("host-of-somebody-else", BLOB, host="127.0.0.1:9000"),
    of("forged-headers-that-name-another-file", FILE, *told(TOLD, HIDDEN)),
    of("forged-look-alikes", FILE, *told(ALIKE, HIDDEN)),
    of("chunked-and-empty", BLOB, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    of("upgrade", BLOB, "Upgrade: websocket"),
    of("link", "{link}", key=None),
]
REFUSED = {
    400: [
        of("two-keys", FILE, "X-API-Key: another-key-of-somebody"),
        of("key-in-the-url", FILE + "?api_key=abcdefghijkl"),
        of("query-that-is-not-decided", FILE + "?versionId=1"),
        of("catalogue", "/v1/models"),
        of("model", "/v1/models/acme/cars/1"),
        of("package", "/v1/models/acme/cars/1/-/pkgA1"),
        of("whoami", "/v1/whoami"),
        of("metadata", "/models/v1/external/weights?modelId=acme/cars/1"),
        of("check-of-a-check", "/check/nginx", *told(TOLD, FILE)),
        of("root", "/"),
        of("encoded-slash", "/v1/models/acme%2Fcars/1/-/pkgA1/weights.bin"),
        of("encoded-slash-after-dots", "/v1/models/globex/..%2facme/cars/1/-/pkgA1/weights.bin"),
        of("encoded-dots", "/v1/models/globex/%2e%2e/acme/cars/1/-/pkgA1/weights.bin"),
        of("encoded-dots-and-slash", "/v1/models/globex%2f%2e%2e%2facme/cars/1/-/pkgA1/weights.bin"),
        of("dots", "/v1/models/globex/../acme/cars/1/-/pkgA1/weights.bin"),
        of("dots-above-the-root", "/../v1/blobs/" + MD5),
        of("dot", "/v1/./blobs/" + MD5),
        of("dots-at-the-end", FILE + "/.."),
        of("two-slashes-first", "//v1/blobs/" + MD5),
        of("two-slashes", "/v1//blobs/" + MD5),
        of("slash-at-the-end", FILE + "/"),
        of("upper-case-digest", "/v1/blobs/" + MD5.upper()),
        of("semicolon", "/v1/models/acme/cars;v=2/1/-/pkgA1/weights.bin"),
        of("dots-and-semicolon", "/v1/models/globex/..;/acme/cars/1/-/pkgA1/weights.bin"),
        of("encoded-backslash", "/v1/models/acme%5Ccars/1/-/pkgA1/weights.bin"),
        of("backslash", "/v1/models/acme\\cars/1/-/pkgA1/weights.bin"),
        of("encoded-nul", FILE + "%00"),
        of("encoded-twice", "/v1/models/globex/%252e%252e/acme/cars/1/-/pkgA1/weights.bin"),
        of("escape-that-is-none", "/v1/models/acme/%zz/-/pkgA1/weights.bin"),
        of("encoded-blank", "/v1/models/acme/a%20b/-/pkgA1/weights.bin"),
        of("encoded-question-mark", FILE + "%3Fx"),
        of("encoded-fragment", FILE + "%23x"),
        of("fragment", FILE + "#x"),
        of("bytes-beyond-ascii", "/v1/models/acme/\xe9/-/pkgA1/weights.bin"),
        of("target-without-slash", "v1/blobs/" + MD5),
        of("host-with-a-path", BLOB, host="a/../b"),
        of("no-host", BLOB, host=None),
        of("two-lengths", BLOB, "Content-Length: 1", "Content-Length: 2", body=b"ab"),
        of("negative-length", BLOB, "Content-Length: -1"),
        of("length-with-a-sign", BLOB, "Content-Length: +1", body=b"a"),
        of("blank-in-a-name", BLOB, "X-Bad Name: 1"),
    ],
    401: [
        of("no-key", FILE, key=None),
        of("no-key-for-what-is-not-there", ABSENT, key=None),
        of("no-key-of-ours", FILE, "X-API-Key: cg_test_nope", key=None),
        of("key-under-a-look-alike", FILE, "X_API_Key: {owner}", key=None),
        of("key-of-other-networks", FILE, key="bound"),
        of("forged-address", FILE, "X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9", key="bound"),
        of("forged-forwarded", FILE, "Forwarded: for=203.0.113.9", *told(ALIKE, FILE), key="bound"),
        of("forged-link", "{link}A", key=None),
        of("link-of-another-file", "{link_elsewhere}", key=None),
    ],
    403: [of("scope-is-missing", FILE, key="discover")],
    404: [
        of("hidden-file", HIDDEN),
        of("absent-file", ABSENT),
        of("hidden-blob", "/v1/blobs/" + HIDDEN_MD5),
        of("absent-blob", "/v1/blobs/" + "0" * 32),
        of("nowhere", "/nowhere"),
        of("nowhere-with-another-method", "/nowhere", method="DELETE"),
        of("upper-case", "/V1/blobs/" + MD5),
        of("hidden-absolute-form", "http://gateway" + HIDDEN),
        of("forged-headers-that-name-an-allowed-file", HIDDEN, *told(TOLD, FILE)),
        of("forged-look-alikes", HIDDEN, *told(ALIKE, FILE)),
        of("forged-yes", HIDDEN, "Cachegate-Status: 200", f"X-Accel-Redirect: {BLOB}"),
        of("name-beyond-ascii", "/v1/models/acme/%C3%A9/-/pkgA1/weights.bin"),
    ],
    405: [
        of(method.lower(), FILE, "Content-Length: 0", method=method)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "TRACE")
    ]
    + [
        of(
            "forged-method",
            FILE,
            "X-HTTP-Method-Override: GET",
            "Content-Length: 0",
            *told(TOLD, FILE),
            method="DELETE",
        )
    ],
    414: [of("long-target", "/v1/models/" + "a" * 8300)],
    431: [of("long-headers", FILE, *(f"X-Padding-{number}: {'a' * 7000}" for number in range(6)))],
    501: [of("coding-that-nobody-knows", BLOB, "Transfer-Encoding: x")],
}


def sent(case, site):
    """The bytes of a case, with the names of the site put in."""
    known = {**site.keys, "link": site.link, "link_elsewhere": site.link.replace("weights", "other")}
    text = case(site.keys)
    for name, value in known.items():
        text = text.replace(b"{%b}" % name.encode(), value.encode())
    return text


def is_the_gateways(answer):
    return answer.body.startswith(b'{"type":"urn:cachegate:problem:')


@pytest.mark.parametrize("proxy", COMMANDS)
@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_is_served_and_recorded_as_handed_off(case, proxy, site):
    before, what = len(site.files.asked), sent(case, site)
    known = {one["id"] for one in site.installation.records()}
    answer = site.send(proxy, what)
    is_blob, is_part = b"/v1/blobs/" in what, b"Range:" in what
    content = CONTENT if proxy == "nginx" and is_blob else BEHIND
    if is_part and content is CONTENT:
        assert (answer.status, answer.body) == (206, CONTENT[:10])
    else:
        assert (answer.status, answer.body) == (200, b"" if what.startswith(b"HEAD") else content)
    assert len(site.files.asked) - before == (content is BEHIND)
    [decided] = [
        one for one in site.installation.records() if one["id"] not in known and one["kind"] == "decision"
    ]
    assert (decided["decision"], decided["action"], decided["tenant"]) == ("allow", "read", "acme")
    assert decided["request"]["route"].startswith("/check/")
    assert decided["request"]["method"] == what.split(b" ")[0].decode()
    assert decided["resource"]["file"] == "weights.bin"
    outcome = site.installation.outcome_of(decided["id"])
    assert (outcome["ending"], outcome["status"], outcome["bytes"]) == ("handed-off", 200, 0)


@pytest.mark.parametrize(
    ("status", "case"),
    [pytest.param(status, *case.values, id=case.id) for status, cases in REFUSED.items() for case in cases],
)
def test_what_is_refused_has_one_status_through_each_and_is_asked_of_nobody_else(status, case, site):
    before = len(site.files.asked)
    answers = {proxy: site.send(proxy, sent(case, site)) for proxy in COMMANDS}
    assert {proxy: answer.status for proxy, answer in answers.items()} == dict.fromkeys(COMMANDS, status)
    assert site.files.asked[before:] == []
    if all(is_the_gateways(answer) for answer in answers.values()):
        bodies = {answer.body.replace(answer.record_id.encode(), b"R") for answer in answers.values()}
        assert len(bodies) == 1
        recorded = {one["id"]: one for one in site.installation.records() if one["kind"] == "decision"}
        for answer in answers.values():
            assert recorded[answer.record_id]["decision"] == "deny"


@pytest.mark.parametrize("proxy", COMMANDS)
@pytest.mark.parametrize(
    ("hidden", "absent"), [(HIDDEN, ABSENT), ("/v1/blobs/" + HIDDEN_MD5, "/v1/blobs/" + "0" * 32)]
)
def test_hidden_and_absent_are_alike(hidden, absent, proxy, site):
    key = site.keys["owner"]
    one, other = (site.send(proxy, raw("GET", target, key)).comparable() for target in (hidden, absent))
    assert ignoring_times(one) == ignoring_times(other)


def ignoring_times(comparable):
    status, headers, body = comparable
    return status, [pair for pair in headers if pair[0] != "x-envoy-upstream-service-time"], body


@pytest.mark.parametrize("proxy", COMMANDS)
def test_a_refusal_tells_what_can_be_done(proxy, site):
    unauthorized = site.send(proxy, raw("GET", FILE))
    assert unauthorized.header("www-authenticate") == 'Bearer realm="cachegate"'
    wrong_method = site.send(proxy, raw("DELETE", FILE, site.keys["owner"]))
    assert wrong_method.header("allow") == "GET, HEAD"
    for answer in (unauthorized, wrong_method):
        assert answer.header("content-type") == "application/problem+json"
        assert answer.header("cache-control") == "no-store"
        assert answer.json()["record"] == answer.record_id
        assert answer.json()["status"] == answer.status


@pytest.mark.parametrize("proxy", COMMANDS)
def test_the_key_goes_no_further_than_the_proxy(proxy, site):
    before, key = len(site.files.asked), site.keys["owner"]
    assert site.send(proxy, raw("GET", FILE, key, f"X-API-Key: {key}")).status == 200
    [(method, target, headers)] = site.files.asked[before:]
    assert (method, target) == ("GET", FILE)
    assert key not in str(headers)


@pytest.mark.parametrize(
    ("target", "served"),
    [("/v1/blob%73/" + MD5, BLOB), ("/v1/models/acme/cars/1/%2D/pkgA1/weights.bin", FILE)],
)
def test_traefik_decodes_before_it_asks_and_serves_what_was_decided(target, served, site):
    """Escapes of letters, digits, dash, dot, underscore and tilde. Through the others this is 400."""
    before = len(site.files.asked)
    for proxy in COMMANDS:
        expected = 200 if proxy == "traefik" else 400
        assert site.send(proxy, raw("GET", target, site.keys["owner"])).status == expected
    assert [target for _, target, _ in site.files.asked[before:]] == [served]


def test_a_length_beside_chunks_is_refused_or_dropped(site):
    """nginx and Envoy refuse it; Go, in which the others are written, drops the length (RFC 9112, 6.3)."""
    before = len(site.files.asked)
    text = raw("GET", FILE, site.keys["owner"], "Content-Length: 5", "Transfer-Encoding: chunked")
    statuses = {proxy: site.send(proxy, text + b"0\r\n\r\n").status for proxy in COMMANDS}
    assert statuses == {"nginx": 400, "envoy": 400, "traefik": 200, "caddy": 200}
    assert [headers.get("content-length") for _, _, headers in site.files.asked[before:]] == [None, None]


def test_blobs_that_nginx_sends_itself_have_the_gateways_headers(site):
    answer = site.send("nginx", raw("GET", BLOB, site.keys["owner"]))
    names = [name for name, _ in answer.headers]
    assert answer.header("etag") == f'"{sha256(CONTENT).hexdigest()}"'
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("cache-control") == "private, no-cache"
    assert answer.header("last-modified") is None
    assert answer.header("cachegate-key") is None
    assert len(names) == len(set(names))


def test_a_range_of_a_blob_is_bound_to_the_gateways_tag(site):
    key, etag = site.keys["owner"], f'"{sha256(CONTENT).hexdigest()}"'
    for tag, status in ((etag, 206), ('"other"', 200)):
        ranged = raw("GET", BLOB, key, "Range: bytes=1000-1999", f"If-Range: {tag}")
        answer = site.send("nginx", ranged)
        assert (answer.status, len(answer.body)) == (status, 1000 if status == 206 else len(CONTENT))


@pytest.mark.parametrize("proxy", COMMANDS)
def test_the_log_of_a_proxy_has_the_record_and_neither_path_nor_key(proxy, site, eventually):
    known = {one["id"] for one in site.installation.records()}
    assert site.send(proxy, raw("GET", FILE, site.keys["owner"])).status == 200
    assert site.send(proxy, raw("GET", site.link)).status == 200
    recorded = [one["id"] for one in site.installation.records() if one["kind"] == "decision"]
    logs = [site.folders[proxy] / name for name in ("output.log", "cachegate.log")]

    def logged():
        return "".join(one.read_text() for one in logs if one.exists())

    for record_id in recorded:
        if record_id not in known:
            eventually(lambda record_id=record_id: record_id in logged())
    assert "acme" in logged()
    assert "weights.bin" not in logged()
    assert "sig=" not in logged()
    assert site.keys["owner"] not in logged()


@pytest.mark.parametrize("proxy", COMMANDS)
@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_no_client_gets_a_tunnel_to_the_server_of_the_files(protocol, proxy, site):
    """What goes through a tunnel would be asked of nobody."""
    before = len(site.files.asked)
    text = (
        f"GET {FILE} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {site.keys['owner']}\r\n"
        f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n"
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    )
    site.send(proxy, text.encode())
    for _, _, headers in site.files.asked[before:]:
        assert "upgrade" not in headers
        assert "upgrade" not in headers.get("connection", "").lower()


@pytest.mark.parametrize("proxy", COMMANDS)
def test_no_log_quotes_a_link_whose_transfer_broke_off(proxy, site, eventually):
    before = len(site.files.asked)
    with socket.create_connection(("127.0.0.1", site.wires[proxy].port), timeout=20) as connection:
        connection.sendall(raw("GET", site.link, None, "X-Break-Off: yes"))
        with suppress(ConnectionResetError):
            while connection.recv(1 << 16):
                pass
    assert len(site.files.asked) - before == 1
    assert site.send(proxy, raw("GET", FILE, site.keys["owner"])).status == 200
    *_, last = [one["id"] for one in site.installation.records() if one["kind"] == "decision"]
    logs = [site.folders[proxy] / name for name in ("output.log", "cachegate.log")]

    def logged():
        return "".join(one.read_text() for one in logs if one.exists())

    eventually(lambda: last in logged())
    assert "sig=" not in logged()


@pytest.mark.parametrize("proxy", COMMANDS)
def test_what_a_client_says_in_our_headers_reaches_neither_a_log_nor_the_server_of_the_files(
    proxy, site, eventually
):
    ours = ("Record", "Tenant", "Key")
    forged = [f"Cachegate-{name}: said-by-the-client" for name in ours]
    before = len(site.files.asked)
    assert site.send(proxy, raw("GET", FILE, None, *forged)).status == 401
    assert site.send(proxy, raw("GET", FILE, site.keys["owner"], *forged)).status == 200
    *_, last = [one["id"] for one in site.installation.records() if one["kind"] == "decision"]
    [(_, _, headers)] = site.files.asked[before:]
    assert "said-by-the-client" not in str(headers)
    logs = [site.folders[proxy] / name for name in ("output.log", "cachegate.log")]

    def logged():
        return "".join(one.read_text() for one in logs if one.exists())

    eventually(lambda: last in logged())
    assert "said-by-the-client" not in logged()


@pytest.mark.parametrize("proxy", COMMANDS)
def test_a_large_file_is_checked_from_memory(proxy, site, eventually):
    """Its content is not in memory, and need not be. A file that was just written is not held yet."""
    counted, question = "cachegate_answers_at_once_total", raw("GET", FILE, site.keys["owner"])

    def are_all_from_memory():
        before = site.gateway.metrics()[counted]
        assert {site.send(proxy, question).status for _ in range(5)} == {200}
        return site.gateway.metrics()[counted] == before + 5

    eventually(are_all_from_memory)


@pytest.mark.parametrize("path", ["/_check", "/_refused", "/_problem"])
def test_internal_locations_of_nginx_are_nobodys_to_ask_for(path, site):
    answer = site.send("nginx", raw("GET", path, site.keys["owner"]))
    assert answer.status == 404


def test_a_proxy_that_is_not_trusted_gets_no_yes(new_installation, new_wire, tmp_path_factory):
    installation = new_installation("untrusted", CACHEGATE_PUBLIC_URL="http://gateway")
    with asking(installation, new_wire, tmp_path_factory, awaited=403) as site:
        for proxy in COMMANDS:
            answer = site.send(proxy, raw("GET", FILE, site.keys["owner"]))
            assert answer.status == 403
            assert answer.json()["type"] == "urn:cachegate:problem:untrusted-proxy"
        assert site.files.asked == []


def test_without_redis_and_without_a_gateway_it_is_503(
    new_installation, new_wire, tmp_path_factory, eventually
):
    installation = new_installation("failing", **SETTINGS)
    with asking(installation, new_wire, tmp_path_factory) as site:
        question = raw("GET", FILE, site.keys["owner"])
        assert {site.send(proxy, question).status for proxy in COMMANDS} == {200}
        served = len(site.files.asked)
        redis_pid = installation.redis().info("server")["process_id"]
        os.kill(redis_pid, signal.SIGSTOP)
        try:
            eventually(lambda: site.gateway.wire.get(FILE, site.keys["owner"]).status == 503)
            for proxy in COMMANDS:
                check_unavailable(site.send(proxy, question))
        finally:
            os.kill(redis_pid, signal.SIGCONT)
        eventually(lambda: site.gateway.wire.get(FILE, site.keys["owner"]).status == 200)
        site.gateway.stop()
        for proxy in COMMANDS:
            check_unavailable(site.send(proxy, question))
            check_unavailable(
                site.send(proxy, raw("GET", site.link, None, f"X-API-Key: {site.keys['owner']}"))
            )
        assert len(site.files.asked) == served
    for proxy, folder in site.folders.items():  # the proxies have ended: their logs are complete
        logged = "".join(one.read_text() for one in folder.glob("*.log"))
        assert "sig=" not in logged, proxy
        assert site.keys["owner"] not in logged, proxy


def check_unavailable(answer):
    assert answer.status == 503
    assert BEHIND not in answer.body
