"""Tokens of an outside issuer over HTTP: a real issuer in a process of its own, and a served gateway."""

from __future__ import annotations

import re
import shutil
import time
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits.changes import change
from gateway.directory.records import names
from gateway.model.issuers import KEY_SET_SECONDS, issuer_digest
from tests.outside_issuer import Issuer, rule

HERE = Path(__file__).parents[1] / "cases"
CONTENT = b"what a CI job reads\n" * 50
FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
THEIRS = "/v1/models/globex/cars/1/-/pkgA1/weights.onnx"
MAIN = {"repository": "acme/vision", "ref": "refs/heads/main"}

RULES = (
    rule("main", scopes=["read", "infer"], repository="acme/vision", ref=["refs/heads/main", "refs/tags/*"]),
    rule("looks", scopes=["discover"], repository="acme/looks"),
    rule("theirs", "globex", repository="globex/*"),
    rule("elsewhere", networks=["192.0.2.0/24"], repository="acme/elsewhere"),
    rule("twice", repository="acme/twice"),
    rule("twice-too", repository="acme/twice", ref="refs/heads/main"),
    rule("one-model", repository="acme/one").replace(
        "networks = []", 'networks = []\nmodel = "acme/trucks/1"'
    ),
)


class Gateway:
    """A served installation that knows the issuer."""

    def __init__(self, installation, issuer):
        self.installation, self.issuer = installation, issuer
        self.policies = installation.folder / "policies"
        shutil.copytree(CHECKOUT_POLICIES, self.policies)
        self.apply(*RULES)
        self.served = installation.serve(workers=2)

    def apply(self, *rules, **fields):
        document = self.issuer.document(*rules, **fields)
        (self.policies / "issuers" / "ci.toml").write_text(document)
        self.installation.run("policy", "apply", str(self.policies), "--yes")

    def get(self, path, token, **more):
        return self.served.wire.get(path, token, **more)

    def age_keys(self, seconds):
        """As if so much time had passed since the keys were fetched, and nobody had asked for them since."""
        digest = issuer_digest(self.issuer.url)

        async def work(session):
            known = await session.listing.find_key_set(self.issuer.url)

            async def put(changes):
                old = replace(known, fetched_at=known.fetched_at - seconds)
                await changes.put_fact(names.key_set_fact(digest), old)

            await change(session.store, put)

        self.installation.in_session(work)
        self.forget_failures()

    def forget_failures(self):
        """As if the last fetch of keys that failed were long ago. One that is under way ends before."""
        asking = names.asking_for_keys(issuer_digest(self.issuer.url))
        with self.installation.redis() as redis:
            while redis.exists(asking):
                time.sleep(0.05)
            redis.delete(*redis.scan_iter("{cachegate}:jwks-failed:*"), "no key at all")

    def bindings(self, *options):
        return self.installation.json("bindings", "list", *options)

    def binding_of(self, subject):
        [found] = [one for one in self.bindings() if one["subject"] == subject]
        return found


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def gateway(new_installation, issuer):
    installation = new_installation(
        "outside",
        CACHEGATE_PRIVATE_ISSUERS="on",
        SSL_CERT_FILE=issuer.authority,
        CACHEGATE_LEASE_MILLISECONDS="5000",
        CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000",
    )
    samples = [
        SampleModel(model_id=model, packages={"pkgA1": {"weights.onnx": CONTENT}})
        for model in ("acme/cars/1", "acme/trucks/1", "globex/cars/1")
    ]
    write_sample_cache(installation.cache_root, samples)
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    gateway = Gateway(installation, issuer)
    yield gateway
    gateway.served.stop()
    assert "Traceback" not in gateway.served.log(), gateway.served.log()


@pytest.fixture(autouse=True)
def _issuer_is_well(gateway, issuer):
    """Whatever the test before made of it."""
    issuer.behave("well")
    gateway.forget_failures()


def reason_of(gateway, answer):
    [record] = [one for one in gateway.installation.records() if one.get("id") == answer.record_id]
    return record["reason"]


def refused(gateway, token, path=FILE):
    """The reason of a refusal, whose answer is the same for every one."""
    answer = gateway.get(path, token)
    assert answer.status == 401
    assert answer.json()["title"] == "No valid API key"
    return reason_of(gateway, answer)


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_token_reads_what_its_rule_says(gateway, issuer, alg):
    answer = gateway.get(FILE, issuer.token(alg=alg, **MAIN))
    assert (answer.status, answer.body) == (200, CONTENT)


