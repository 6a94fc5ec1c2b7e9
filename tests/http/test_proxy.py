"""`/proxy?url=` over real sockets: the same answers in another form, and no way to other hosts."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

sys.path.append(str(Path(__file__).parent))  # the provider beside us

from weights_provider import PUBLIC_URL, SECRET, STAT, WEIGHTS, site_of, urls_of

HELD = {"pkgA1": {"weights.onnx": b"held weights", "labels.txt": b"car\n"}}
ELSEWHERE = {"pkgB2": {"weights.onnx": bytes(range(256)) * 300, "notes.txt": b"elsewhere, without a digest"}}


@pytest.fixture(scope="module")
def site(new_installation):
    with site_of(new_installation, "proxy") as site:
        site.fill("acme/cars/1", HELD)
        site.provider.offer("acme/cars/1", HELD | ELSEWHERE)
        yield site


@pytest.fixture
def provider(site):
    site.provider.seen.clear()
    return site.provider


@pytest.fixture(scope="module")
def acme(site):
    return site.key("acme")


@pytest.fixture(scope="module")
def globex(site):
    return site.key("globex")


@pytest.fixture
def bystander():
    """An unrelated server, which counts its requests."""
    listener, visits = socket.create_server(("127.0.0.1", 0)), []

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                visits.append(1)
                connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1], visits
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def metadata_url(site, model="acme/cars/1", path=WEIGHTS, more=""):
    return f"{site.provider.url}{path}?modelId={quote(model, safe='')}{more}"


def test_metadata_is_the_same_with_every_link_in_wrapped_form(site, provider, acme):
    plain = site.ask("acme/cars/1", acme["token"])
    wrapped = site.ask_wrapped(metadata_url(site), acme["token"])
    assert wrapped.status == 200
    assert urls_of(wrapped).keys() == urls_of(plain).keys()
    for (package, handle), url in urls_of(wrapped).items():
        path = quote(f"{PUBLIC_URL}/d/acme/cars/1/-/{package}/{handle}", safe="")
        assert url.startswith(f"{PUBLIC_URL}/proxy?url={path}&se=")
    assert SECRET.encode() not in wrapped.body


def test_every_link_opens_as_it_is_and_wrapped_once_more(site, acme):
    contents = HELD | ELSEWHERE
    for (package, handle), url in urls_of(site.ask_wrapped(metadata_url(site), acme["token"])).items():
        assert site.follow(url).body == contents[package][handle]
        assert site.follow(url, "HEAD").status == 200
        assert site.ask_wrapped(url).body == contents[package][handle]


def test_a_link_of_the_plain_form_opens_wrapped(site, acme):
    url = urls_of(site.ask("acme/cars/1", acme["token"]))["pkgA1", "weights.onnx"]
    assert site.ask_wrapped(url).body == b"held weights"
    assert site.ask_wrapped(url, headers=(("Range", "bytes=0-3"),)).body == b"held"


def test_what_an_engine_keeps_of_an_unhashed_files_url_never_changes(site, acme, globex):
    """It leaves out `se` and `sig` where they stand beside the wrapped URL, and nowhere else."""
    kept = set()
    for key in (acme, site.key("acme")):
        url = urls_of(site.ask_wrapped(metadata_url(site), key["token"]))["pkgA1", "labels.txt"]
        kept.add(url.partition("&se=")[0])
    assert len(kept) == 1


def test_our_own_metadata_url_is_understood_too(site, acme):
    answer = site.ask_wrapped(f"{PUBLIC_URL}{WEIGHTS}?modelId=acme%2Fcars%2F1", acme["token"])
    assert answer.status == 200
    assert urls_of(answer)["pkgA1", "weights.onnx"].startswith(f"{PUBLIC_URL}/proxy?url=")


def test_stat_passes(site, acme):
    answer = site.ask_wrapped(metadata_url(site, path=STAT), acme["token"])
    assert (answer.status, answer.body) == site.provider.answers[STAT, "acme/cars/1", None]


def test_refusals_are_those_of_the_face_that_was_meant(site, provider, acme, globex):
    assert site.ask_wrapped(metadata_url(site)).status == 401
    hidden = site.ask_wrapped(metadata_url(site), globex["token"])
    absent = site.ask_wrapped(metadata_url(site, "globex/nothing/1"), globex["token"])
    assert hidden.status == absent.status == 404
    assert provider.asked(WEIGHTS) == provider.asked()
    provider.answers[WEIGHTS, "acme/paused/1", None] = 423, b""
    assert site.ask_wrapped(metadata_url(site, "acme/paused/1"), acme["token"]).status == 423
    record = site.record(hidden)
    assert (record["request"]["route"], record["reason"]) == ("/proxy", "not-permitted")


class TestKeyInside:
    """Some clients put their key into the wrapped URL."""

    def test_it_counts_and_does_not_reach_the_provider_as_a_parameter(self, site, provider):
        key = site.key("acme")
        answer = site.ask_wrapped(metadata_url(site, more=f"&api_key={key['token']}"))
        assert answer.status == 200
        [seen] = provider.asked(WEIGHTS)
        assert seen.headers["authorization"] == f"Bearer {key['token']}"
        assert "api_key" not in dict(seen.pairs)

    def test_it_may_stand_beside_the_same_key_in_a_header_and_no_other(self, site, acme, globex):
        url = metadata_url(site, more=f"&api_key={acme['token']}")
        assert site.ask_wrapped(url, acme["token"]).status == 200
        assert site.ask_wrapped(url, globex["token"]).status == 400
        twice = metadata_url(site, more=f"&api_key={acme['token']}&api_key={globex['token']}")
        assert site.ask_wrapped(twice).status == 400

    def test_no_other_spelling_of_it_does(self, site, acme):
        for spelling in ("apiKey", "api%5Fkey", "token", "key"):
            answer = site.ask_wrapped(metadata_url(site, more=f"&{spelling}={acme['token']}"))
            assert answer.status == 400, spelling

    def test_it_opens_no_file(self, site, acme):
        url = f"{PUBLIC_URL}/d/acme/cars/1/-/pkgA1/weights.onnx?api_key={acme['token']}"
        assert site.ask_wrapped(url).status in {400, 401}


ELSEWHERE_URLS = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}" + WEIGHTS + "?modelId=acme%2Fcars%2F1",
    "http://localhost:{port}" + WEIGHTS + "?modelId=acme%2Fcars%2F1",
    "http://{api}@127.0.0.1:{port}" + WEIGHTS,
    "http://{api}:pw@127.0.0.1:{port}" + WEIGHTS,
    "http://127.0.0.1:{port}#@{api}" + WEIGHTS,
    "http://127.0.0.1:{port}\\@{api}" + WEIGHTS,
    "http://127.0.0.1:{port}%00.{api}" + WEIGHTS,
    "http://0x7f000001:{port}/",
    "http://2130706433:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/",
    "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file:///etc/hostname",
    "http%3A%2F%2F127.0.0.1:{port}%2F",
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: evil",
    "https://api.roboflow.com.evil.example" + WEIGHTS,
    "https://api.roboflow.com:8443" + WEIGHTS,
    "http://api.roboflow.com" + WEIGHTS + "?modelId=acme%2Fcars%2F1",
    "https://api.roboflow.com/models/v1/external/weights/../../../x",
    "https://api.roboflow.com//models/v1/external/weights?modelId=acme%2Fcars%2F1",
    "https://api.roboflow.com/",
    PUBLIC_URL + "/v1/models",
    PUBLIC_URL + "/v1/whoami",
    PUBLIC_URL + "/health",
    PUBLIC_URL + "/proxy",
    PUBLIC_URL + ".evil.example/d/acme/cars/1/-/pkgA1/weights.onnx",
    PUBLIC_URL + "-evil/d/acme/cars/1/-/pkgA1/weights.onnx",
    "",
    "x",
]


@pytest.mark.parametrize("pattern", ELSEWHERE_URLS)
def test_it_is_no_open_proxy(site, provider, acme, bystander, pattern):
    port, visits = bystander
    url = pattern.format(port=port, api=provider.url.removeprefix("http://"))
    for token in (acme["token"], None):
        answer = site.ask_wrapped(url, token)
        assert answer.status in {400, 401, 404}, (url, answer.status)
        assert b"evil" not in answer.body
    assert visits == []
    assert provider.seen == []


def test_a_url_of_the_providers_that_is_no_metadata_is_not_fetched(site, provider, acme):
    provider.files["/files/secret"] = b"secret"
    for path in ("/", "/files/secret", "/admin", f"{WEIGHTS}/", "/models/v1/external"):
        assert site.ask_wrapped(f"{provider.url}{path}", acme["token"]).status == 404
    url = provider.file_url("acme/cars/1", "pkgB2", "weights.onnx")  # as it was handed out in the plain form
    assert site.ask_wrapped(url, acme["token"]).status == 404
    assert provider.seen == []


@pytest.mark.parametrize("more", ["&url={bad}", "&x=1", ";url={bad}", "#x", "&"])
def test_two_urls_and_anything_beside_one_are_refused(site, provider, acme, more):
    good, bad = quote(metadata_url(site), safe=""), quote("http://127.0.0.1:1/", safe="")
    target = f"/proxy?url={good}{more.format(bad=bad)}"
    assert site.wire.get(target, acme["token"]).status in {400, 404}
    assert provider.seen == []


def test_a_link_is_good_for_its_own_file_and_nobody_elses_key(site, acme, globex):
    urls = urls_of(site.ask_wrapped(metadata_url(site), acme["token"]))
    url = urls["pkgA1", "weights.onnx"]
    for changed in (
        url.replace("weights.onnx", "labels.txt"),
        url.replace("acme", "globex", 1),
        url.replace("&se=1", "&se=2"),
        url.replace(acme["key_id"], globex["key_id"]),
        url[:-1] + ("A" if url[-1] != "A" else "E"),
        url + "&se=1",
        url.replace("&se=", "%3Fse=", 1),
    ):
        assert site.follow(changed).status in {400, 401}, changed
    token = (("Authorization", f"Bearer {globex['token']}"),)
    assert site.follow(url, headers=token).status in {400, 401}


def test_a_revoked_key_ends_its_links(site):
    key = site.key("acme")
    urls = urls_of(site.ask_wrapped(metadata_url(site), key["token"]))
    assert {site.follow(url).status for url in urls.values()} == {200}
    site.installation.run("keys", "revoke", key["key_id"])
    assert {site.follow(url).status for url in urls.values()} == {401}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_it_reads_and_does_nothing_else(site, acme, method):
    target = f"/proxy?url={quote(metadata_url(site), safe='')}"
    assert site.wire.request(method, target, acme["token"]).status in {400, 405}


def test_no_url_and_no_key_gets_into_a_record(site, acme):
    answer = site.ask_wrapped(metadata_url(site, more=f"&api_key={acme['token']}"))
    assert acme["token"] not in str(site.record(answer))
    assert "roboflow" not in str(site.record(answer))
