"""Images at URLs: fetched by the gateway from hosts of the tenant's list, and sent inline to the server.

The images are at a server of the test on loopback. Only here do workers connect to such an address
(`private_images/sitecustomize.py`); the gateway that all other tests use does not, which is tested as well.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from gateways import serve
from http_client import bearer, encoded, image, picture
from tenants_models import BOXES, CARS, CLIP

pytestmark = pytest.mark.server

CLASSIFY, COMPARE = "/infer/classification", "/clip/compare"
METADATA = "http://169.254.169.254"


class Pictures(ThreadingHTTPServer):
    """`/N.png` is a picture, another for each N; `/to?URL` redirects there."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Pictures)
        self.host = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked = []


class _Pictures(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Requests are kept, not printed."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        place, _, target = self.path.partition("?")
        if place == "/to":
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = picture(int(Path(place).stem))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def _pictures():
    with Pictures() as pictures, Pictures() as elsewhere:
        threads = [threading.Thread(target=one.serve_forever) for one in (pictures, elsewhere)]
        for thread in threads:
            thread.start()
        yield pictures, elsewhere
        for one in (pictures, elsewhere):
            one.shutdown()
        for thread in threads:
            thread.join()


@pytest.fixture
def pictures(_pictures):
    _pictures[0].asked.clear()
    return _pictures[0]


@pytest.fixture
def elsewhere(_pictures):
    """Another one, which is on nobody's list."""
    _pictures[1].asked.clear()
    return _pictures[1]


@pytest.fixture(scope="module")
def _fetching(_upstream, new_installation, _pictures):
    front = serve(new_installation, _upstream, {}, PYTHONPATH=str(Path(__file__).parent / "private_images"))
    front.installation.run("tenants", "image-hosts", "acme", _pictures[0].host, METADATA)
    yield front
    front.gateway.stop()
    assert "Traceback" not in front.gateway.log(), front.gateway.log()
    front.installation.verify_audit()


@pytest.fixture
def fetching(_fetching, upstream):
    """A gateway whose workers connect to loopback for images. Acme has a list of hosts, globex has none."""
    return _fetching


def at(url):
    return {"type": "url", "value": url}


def test_an_image_at_a_url_predicts_what_the_same_image_does_inline(fetching, pictures):
    key = fetching.key()
    there = fetching.post(CLASSIFY, {"model_id": CARS, "image": at(f"{pictures.host}/7.png?sig=S")}, key)
    inline = fetching.post(CLASSIFY, {"model_id": CARS, "image": image(7)}, key)
    assert there.status == 200, there.body
    assert there.json()["predictions"] == inline.json()["predictions"]
    sent = fetching.sent()
    assert [note.json["image"] for note in sent] == [{"type": "base64", "value": encoded(7)}] * 2
    [(path, headers)] = pictures.asked
    assert path == "/7.png?sig=S"
    assert key.token not in repr(headers)
    assert {name.lower() for name in headers} <= {
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "connection",
    }
    assert "sig=S" not in json.dumps(fetching.installation.records()) + fetching.gateway.log()


@pytest.mark.parametrize("kind", ["url", "URL", "Url"])
def test_every_image_of_a_batch_is_fetched_in_its_place(fetching, pictures, kind):
    images = [image(1), {"type": kind, "value": f"{pictures.host}/2.png"}, at(f"{pictures.host}/3.png")]
    answer = fetching.post("/infer/object_detection", {"model_id": BOXES, "image": images}, fetching.key())
    assert answer.status == 200, answer.body
    [sent] = fetching.sent()
    assert [one["value"] for one in sent.json["image"]] == [encoded(1), encoded(2), encoded(3)]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_legacy_routes_image_is_fetched_and_sent_in_the_body(fetching, pictures, method):
    target = f"/{CARS}?image={quote(f'{pictures.host}/4.png', safe='')}&confidence=0.1"
    answer = fetching.send(method, target, None if method == "GET" else b"", bearer(fetching.key().token))
    body = {"model_id": CARS, "image": image(4), "confidence": 0.1}
    inline = fetching.post(CLASSIFY, body, fetching.key())
    assert answer.status == 200, answer.body
    assert answer.json()["predictions"] == inline.json()["predictions"]
    sent = fetching.sent()[0]
    assert (sent.method, sent.path, sent.query) == ("POST", f"/{CARS}", "confidence=0.1")


def test_what_is_compared_is_fetched_where_the_server_would_guess(fetching, pictures):
    body = {"subject": f"{pictures.host}/5.png", "prompt": {"a": f"{pictures.host}/6.png"}}
    body |= {"prompt_type": "image", "clip_version_id": CLIP.partition("/")[2]}
    answer = fetching.post(COMPARE, body, fetching.key())
    assert answer.status == 200, answer.body
    [sent] = fetching.sent()
    assert sent.json["subject"] == {"type": "base64", "value": encoded(5)}
    assert sent.json["prompt"] == {"a": {"type": "base64", "value": encoded(6)}}


def test_a_redirect_within_the_list_is_followed(fetching, pictures):
    url = f"{pictures.host}/to?{pictures.host}/8.png"
    assert fetching.post(CLASSIFY, {"model_id": CARS, "image": at(url)}, fetching.key()).status == 200
    assert [path for path, _ in pictures.asked] == [f"/to?{pictures.host}/8.png", "/8.png"]


def test_a_redirect_to_another_host_is_refused_and_nobody_is_asked_there(fetching, pictures, elsewhere):
    url = f"{pictures.host}/to?{elsewhere.host}/8.png"
    answer = fetching.post(CLASSIFY, {"model_id": CARS, "image": at(url)}, fetching.key())
    assert (answer.status, fetching.reason(answer)) == (400, "forbidden-image")
    assert elsewhere.asked == []
    assert fetching.sent() == []


@pytest.mark.parametrize(
    "target",
    [
        *(f"{METADATA}/latest", "http://[::ffff:169.254.169.254]/", "//169.254.169.254/"),
        *("http://0.0.0.0/", "file:///etc/hosts", "gopher://127.0.0.1/"),
    ],
)
def test_a_redirect_to_a_forbidden_address_is_refused(fetching, pictures, target):
    """The address of the metadata service is refused even though it stands on the list."""
    url = f"{pictures.host}/to?{target}"
    answer = fetching.post(CLASSIFY, {"model_id": CARS, "image": at(url)}, fetching.key())
    assert answer.status == 400
    assert fetching.reason(answer) in {"forbidden-image", "image-not-fetched"}
    assert fetching.sent() == []
    assert "169.254" not in answer.body.decode()


def test_a_url_of_no_listed_host_is_refused_unasked(fetching, pictures, elsewhere):
    for tenant, url in (("acme", f"{elsewhere.host}/1.png"), ("globex", f"{pictures.host}/1.png")):
        body = {"model_id": f"{tenant}/1", "image": at(url)}
        answer = fetching.post(CLASSIFY, body, fetching.key(tenant))
        assert (answer.status, fetching.reason(answer)) == (400, "forbidden-image")
    assert pictures.asked == elsewhere.asked == []
    assert fetching.sent() == []


def test_nothing_is_fetched_for_a_request_that_is_refused(fetching, pictures):
    for key in (None, fetching.key("globex")):
        body = {"model_id": CARS, "image": at(f"{pictures.host}/1.png")}
        assert fetching.post(CLASSIFY, body, key).status in {401, 404}
    assert pictures.asked == []


def test_but_for_these_tests_no_private_address_is_connected_to(front, pictures):
    front.installation.run("tenants", "image-hosts", "acme", pictures.host)
    try:
        answer = front.post(CLASSIFY, {"model_id": CARS, "image": at(f"{pictures.host}/1.png")}, front.key())
    finally:
        front.installation.run("tenants", "image-hosts", "acme", "none")
    assert (answer.status, front.reason(answer)) == (400, "image-not-fetched")
    assert pictures.asked == []
    assert front.sent() == []