def test_a_token_maps_to_no_other_tenant(gateway, issuer):
    assert gateway.get(THEIRS, issuer.token(**MAIN)).status == 404
    token = issuer.token(subject="theirs", repository="globex/cars")
    assert gateway.get(THEIRS, token).status == 200
    assert gateway.get(FILE, token).status == 404


def test_scopes_networks_and_model_of_the_rule_hold(gateway, issuer):
    looks = issuer.token(subject="looks", repository="acme/looks")
    assert gateway.get("/v1/models/acme/cars/1", looks).status == 200
    assert gateway.get(FILE, looks).status == 403
    assert refused(gateway, issuer.token(subject="far", repository="acme/elsewhere")) == "outside-networks"
    one = issuer.token(subject="one", repository="acme/one")
    assert gateway.get(FILE, one).status == 404
    assert gateway.get(FILE.replace("cars", "trucks"), one).status == 200


def test_the_records_name_the_binding_its_kind_and_its_tenant(gateway, issuer):
    answer = gateway.get(FILE, issuer.token(subject="recorded", **MAIN))
    [record] = [one for one in gateway.installation.records() if one.get("id") == answer.record_id]
    assert (record["principal"], record["tenant"]) == ("binding", "acme")
    assert record["key_id"] == gateway.binding_of("recorded")["binding_id"]
    [made] = [
        one
        for one in gateway.installation.records()
        if one.get("action") == "bindings.make" and one["key_id"] == record["key_id"]
    ]
    assert (made["tenant"], made["subject"]) == ("acme", ["ci", "main", "recorded"])


def test_whoami_tells_issuer_and_binding(gateway, issuer):
    said = gateway.get("/v1/whoami", issuer.token(subject="who", **MAIN)).json()
    assert said["issuer"] == issuer.url
    assert said["binding_id"] == said["key_id"] == gateway.binding_of("who")["binding_id"]
    assert (said["tenant"], said["scopes"], said["name"]) == ("acme", ["infer", "read"], "main")


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_token_comes_in_either_header(gateway, issuer, header):
    token = issuer.token(**MAIN)
    value = f"Bearer {token}" if header == "authorization" else token
    assert gateway.served.wire.get(FILE, headers=((header, value),)).status == 200


def test_a_token_appears_nowhere(gateway, issuer):
    """Nor does any of its three parts: not in records, logs, or what Redis holds (I8)."""
    token = issuer.token(subject="secret-keeper", **MAIN)
    assert gateway.get(FILE, token).status == 200
    assert gateway.get(FILE, token, headers=(("user-agent", f"ci {token}"),)).status == 200
    with gateway.installation.redis() as redis:
        held = b"".join(redis.dump(key) + key for key in redis.scan_iter(count=1000))
    kept = b"".join(path.read_bytes() for path in gateway.installation.state.rglob("*") if path.is_file())
    for part in (token, *token.split(".")[1:]):
        assert part.encode() not in held
        assert part.encode() not in kept
        assert part not in gateway.served.log()


CASES = {
    case.pop("name"): case for case in tomllib.loads((HERE / "outside_tokens.toml").read_text())["cases"]
}
PATHS = (FILE, "/v1/models/acme/cars/1", "/v1/models", "/v1/whoami")


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_token_is_refused_on_every_route(gateway, issuer, name):
    case = CASES[name]
    gateway.get(FILE, issuer.token(**MAIN))  # the keys are known
    claims = {
        "sub": f"wrong {name}",
        **MAIN,
        **case.get("claims", {}),
        **dict.fromkeys(case.get("without", ())),
    }
    if claims.get("iss") == "SLASH":
        claims["iss"] = f"{issuer.url}/"
    headers = dict(case.get("headers", {}))
    if headers.get("kid") == "ES256":
        headers["kid"] = issuer.kids["ES256"]
    token = issuer.token(subject=claims.pop("sub"), headers=headers, **claims)
    assert {refused(gateway, token, path) for path in PATHS} == {case["reason"]}


def test_a_token_signed_by_another_key_under_a_known_kid_is_refused(gateway, issuer, tmp_path):
    impostor = Issuer(tmp_path / "impostor")
    try:
        forged = impostor.token(iss=issuer.url, headers={"kid": issuer.kids["RS256"]}, **MAIN)
    finally:
        impostor.stop()
    assert refused(gateway, forged) == "invalid-token"


