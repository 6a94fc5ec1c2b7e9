"""Access tokens over real sockets: made for a key, good wherever a key is, and no forged one anywhere.

A gateway with every face: content, engine, links, the front door, and the token routes themselves.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

from gateway.adapters.clock import SystemClock
from gateway.identity.links import load_link_keys
from gateway.identity.signing_keys import load_signing_keys
from gateway.model_metadata.links import Links
from tests.forged_tokens import CASES, Forge

sys.path.append(str(Path(__file__).parent))  # the server beside us

from inference_stand_in import Reply, StandIn

PUBLIC_URL = "https://models.example"
SERVICE_KEY = "the-operators-own-key-1"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
API_KEY = "urn:cachegate:token-type:api-key"
FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
WEIGHTS, STAT = "/models/v1/external/weights", "/models/v1/external/stat"
RUN = ("acme/1", "/inference/infer/object_detection")


@dataclass
class Site:
    world: Any
    server: StandIn

    @property
    def wire(self):
        return self.world.gateway.wire

    @property
    def installation(self):
        return self.world.installation

    def key(self, name="acme"):
        return self.world.token(name)

    def key_id(self, name="acme"):
        return self.world.callers[name].key_id

    def new_key(self, *more):
        made = self.installation.json("keys", "create", *more)
        return made["token"], made["key_id"]

    def post(self, path, form, headers=()):
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        return self.post_as(path, body, "application/x-www-form-urlencoded", headers)

    def post_as(self, path, body, kind, headers=()):
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", "Connection: close", f"Content-Type: {kind}"]
        lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
        return self.wire.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def exchange(self, key, **more):
        form = {"grant_type": EXCHANGE, "subject_token": key, "subject_token_type": API_KEY, **more}
        return self.post("/v1/token", form)

    def by_client(self, key_id, key, **more):
        basic = b64encode(f"{key_id}:{key}".encode()).decode()
        form = {"grant_type": "client_credentials", **more}
        return self.post("/v1/token", form, (("Authorization", f"Basic {basic}"),))

    def token(self, key=None, **more):
        answer = self.exchange(key or self.key(), **more)
        assert answer.status == 200, answer.body
        return answer.json()["access_token"]

    def introspect(self, token, asking):
        return self.post("/v1/introspect", {"token": token}, (("Authorization", f"Bearer {asking}"),))

    def record(self, answer):
        [record] = [one for one in self.installation.records() if one.get("id") == answer.record_id]
        return record

    def reason(self, answer):
        return self.record(answer)["reason"]

    def link(self, key_id):
        links = Links(
            public_url=PUBLIC_URL,
            keys=load_link_keys(self.installation.state / "signing" / "links.key"),
            link_seconds=600,
            clock=SimpleNamespace(now=SystemClock().now),
        )
        url = urlsplit(links.url(key_id, "acme/cars/1", "pkgA1", "weights.onnx"))
        return f"{url.path}?{url.query}"


@pytest.fixture(scope="module")
def site(build_world):
    yield from built_site(build_world, "tokens")


@pytest.fixture(scope="module")
def attacked(build_world):
    """Another one for the forged tokens: so many refusals at once are recorded as a summary."""
    yield from built_site(build_world, "forged")


def built_site(build_world, name):
    server = StandIn()
    with server.running():
        settings = {
            "PUBLIC_URL": PUBLIC_URL,
            "AUDIT_REFUSALS_PER_SECOND": "10000",
            "INFERENCE_URL": server.url,
            "INFERENCE_KEY": SERVICE_KEY,
        }
        environment = {f"CACHEGATE_{name}": value for name, value in settings.items()}
        for built in build_world(name, workers=1, **environment):
            yield Site(built, server)
            built.installation.verify_audit()


@pytest.fixture(scope="module")
def forge(attacked):
    [key] = load_signing_keys(attacked.installation.state / "signing" / "tokens")
    return Forge(
        private=key.private,
        kid=key.kid,
        url=PUBLIC_URL,
        key_id=attacked.key_id(),
        tenant="acme",
        tenant_record=attacked.installation.json("tenants", "show", "acme")["record_id"],
        now=int(SystemClock().now()),
    )


def bearer(token):
    return (("Authorization", f"Bearer {token}"),)


def run_model(site, token, *, where):
    model, path = RUN
    document = {"model_id": model, "image": {"type": "base64", "value": "aGVsbG8="}}
    headers: tuple[tuple[str, str], ...] = ()
    match where:
        case "header":
            headers = bearer(token)
        case "query":
            path += f"?api_key={quote(token, safe='')}"
        case "body":
            document["api_key"] = token
    return site.post_as(path, json.dumps(document).encode(), "application/json", headers)


def wrapped(site, token):
    inner = quote(f"{PUBLIC_URL}{WEIGHTS}?modelId=acme/cars/1", safe="")
    return site.wire.get(f"/proxy?url={inner}", headers=bearer(token))


FACES = {
    "a file": lambda site, token: site.wire.get(FILE, headers=bearer(token)),
    "a file, by X-API-Key": lambda site, token: site.wire.get(FILE, headers=(("X-API-Key", token),)),
    "head": lambda site, token: site.wire.head(FILE, headers=bearer(token)),
    "a blob": lambda site, token: site.wire.get(f"/v1/blobs/{site.blob}", headers=bearer(token)),
    "the catalogue": lambda site, token: site.wire.get("/v1/models", headers=bearer(token)),
    "a package": lambda site, token: site.wire.get("/v1/models/acme/cars/1/-/pkgA1", headers=bearer(token)),
    "whoami": lambda site, token: site.wire.get("/v1/whoami", headers=bearer(token)),
    "weights": lambda site, token: site.wire.get(f"{WEIGHTS}?modelId=acme/cars/1", headers=bearer(token)),
    "stat": lambda site, token: site.wire.get(f"{STAT}?modelId=acme/cars/1", headers=bearer(token)),
    "proxy": wrapped,
    "beside a link": lambda site, token: site.wire.get(site.link(site.key_id()), headers=bearer(token)),
    "front door, header": lambda site, token: run_model(site, token, where="header"),
    "front door, query": lambda site, token: run_model(site, token, where="query"),
    "front door, body": lambda site, token: run_model(site, token, where="body"),
}
"""Every place where a credential may stand, but for the token routes."""

OF_TOKENS = {
    "subject token": lambda site, token: site.exchange(token),
    "client secret": lambda site, token: site.by_client(site.key_id(), token),
    "introspection, asking": lambda site, token: site.introspect(token, token),
}


@pytest.fixture(autouse=True)
def _at_first(request, facts):
    for name in {"site", "attacked"} & {*request.fixturenames}:
        site = request.getfixturevalue(name)
        site.blob = facts.digest_of(facts.shared)
        site.server.reset()
        site.server.replies["/infer/object_detection"] = Reply()


# Made


def test_a_key_is_exchanged_for_a_token_that_is_what_was_asked_for(site):
    answer = site.exchange(site.key(), scope="read discover", model="acme/cars/*", audience=PUBLIC_URL)
    assert answer.status == 200
    assert (answer.header("cache-control"), answer.header("pragma")) == ("no-store", "no-cache")
    told = answer.json()
    token = told.pop("access_token")
    assert told == {
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "discover read",
        "model": "acme/cars/*",
    }
    keys = jwt.PyJWKSet.from_dict(site.wire.get("/.well-known/jwks.json").json())
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", "EdDSA")
    claims = jwt.decode(token, keys[header["kid"]], audience=PUBLIC_URL, issuer=PUBLIC_URL)
    assert (claims["sub"], claims["client_id"]) == ("acme", site.key_id())
    record = site.record(answer)
    assert (record["decision"], record["action"], record["key_id"]) == ("allow", "exchange", site.key_id())


def test_a_stock_client_gets_and_uses_a_token(site):
    wire = site.wire
    url = f"http://{wire.host}:{wire.port}"
    with OAuth2Client(site.key_id(), site.key(), scope="read", token_endpoint=f"{url}/v1/token") as client:
        token = client.fetch_token(grant_type="client_credentials")
        assert (token["token_type"], token["scope"]) == ("Bearer", "read")
        assert client.get(f"{url}{FILE}").status_code == 200
        assert client.get(f"{url}/v1/whoami").json()["scopes"] == ["read"]
    stranger = OAuth2Client(site.key_id(), "cg_test_" + "0" * 30, token_endpoint=f"{url}/v1/token")
    with stranger as client, pytest.raises(OAuthError, match="invalid_client"):
        client.fetch_token(grant_type="client_credentials")


def test_metadata_tells_clients_where_all_this_is(site):
    answer = site.wire.get("/.well-known/oauth-authorization-server")
    told = answer.json()
    assert (told["issuer"], told["token_endpoint"]) == (PUBLIC_URL, f"{PUBLIC_URL}/v1/token")
    assert told["jwks_uri"] == f"{PUBLIC_URL}/.well-known/jwks.json"
    assert answer.header("cache-control") == "public, max-age=60"
    assert site.wire.head("/.well-known/jwks.json").status == 200
    assert site.wire.request("POST", "/.well-known/jwks.json").status == 405


REFUSED = {
    "no grant type": ({}, 400, "unsupported_grant_type", "unsupported-grant"),
    "another grant type": ({"grant_type": "password"}, 400, "unsupported_grant_type", "unsupported-grant"),
    "no type of token": ({"subject_token_type": ""}, 400, "invalid_request", "malformed-body"),
    "a token of another type": (
        {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        *(400, "invalid_request", "not-exchangeable"),
    ),
    "an actor": ({"actor_token": "x"}, 400, "invalid_request", "conflicting-credentials"),
    "another kind of token": ({"requested_token_type": "saml"}, 400, "invalid_request", "malformed-body"),
    "more than the key has": ({"scope": "read keys:manage"}, 400, "invalid_scope", "excess-scope"),
    "a scope that is none": ({"scope": "everything"}, 400, "invalid_scope", "excess-scope"),
    "another audience": ({"audience": "https://x.example"}, 400, "invalid_target", "foreign-audience"),
    "two audiences": (
        {"audience": PUBLIC_URL, "resource": "https://x.example"},
        *(400, "invalid_target", "foreign-audience"),
    ),
    "every model": ({"model": "*"}, 400, "invalid_request", "malformed-body"),
    "another client": ({"client_id": "key_000000000000"}, 400, "invalid_request", "conflicting-credentials"),
    "a mistyped key": ({"subject_token": "cg_test_x"}, 400, "invalid_request", "mistyped-key"),
    "an unknown key": ({"subject_token": "nobodys-key-at-all"}, 400, "invalid_request", "unknown-key"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_token_is_refused_as_oauth_says_and_recorded(site, case):
    changed, status, error, reason = REFUSED[case]
    form = {"grant_type": EXCHANGE, "subject_token": site.key(), "subject_token_type": API_KEY, **changed}
    if not changed:
        del form["grant_type"]
    answer = site.post("/v1/token", form)
    assert (answer.status, answer.json()["error"]) == (status, error)
    assert answer.header("cache-control") == "no-store"
    assert site.reason(answer) == reason
    assert site.key().encode() not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"grant_type=client_credentials&grant_type=client_credentials",
        b"grant_type=client_credentials&grant%5ftype=client_credentials",
        b"grant_type=client_credentials&scope=read&scope=",
        b"grant_type=client_credentials&scope=%zz",
        b"grant_type=client_credentials&scope=%ff",
        b"grant_type=client_credentials&scope=read%00",
        b"grant_type=client_credentials&scope=\xc3\xa9",
        b"&".join(b"p%d=1" % number for number in range(40)),
    ],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(site, body):
    basic = b64encode(f"{site.key_id()}:{site.key()}".encode()).decode()
    answer = site.post("/v1/token", body, (("Authorization", f"Basic {basic}"),))
    assert (answer.status, answer.json()["error"], site.reason(answer)) == (
        *(400, "invalid_request"),
        "malformed-body",
    )


def test_a_form_has_one_content_type_and_a_bounded_size(site):
    form = urlencode({"grant_type": "client_credentials"}).encode()
    for kind in ("application/json", "multipart/form-data; boundary=x", "text/plain", ""):
        assert site.post_as("/v1/token", form, kind).status == 400
    answer = site.post("/v1/token", b"x=" + b"a" * 20_000)
    assert (answer.status, answer.json()["error"]) == (413, "invalid_request")


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        ("Basic {id}:{key}", "malformed-credential"),
        ("Bearer {key}", "unsupported-scheme"),
        ("Basic !!!", "unsupported-scheme"),
        ("Digest {key}", "unsupported-scheme"),
    ],
)
def test_a_client_authenticates_by_basic_and_in_no_other_way(site, authorization, reason):
    value = authorization.format(id=site.key_id(), key=site.key())
    if ":" in value:
        value = "Basic " + b64encode(b":").decode()
        reason = "no-credential"
    answer = site.post("/v1/token", {"grant_type": "client_credentials"}, (("Authorization", value),))
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    assert answer.header("www-authenticate").startswith("Basic ")
    assert site.reason(answer) == reason


def test_a_key_is_accepted_with_its_own_id_alone_and_in_one_place(site):
    assert site.by_client(site.key_id(), site.key()).status == 200
    other = site.by_client(site.key_id("globex"), site.key())
    wrong_key = site.by_client(site.key_id(), "an-opaque-key-that-nobody-has")
    for answer in (other, wrong_key):
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
        assert answer.header("www-authenticate").startswith("Basic ")
    assert site.reason(other) == "wrong-client"
    twice = site.post(
        "/v1/token",
        {"grant_type": EXCHANGE, "subject_token": site.key(), "subject_token_type": API_KEY},
        bearer(site.key()),
    )
    assert site.reason(twice) == "conflicting-credentials"
    in_url = site.post(f"/v1/token?subject_token={site.key()}", {"grant_type": EXCHANGE})
    assert in_url.status == 400
    in_form = site.by_client(site.key_id(), site.key(), client_secret=site.key())
    assert site.reason(in_form) == "conflicting-credentials"


def test_basic_is_understood_on_the_token_route_alone(site):
    basic = b64encode(f"{site.key_id()}:{site.key()}".encode()).decode()
    answer = site.wire.get("/v1/whoami", headers=(("Authorization", f"Basic {basic}"),))
    assert (answer.status, site.reason(answer)) == (401, "unsupported-scheme")


def test_a_token_is_never_exchanged_for_another(site):
    token = site.token()
    answers = [work(site, token) for work in (OF_TOKENS["subject token"], OF_TOKENS["client secret"])]
    assert {(one.status, site.reason(one)) for one in answers} == {(400, "not-exchangeable")}


# Used


@pytest.mark.parametrize("face", FACES)
def test_a_token_is_good_wherever_its_key_is(site, face):
    answer = FACES[face](site, site.token())
    assert answer.status == 200, answer.body
    record = site.record(answer)
    assert (record["decision"], record["key_id"]) == ("allow", site.key_id())
    assert record["principal"] == ("link" if face == "beside a link" else "token")


@pytest.mark.parametrize("face", [*FACES, *OF_TOKENS])
def test_no_forged_token_opens_any_face(attacked, forge, face):
    work = {**FACES, **OF_TOKENS}[face]
    for case in CASES:
        token = forge.make(case)
        while (answer := work(attacked, token)).status == 503:  # a lease ends on a busy machine
            assert answer.header("retry-after") is not None
        assert answer.status in {400, 401}, (case["name"], answer.status)
        assert token.encode() not in answer.body, case["name"]
    assert attacked.server.asked() == []


def test_no_forged_token_is_active(attacked, forge):
    asking = attacked.installation.json("keys", "create", "--admin", "--scopes", "tokens:introspect")["token"]
    answers = [attacked.introspect(forge.make(case), asking) for case in CASES]
    assert {(one.status, one.body) for one in answers} == {(200, b'{"active":false}\n')}


def test_a_token_is_in_no_record_no_log_and_no_metric(attacked, forge):
    token = attacked.token()
    for work in (*FACES.values(), *OF_TOKENS.values()):
        work(attacked, token)
    forged = [forge.make(case) for case in CASES[:5]]
    for one in forged:
        attacked.wire.get("/v1/whoami", headers=(*bearer(one), ("User-Agent", one[-40:])))
    everything = json.dumps(attacked.installation.records()) + attacked.world.gateway.log()
    for secret in (token, token.rpartition(".")[2], *(one for one in forged if len(one) > 40)):
        assert secret not in everything


def test_a_read_with_a_known_token_is_answered_at_once_as_one_with_a_key(site, eventually):
    """Once its facts are known, and the file is old enough to be held."""
    token = site.token()

    def at_once():
        return site.world.gateway.metrics()["cachegate_answers_at_once_total"]

    def are_all_at_once():
        before = at_once()
        with site.wire.talk() as talk:
            assert {talk.get(FILE, headers=bearer(token)).status for _ in range(5)} == {200}
        return at_once() >= before + 5

    eventually(are_all_at_once)


def test_whoami_says_what_a_token_is(site):
    told = site.wire.get("/v1/whoami", headers=bearer(site.token(scope="read", model="acme/cars/1"))).json()
    token = told.pop("token")
    assert token["model"] == "acme/cars/1"
    assert (told["key_id"], told["tenant"], told["scopes"]) == (site.key_id(), "acme", ["read"])
    assert told["expires_at"] is not None


def test_a_scope_that_a_token_lacks_is_lacking_everywhere(site):
    discover, read = site.token(scope="discover"), site.token(scope="read")
    assert site.wire.get(FILE, headers=bearer(discover)).status == 403
    assert site.wire.get("/v1/models/acme/cars/1", headers=bearer(discover)).status == 200
    assert run_model(site, read, where="header").status in {403, 404}
    assert site.server.asked() == []


def test_a_token_that_is_narrowed_to_models_knows_of_no_other(site):
    token = site.token(model="acme/trucks/*")
    listed = site.wire.get("/v1/models", headers=bearer(token)).json()["models"]
    assert [one["id"] for one in listed] == ["acme/trucks/2"]
    hidden, absent = (
        FACES["a file"](site, token),
        site.wire.get("/v1/models/acme/no/1", headers=bearer(token)),
    )
    assert {hidden.status, absent.status} == {404}
    assert hidden.comparable() == absent.comparable()
    for face in ("a blob", "a package", "weights", "stat", "proxy", "front door, header"):
        assert FACES[face](site, token).status == 404, face
    assert site.wire.get("/v1/models/acme/trucks/2", headers=bearer(token)).status == 200
    one = site.token(model="acme/trucks/2")
    assert site.wire.get("/v1/models/acme/trucks/2", headers=bearer(one)).status == 200
    assert site.wire.get("/v1/models/acme-cars", headers=bearer(one)).status == 404  # by an alias neither


def test_a_link_that_a_token_got_names_its_key_and_ends_with_it(site):
    told = site.wire.get(f"{WEIGHTS}?modelId=acme/cars/1", headers=bearer(site.token())).json()
    text = json.dumps(told)
    assert f"sig={site.key_id()}." in text
    ends_at = int(text.partition("?se=")[2].partition("&")[0])
    assert ends_at <= SystemClock().now() + 900


def test_the_operators_key_goes_to_the_server_and_the_token_does_not(site):
    token = site.token()
    for where in ("header", "query", "body"):
        run_model(site, token, where=where)
    for seen in site.server.asked():
        said = f"{seen.target} {seen.headers} {seen.body.decode()}"
        assert token not in said
        assert SERVICE_KEY in said


# Told about


def test_only_who_has_the_scope_is_told_about_tokens(site):
    assert site.introspect(site.token(), site.key()).status == 403
    asking, _ = site.new_key("--tenant", "acme", "--scopes", "tokens:introspect")
    told = site.introspect(site.token(scope="read"), asking).json()
    assert (told["active"], told["client_id"], told["scope"], told["sub"]) == (
        *(True, site.key_id()),
        *("read", "acme"),
    )
    other, _ = site.new_key("--tenant", "globex", "--scopes", "tokens:introspect")
    assert site.introspect(site.token(), other).json() == {"active": False}
    assert site.introspect(site.key(), asking).json() == {"active": False}
    assert site.post("/v1/introspect", {"x": "y"}, bearer(asking)).status == 400


# Ended


def test_the_record_of_an_introspection_says_on_which_facts_it_was_decided(site):
    key, _ = site.new_key("--tenant", "acme", "--scopes", "tokens:introspect")
    for token in (site.token(), "no token at all"):
        answer = site.introspect(token, key)
        assert answer.status == 200
        assert site.record(answer)["generation"] > 0


def test_a_token_dies_with_its_key_and_is_not_active_any_more(site):
    key, key_id = site.new_key("--tenant", "acme")
    asking, _ = site.new_key("--admin", "--scopes", "tokens:introspect")
    token = site.token(key)
    assert site.wire.get(FILE, headers=bearer(token)).status == 200
    assert site.introspect(token, asking).json()["active"]
    site.installation.run("keys", "revoke", key_id)
    answer = site.wire.get(FILE, headers=bearer(token))
    assert (answer.status, site.reason(answer)) == (401, "revoked-key")
    assert site.introspect(token, asking).json() == {"active": False}
    assert site.exchange(key).status == 400


def test_a_key_that_expires_soon_gets_a_token_that_ends_with_it(site):
    key, _ = site.new_key("--tenant", "acme", "--expires", "90s")
    assert site.exchange(key).json()["expires_in"] <= 90


def test_a_key_that_begins_like_a_token_is_not_imported(site):
    command = ("keys", "import", "--tenant", "acme", "--stdin")
    done = site.installation.run(*command, status=2, text="eyJhbGciOiJub25lIn0-a-key\n")
    assert "access token" in done.stderr


def test_a_new_key_signs_only_once_every_worker_has_it(site, eventually):
    workers = b"{cachegate}:workers"
    before = [one["kid"] for one in site.installation.json("tokens", "keys") if one["role"] == "signing"]
    with site.installation.redis() as redis:
        redis.hset(workers, "another-node:1:abcd", "1:1")  # a worker that serves, and has not heard of it
        redis.hset(workers, "no-tokens:1:abcd", "1:1")  # one that neither makes nor accepts tokens
        redis.set("{cachegate}:token-keys:no-tokens:1:abcd", "-")
        waiting = site.installation.json("tokens", "rotate", "--patience", "0", status=1)
        assert not waiting["signs"]
        assert "another-node:1:abcd" in waiting["lacking"]
        assert "no-tokens:1:abcd" not in waiting["lacking"]

        def published():
            return {one["kid"] for one in site.wire.get("/.well-known/jwks.json").json()["keys"]}

        eventually(lambda: waiting["kid"] in published())
        assert jwt.get_unverified_header(site.token())["kid"] == before[0]
        redis.hdel(workers, "another-node:1:abcd")
        done = site.installation.json("tokens", "rotate")
        redis.hdel(workers, "no-tokens:1:abcd")
    assert (done["signs"], done["kid"]) == (True, waiting["kid"])


def test_keys_are_rotated_without_refusing_a_valid_token(site):
    before = site.token()
    old = load_signing_keys(site.installation.state / "signing" / "tokens")[-1]
    done = site.installation.json("tokens", "rotate")
    assert done["signs"]
    assert done["kid"] != old.kid
    keys = {one["kid"]: one for one in site.installation.json("tokens", "keys")}
    assert (keys[old.kid]["role"], keys[done["kid"]]["role"]) == ("retired", "signing")
    assert site.wire.get(FILE, headers=bearer(before)).status == 200
    published = site.wire.get("/.well-known/jwks.json").json()["keys"]
    assert {one["kid"] for one in published} == set(keys)
