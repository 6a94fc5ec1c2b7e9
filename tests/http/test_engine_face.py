"""The engine face over real sockets: the provider's metadata, or the cache's, with our links in it."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import sample_directory

sys.path.append(str(Path(__file__).parent))  # the provider beside us

from weights_provider import PUBLIC_URL, SECRET, STAT, WEIGHTS, digest_of, site_of, urls_of

HELD = {"pkgA1": {"weights.onnx": b"held weights", "labels.txt": b"car\n"}}
ELSEWHERE = {"pkgB2": {"weights.onnx": b"only the provider has these"}}
EXTRA = "&includeCoreMLPackages=true&a=1&a=2"


@pytest.fixture(scope="module")
def site(new_installation):
    with site_of(new_installation, "engine-face") as site:
        site.fill("acme/cars/1", HELD)
        site.provider.offer("acme/cars/1", HELD | ELSEWHERE)
        yield site


@pytest.fixture
def provider(site):
    """The provider, as it is at first, with nothing seen."""
    site.provider.seen.clear()
    site.provider.is_silent, site.provider.delay_seconds = False, 0.0
    return site.provider


@pytest.fixture
def silenced(site, provider, eventually):
    """The provider, for tests in which it does not answer. It answers just before and again afterwards.

    The gateway stops asking it for a while when it fails several times, and counts for how long it has been
    silent. Neither state may be carried from one test into another.
    """

    def is_heard():
        key = site.key("acme")
        provider.offer("acme/heard/1", HELD)
        return eventually(lambda: site.ask("acme/heard/1", key["token"]).status == 200)

    is_heard()
    provider.seen.clear()
    yield provider
    provider.is_silent = False
    is_heard()


@pytest.fixture
def acme(site, provider):
    """A new key, of which nothing is remembered."""
    return site.key("acme")


def without_links(document):
    """An answer as the engine compares it from one time to the next."""
    for package in document["modelMetadata"]["modelPackages"]:
        for file in package["packageFiles"]:
            file["downloadUrl"] = None
    return document


def test_the_answer_is_the_providers_but_for_its_links(site, provider, acme):
    said = without_links(json.loads(provider.answers[WEIGHTS, "acme/cars/1", None][1]))
    answer = site.ask("acme/cars/1", acme["token"])
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("cache-control") == "no-store"  # it has no validator
    assert without_links(answer.json()) == said


def test_numbers_and_the_order_of_fields_stay_as_they_were_written(site, provider, acme):
    said = (
        b'{"modelMetadata":{"zeta":1.50,"type":"external-model-metadata-v1","modelId":"acme/odd/1",'
        b'"modelArchitecture":"r\\u0065snet","big":12345678901234567890123,"modelLatencyMs":1e2,'
        b'"modelPackages":[]},"beside":null}'
    )
    provider.answers[WEIGHTS, "acme/odd/1", None] = 200, said
    answer = site.ask("acme/odd/1", acme["token"])
    assert (answer.status, answer.body) == (200, said)


def test_files_of_the_cache_are_ours_and_open_with_their_links(site, acme):
    urls = urls_of(site.ask("acme/cars/1", acme["token"]))
    url = urls["pkgA1", "weights.onnx"]
    assert url.startswith(f"{PUBLIC_URL}/d/acme/cars/1/-/pkgA1/weights.onnx?se=")
    answer = site.follow(url)
    assert (answer.status, answer.body) == (200, b"held weights")


def test_files_that_are_elsewhere_keep_the_providers_url(site, provider, acme):
    urls = urls_of(site.ask("acme/cars/1", acme["token"]))
    assert urls["pkgB2", "weights.onnx"] == provider.file_url("acme/cars/1", "pkgB2", "weights.onnx")


def test_a_file_of_another_content_than_the_cache_has_keeps_the_providers_url(site, provider, acme):
    site.fill("acme/stale/1", {"pkgS1": {"weights.onnx": b"what was there before"}})
    provider.offer("acme/stale/1", {"pkgS1": {"weights.onnx": b"what the provider has now"}})
    urls = urls_of(site.ask("acme/stale/1", acme["token"]))
    assert urls["pkgS1", "weights.onnx"].startswith(provider.url)


def test_the_provider_is_asked_with_the_callers_key_and_every_parameter(site, provider, acme):
    internal = (("X-Roboflow-Internal-Service-Secret", "s"), ("X-Enforce-Credits-Verification", "true"))
    own = (("X-Roboflow-Inference-Version", "1.8.3"), ("Cookie", "c=1"), ("X-Forwarded-For", "10.0.0.1"))
    site.ask("acme/cars/1", acme["token"], more=f"{EXTRA}&service_secret=s", headers=internal + own)
    [seen] = provider.asked(WEIGHTS)
    assert seen.pairs == [
        ("modelId", "acme/cars/1"),
        ("includeCoreMLPackages", "true"),
        ("a", "1"),
        ("a", "2"),
    ]
    assert seen.headers["authorization"] == f"Bearer {acme['token']}"
    assert seen.headers["x-roboflow-inference-version"] == "1.8.3"
    forbidden = {"x-roboflow-internal-service-secret", "x-enforce-credits-verification", "cookie"}
    assert not forbidden & seen.headers.keys()
    assert "x-forwarded-for" not in seen.headers


def test_pages_are_passed_through(site, provider, acme):
    provider.offer("acme/paged/1", {"pkgP1": {"w.onnx": b"1"}}, nextPage="mark/2")
    provider.offer("acme/paged/1", {"pkgP2": {"w.onnx": b"2"}}, start="mark/2")
    first = site.ask("acme/paged/1", acme["token"])
    assert first.json()["modelMetadata"]["nextPage"] == "mark/2"
    second = site.ask("acme/paged/1", acme["token"], more="&startAfter=mark%2F2")
    assert [package for package, _ in urls_of(second)] == ["pkgP2"]


def test_one_key_asks_the_provider_once_however_many_ask_with_it(site, provider, acme):
    provider.delay_seconds = 0.3
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: site.ask("acme/cars/1", acme["token"]), range(16)))
    assert {answer.status for answer in answers} == {200}
    assert len(provider.asked(WEIGHTS)) == 1
    other = site.key("acme")
    site.ask("acme/cars/1", other["token"])
    assert len(provider.asked(WEIGHTS)) == 2


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (401, 401, "upstream-unauthorized"),
        (402, 402, "payment-required"),
        (403, 404, "upstream-refused"),
        (404, 404, "upstream-refused"),
        (423, 423, "usage-paused"),
        (400, 503, "upstream-undecided"),
        (429, 503, "upstream-undecided"),
        (500, 503, "upstream-undecided"),
        (302, 503, "upstream-undecided"),
    ],
)
def test_what_the_provider_refuses_arrives_as_its_own_status_and_is_not_remembered(
    site, provider, acme, said, status, reason
):
    model = f"acme/refused-{said}/1"
    provider.answers[WEIGHTS, model, None] = said, b'{"error":"for the provider only"}'
    answer = site.ask(model, acme["token"])
    assert answer.status == status
    assert b"provider only" not in answer.body
    assert site.record(answer)["reason"] == reason
    provider.offer(model, HELD)
    assert site.ask(model, acme["token"]).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"modelMetadata":null}',
        b'{"modelMetadata":{"type":"another"}}',
        b'{"modelMetadata":{"type":"external-model-metadata-v1"}}',
        b"\xff\xfe",
        b'{"modelMetadata":' * 100,
        b" " * (3 << 20),
    ],
)
def test_an_answer_that_makes_no_sense_decides_nothing(site, provider, acme, body):
    provider.answers[WEIGHTS, "acme/nonsense/1", None] = 200, body
    answer = site.ask("acme/nonsense/1", acme["token"])
    assert answer.status == 503
    assert site.record(answer)["reason"] == "upstream-undecided"


def test_the_provider_is_not_asked_about_what_the_caller_may_not_know_of(site, provider):
    globex = site.key("globex")
    hidden = site.ask("acme/cars/1", globex["token"])
    absent = site.ask("acme/nothing/1", globex["token"])
    assert hidden.comparable() == absent.comparable()
    assert hidden.status == 404
    assert provider.asked() == []


def test_403_404_and_what_is_not_ones_own_are_one_answer(site, provider, acme):
    provider.answers[WEIGHTS, "acme/not-there/1", None] = 404, b"no"
    provider.answers[WEIGHTS, "acme/not-yours/1", None] = 403, b"not yours"
    answers = [
        site.ask(f"{model}/1", acme["token"]) for model in ("acme/not-there", "acme/not-yours", "globex/a")
    ]
    assert len({answer.comparable() for answer in answers}) == 1


@pytest.mark.parametrize(
    "token", [None, "", "local", "nobody-gave-me-out", "cg_live_000000000000000000000000AAAAAA"]
)
def test_without_a_valid_key_nothing_is_asked(site, provider, token):
    assert site.ask("acme/cars/1", token).status == 401
    assert provider.asked() == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        "modelId=",
        "modelId=a&modelId=b",
        "modelid=acme/cars/1",
        "modelId=acme/../cars",
        "modelId=%zz",
        "x=1",
    ],
)
def test_a_question_that_two_readers_could_read_differently_is_refused(site, provider, acme, query):
    assert site.wire.get(f"{WEIGHTS}?{query}", acme["token"]).status == 400
    assert provider.asked() == []


def test_a_key_in_the_url_is_refused(site, provider, acme):
    assert site.wire.get(f"{WEIGHTS}?modelId=acme%2Fcars%2F1&api_key={acme['token']}").status == 400
    assert provider.asked() == []


def test_another_name_of_a_model_leads_to_what_the_caller_may_have_and_nowhere_else(site, provider, acme):
    provider.offer("acme/cars/1", HELD, asked_as="acme/latest")
    urls = urls_of(site.ask("acme/latest", acme["token"]))
    assert urls["pkgA1", "weights.onnx"].startswith(f"{PUBLIC_URL}/d/acme/cars/1/-/")
    provider.offer("globex/secret/1", {"pkgG1": {"w.onnx": b"secret"}}, asked_as="acme/trap")
    answer = site.ask("acme/trap", acme["token"])
    assert answer.status == 404
    assert site.record(answer)["reason"] == "not-permitted"


def test_of_packages_that_were_not_granted_nothing_is_shown(site, provider):
    packages = {"pkgW1": {"w.onnx": b"granted"}, "pkgW2": {"w.onnx": b"not granted"}}
    provider.offer("acme/wide/1", packages)
    site.installation.run(
        "grants", "add", "--tenant", "globex", "--models", "acme/wide/1", "--packages", "pkgW1"
    )
    answer = site.ask("acme/wide/1", site.key("globex")["token"])
    assert answer.status == 200
    assert list(urls_of(answer)) == [("pkgW1", "w.onnx")]
    assert b"pkgW2" not in answer.body
    assert digest_of(b"not granted").encode() not in answer.body


def test_not_even_the_id_of_a_withheld_package_is_shown_to_whom_it_was_not_granted(site, provider):
    answer = provider.metadata("acme/part/1", {"pkgP1": {"w.onnx": b"granted"}, "pkgP2": {"w.onnx": b"not"}})
    answer["modelMetadata"]["modelPackages"][1]["packageFiles"][0]["md5Hash"] = "no digest"
    provider.answers[WEIGHTS, "acme/part/1", None] = 200, json.dumps(answer).encode()
    site.installation.run(
        "grants", "add", "--tenant", "globex", "--models", "acme/part/1", "--packages", "pkgP1"
    )
    narrow = site.ask("acme/part/1", site.key("globex")["token"])
    whole = site.ask("acme/part/1", site.key("acme")["token"])
    assert (narrow.status, whole.status) == (200, 200)
    assert list(urls_of(narrow)) == [("pkgP1", "w.onnx")]
    assert b"pkgP2" not in narrow.body
    assert b"pkgP2" in whole.body


def test_who_may_only_know_of_a_model_gets_no_link(site, provider):
    provider.offer("acme/seen/1", ELSEWHERE)
    site.installation.run(
        "grants", "add", "--tenant", "globex", "--models", "acme/seen/1", "--actions", "discover"
    )
    answer = site.ask("acme/seen/1", site.key("globex")["token"])
    assert answer.status == 403
    assert SECRET.encode() not in answer.body


def test_stat_is_the_providers_and_needs_the_right_to_read(site, provider, acme):
    provider.offer("acme/statted/1", ELSEWHERE)
    answer = site.ask("acme/statted/1", acme["token"], path=STAT)
    assert (answer.status, answer.body) == provider.answers[STAT, "acme/statted/1", None]
    assert site.ask("acme/statted/1", site.key("globex")["token"], path=STAT).status == 404


def test_head_is_get_without_the_body(site, acme):
    of_get = site.ask("acme/cars/1", acme["token"])
    of_head = site.wire.head(f"{WEIGHTS}?modelId=acme%2Fcars%2F1", acme["token"])
    assert (of_head.status, of_head.body) == (200, b"")
    assert of_head.header("content-length") == of_get.header("content-length")


def test_the_record_is_written_and_holds_no_url_and_no_key(site, acme):
    answer = site.ask("acme/cars/1", acme["token"])
    record = site.record(answer)
    assert (record["decision"], record["action"], record["key_id"]) == ("allow", "discover", acme["key_id"])
    assert record["resource"]["model"] == "acme/cars/1"
    records = json.dumps(site.installation.records())
    assert acme["token"] not in records
    assert "sig=" not in records


def test_a_key_that_is_revoked_after_the_metadata_downloads_nothing(site, acme):
    url = urls_of(site.ask("acme/cars/1", acme["token"]))["pkgA1", "weights.onnx"]
    assert site.follow(url).status == 200
    site.installation.run("keys", "revoke", acme["key_id"])
    assert site.follow(url).status == 401
    assert site.ask("acme/cars/1", acme["token"]).status == 401


def test_a_silent_provider_decides_nothing(site, silenced, acme):
    silenced.is_silent = True
    answer = site.ask("acme/silent/1", acme["token"])
    assert answer.status == 503
    assert answer.header("retry-after") is not None


def test_a_tenants_degraded_mode_is_served_from_the_cache_while_the_provider_is_silent(
    site, silenced, eventually
):
    site.installation.run("tenants", "create", "initech")
    site.installation.run("models", "own", "initech", "initech/*")
    token = site.key("initech")["token"]
    site.fill("initech/cars/1", {"pkgI1": {"weights.onnx": b"of initech"}})
    site.installation.run("tenants", "degraded", "initech", "1h")
    silenced.is_silent = True
    answer = eventually(lambda: (one := site.ask("initech/cars/1", token)).status == 200 and one)
    assert site.follow(urls_of(answer)["pkgI1", "weights.onnx"]).body == b"of initech"
    assert site.ask("initech/nothing/1", token).status == 503  # what the cache lacks, the provider may have


@pytest.mark.parametrize("said", [400, 410, 429, 451, 500])
def test_a_provider_that_is_there_and_says_something_else_is_not_silent(site, silenced, eventually, said):
    site.installation.run("tenants", "create", "hooli", status=None)
    site.installation.run("models", "own", "hooli", "hooli/*", status=None)
    site.installation.run("tenants", "degraded", "hooli", "1h")
    model, token = f"hooli/m{said}/1", site.key("hooli")["token"]
    site.fill(model, {"pkgH1": {"weights.onnx": b"of hooli"}})
    for path in (WEIGHTS, STAT):
        silenced.answers[path, model, None] = said, b"{}"
        assert site.ask(model, token, path).status == 503
    for status in (502, 504):
        silenced.answers[WEIGHTS, model, None] = status, b"{}"
        assert site.ask(model, token).status == 200


class TestUnhashed:
    """A file without a digest: the engine refuses its package for good when its URL changes."""

    def test_what_was_the_providers_stays_the_providers(self, site, provider, acme):
        packages = {"pkgU1": {"labels.txt": b"first at the provider"}}
        provider.offer("acme/theirs/1", packages)
        before = urls_of(site.ask("acme/theirs/1", acme["token"]))["pkgU1", "labels.txt"]
        assert before == provider.file_url("acme/theirs/1", "pkgU1", "labels.txt")
        site.fill("acme/theirs/1", packages)
        after = urls_of(site.ask("acme/theirs/1", site.key("acme")["token"]))["pkgU1", "labels.txt"]
        assert after == before

    def test_what_was_ours_stays_ours_and_is_streamed_once_it_left_the_cache(self, site, provider, acme):
        packages = {"pkgU1": {"labels.txt": b"first with us"}}
        site.fill("acme/ours/1", packages)
        provider.offer("acme/ours/1", packages)
        before = urls_of(site.ask("acme/ours/1", acme["token"]))["pkgU1", "labels.txt"]
        assert before.startswith(PUBLIC_URL)
        shutil.rmtree(site.installation.cache_root / "models-cache" / sample_directory("acme/ours/1"))
        later = site.key("acme")
        after = urls_of(site.ask("acme/ours/1", later["token"]))["pkgU1", "labels.txt"]
        assert after.partition("?")[0] == before.partition("?")[0]
        answer = site.follow(after)
        assert (answer.status, answer.body) == (200, b"first with us")
        assert [one.path for one in provider.fetched()] == ["/files/acme/ours/1/pkgU1/labels.txt"]

    def test_whose_it_is_was_recorded_once(self, site, provider, acme):
        packages = {"pkgU1": {"labels.txt": b"recorded"}}
        provider.offer("acme/recorded/1", packages)
        for _ in range(3):
            site.ask("acme/recorded/1", site.key("acme")["token"])
        changes = [one for one in site.installation.records() if one.get("action") == "links.origin"]
        subjects = [one["subject"] for one in changes if one["subject"][0] == "acme/recorded/1"]
        assert subjects == [["acme/recorded/1", "1 files", "pkgU1/labels.txt provider"]]


def test_no_url_of_the_providers_lies_in_redis_in_the_open(site, provider, acme):
    site.ask("acme/cars/1", acme["token"])
    server = site.installation.redis()
    for name in server.scan_iter(count=1000):
        kind = server.type(name)
        raw = server.dump(name)
        assert SECRET.encode() not in name, kind
        assert raw is None or SECRET.encode() not in raw, name


def test_it_says_that_it_is_healthy_and_nothing_else(site):
    answer = site.wire.get("/health")
    assert (answer.status, answer.json()) == (200, {"status": "healthy"})
    assert site.wire.head("/health").status == 200
    assert site.wire.request("POST", "/health").status == 404
    assert site.wire.get("/health/").status == 404