def test_a_token_is_not_exchanged_and_makes_no_links(gateway, issuer, new_installation):
    installation = new_installation(
        "public",
        CACHEGATE_PRIVATE_ISSUERS="on",
        SSL_CERT_FILE=issuer.authority,
        CACHEGATE_PUBLIC_URL="https://models.example",
    )
    shutil.copytree(gateway.policies, installation.folder / "policies")
    write_sample_cache(
        installation.cache_root,
        [SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"weights.onnx": CONTENT}})],
    )
    installation.run("tenants", "create", "acme")
    installation.run("models", "own", "acme", "acme/*")
    installation.run("policy", "apply", str(installation.folder / "policies"), "--yes")
    served = installation.serve()
    try:
        token = issuer.token(**MAIN)
        assert served.wire.get(FILE, token).status == 200
        weights = served.wire.get("/models/v1/external/weights?modelId=acme/cars/1", token)
        assert weights.status == 403
        [record] = [one for one in installation.records() if one.get("id") == weights.record_id]
        assert record["reason"] == "no-links"
        assert served.wire.get("/models/v1/external/stat?modelId=acme/cars/1", token).status == 200
        form = (
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange"
            f"&subject_token={token}&subject_token_type=urn:ietf:params:oauth:token-type:jwt"
        )
        raw = (
            "POST /v1/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(form)}\r\n\r\n{form}"
        )
        assert served.wire.send(raw.encode()).status == 400
    finally:
        served.stop()


# Bindings


def test_a_revoked_binding_is_refused_whatever_rule_matches(gateway, issuer):
    subject = "to be revoked"
    token = issuer.token(subject=subject, **MAIN)
    assert gateway.get(FILE, token).status == 200
    binding = gateway.binding_of(subject)
    assert (binding["state"], binding["scopes"], binding["rules"]) == ("live", ["infer", "read"], ["main"])
    said = gateway.installation.json("bindings", "revoke", binding["binding_id"])
    assert (said["binding_id"], said["changed"], said["sure"], said["workers"]) == (
        binding["binding_id"],
        True,
        True,
        2,
    )
    assert refused(gateway, token) == "revoked-binding"
    assert refused(gateway, issuer.token(subject=subject, **MAIN)) == "revoked-binding"
    other_rule = issuer.token(subject=subject, repository="acme/looks")
    assert refused(gateway, other_rule) == "revoked-binding"
    assert gateway.binding_of(subject)["state"] == "revoked"
    gateway.installation.run("bindings", "forget", binding["binding_id"])
    assert gateway.get(FILE, token).status == 200


def test_a_suspended_tenant_ends_its_bindings(gateway, issuer):
    token = issuer.token(subject="suspended", repository="globex/x")
    assert gateway.get(THEIRS, token).status == 200
    gateway.installation.run("tenants", "suspend", "globex")
    try:
        assert refused(gateway, token, THEIRS) == "suspended-tenant"
    finally:
        gateway.installation.run("tenants", "resume", "globex")


def test_a_subject_is_of_one_tenant_until_the_document_says_otherwise(gateway, issuer):
    subject = "between two tenants"
    assert gateway.get(FILE, issuer.token(subject=subject, **MAIN)).status == 200
    assert refused(gateway, issuer.token(subject=subject, repository="globex/x")) == "ambiguous-token"


def test_a_change_of_the_mapping_holds_at_once(gateway, issuer):
    subject = "mapped for now"
    token = issuer.token(subject=subject, **MAIN)
    assert gateway.get(FILE, token).status == 200
    gateway.apply(rule("main", repository="acme/vision", ref="refs/heads/other"))
    try:
        assert refused(gateway, token) == "unmapped-token"
        gateway.apply(rule("main", "globex", **{name: [value] for name, value in MAIN.items()}))
        assert gateway.get(FILE, token).status == 404
        assert gateway.get(THEIRS, token).status == 200
        assert gateway.binding_of(subject)["tenant"] == "globex"
        (gateway.policies / "issuers" / "ci.toml").unlink()
        gateway.installation.run("policy", "apply", str(gateway.policies), "--yes")
        assert refused(gateway, token) == "unknown-issuer"
    finally:
        gateway.apply(*RULES)
    assert gateway.get(FILE, token).status == 200


def test_bindings_are_bounded_for_each_issuer(gateway, issuer):
    known = issuer.token(subject="known", **MAIN)
    assert gateway.get(FILE, known).status == 200
    gateway.apply(*RULES, max_bindings=len(gateway.bindings()) + 1)
    try:
        assert gateway.get(FILE, issuer.token(subject="the last one", **MAIN)).status == 200
        with gateway.installation.redis() as redis:
            before = redis.dbsize()
        for number in range(5):
            token = issuer.token(subject=f"one too many {number}", **MAIN)
            assert refused(gateway, token) == "too-many-bindings"
        assert gateway.get(FILE, known).status == 200
        with gateway.installation.redis() as redis:
            assert redis.dbsize() <= before + 2  # the canary's, and what expires
    finally:
        gateway.apply(*RULES)


# Keys


def test_a_new_key_is_fetched_once_for_all_workers(gateway, issuer):
    gateway.get(FILE, issuer.token(**MAIN))
    gateway.age_keys(60)
    issuer.rotate()
    before = issuer.fetches
    token = issuer.token(**MAIN)
    for _ in range(8):  # on both workers
        assert gateway.get(FILE, token).status == 200
    assert issuer.fetches == before + 1


def test_made_up_kids_cause_no_more_than_one_fetch(gateway, issuer):
    gateway.get(FILE, issuer.token(**MAIN))
    gateway.age_keys(60)
    before = issuer.fetches
    for number in range(20):
        made_up = issuer.token(headers={"kid": f"made-up-{number}"}, **MAIN)
        assert refused(gateway, made_up) == "unknown-signing-key"
    assert issuer.fetches == before + 1


def test_a_key_that_its_issuer_withdrew_ends_the_tokens_that_it_signed(gateway, issuer):
    token = issuer.token(**MAIN)
    assert gateway.get(FILE, token).status == 200
    gateway.age_keys(60)
    issuer.rotate(keep=False)
    assert gateway.get(FILE, issuer.token(**MAIN)).status == 200  # has the new keys fetched
    assert refused(gateway, token) == "unknown-signing-key"


def test_an_outage_keeps_the_last_keys_for_a_bounded_time(gateway, issuer):
    token = issuer.token(**MAIN)
    assert gateway.get(FILE, token).status == 200
    issuer.behave("failing")
    try:
        gateway.age_keys(3600)
        assert gateway.get(FILE, token).status == 200
        assert gateway.get(FILE, issuer.token(subject="during the outage", **MAIN)).status == 200
        gateway.age_keys(KEY_SET_SECONDS)
        answer = gateway.get(FILE, token)
        assert (answer.status, reason_of(gateway, answer)) == (503, "issuer-undecided")
    finally:
        issuer.behave("well")
        gateway.age_keys(0)
    assert gateway.get(FILE, token).status == 200


LIES = (
    *("empty", "no-keys", "not-json", "nested", "twice", "doubled-members", "private", "weak"),
    *("for-encryption", "too-many", "wrong-type", "huge", "encoded", "redirecting"),
)


@pytest.mark.parametrize("how", LIES)
def test_a_lying_issuer_changes_nothing(gateway, issuer, how):
    token = issuer.token(**MAIN)
    assert gateway.get(FILE, token).status == 200
    issuer.behave(how)
    try:
        gateway.age_keys(60)
        answer = gateway.get(FILE, issuer.token(headers={"kid": "made-up"}, **MAIN))
        assert (answer.status, reason_of(gateway, answer)) == (503, "issuer-undecided")
        assert gateway.get(FILE, token).status == 200
        assert gateway.get(FILE, issuer.token(**MAIN)).status == 200
    finally:
        issuer.behave("well")


def test_a_hanging_issuer_delays_nobody_whose_key_is_known(gateway, issuer):
    token = issuer.token(**MAIN)
    assert gateway.get(FILE, token).status == 200
    issuer.behave("hanging")
    try:
        gateway.age_keys(60)
        answer = gateway.get(FILE, issuer.token(headers={"kid": "made-up"}, **MAIN))
        assert (answer.status, reason_of(gateway, answer)) == (503, "issuer-undecided")
        gateway.age_keys(3600)
        assert gateway.get(FILE, issuer.token(**MAIN)).status == 200
    finally:
        issuer.behave("well")


def test_keys_survive_a_restart_without_asking_again(gateway, issuer):
    assert gateway.get(FILE, issuer.token(**MAIN)).status == 200
    gateway.age_keys(60)
    assert gateway.get(FILE, issuer.token(headers={"kid": "made-up"}, **MAIN)).status == 401
    before = issuer.fetches
    gateway.served.stop()
    gateway.served = gateway.installation.serve(workers=2)
    assert gateway.get(FILE, issuer.token(**MAIN)).status == 200
    assert issuer.fetches == before


def test_the_audit_log_is_intact(gateway):
    gateway.installation.verify_audit()


def test_a_record_of_a_binding_is_explained_and_names_it(gateway, issuer):
    record_id = gateway.get(FILE, issuer.token(subject="explained", **MAIN)).record_id
    done = gateway.installation.run("explain", "--record", record_id)
    binding_id = gateway.binding_of("explained")["binding_id"]
    assert f"{binding_id} (a binding" in done.stdout
    assert re.search(rf"path +key {binding_id} +main\s", done.stdout)  # the same asked now, and its rule
