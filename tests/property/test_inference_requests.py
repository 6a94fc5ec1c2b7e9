"""Laws of the front door: what was decided is what the inference server then does, for any request.

The server's handlers are written here a second time, in the simplest way, from what was measured of them:
they read keys and ids from their own places, by their own order, from whatever bytes they get.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.front_door.matching import match
from gateway.front_door.reading import read
from gateway.front_door.strict_json import parse_strict_object, write_json
from gateway.front_door.writing import write
from gateway.model.errors import Refusal
from tests.examples import examples
from tests.inference_requests import TABLE, inquire, wire

KEYS = ("key-of-one", "key-of-another")
INJECTED = "the-injected-key"
ALIASES = {"resnet18": "classifiers/1"}
IDS = ("acme/1", "acme/2", "resnet18", "pp_ocr/tiny", "a/01", "x,y", "acme/1:capabilities=image_embeddings")
SCHEMES = ("Bearer ", "bearer ", "BEARER  ")
CORE = {
    "clip": ("/clip/embed_text", "clip_version_id", "ViT-B-16"),
    "sam2": ("/sam2/embed_image", "sam2_version_id", "hiera_large"),
    "doctr": ("/doctr/ocr", "doctr_version_id", "default"),
}
BODY_ONLY = {
    *("/infer/object_detection", "/infer/instance_segmentation", "/infer/semantic_segmentation"),
    *("/infer/classification", "/infer/keypoints_detection", "/model/add"),
}
PATHS = (
    *sorted(BODY_ONLY),
    *("/infer/embeddings", "/infer/lmm", "/infer/depth-estimation", "/infer/action_recognition"),
    *(path for path, _, _ in CORE.values()),
    *("/sam3/visual_segment", "/sam3/concept_segment", "/ocr/pp-ocr"),
    *("/infer/lmm/acme/1", "/infer/depth-estimation/acme/2", "/acme/1", "/start/acme/1", "/model/registry"),
)


class HandlerError(Exception):
    """The server would refuse it too."""


def handler(method, target, headers, body):
    """The key, the id and all that is loaded, as the server's handler would have them."""
    raw_path, _, raw_query = target.decode("ascii").partition("?")
    path = unquote(raw_path)
    query = dict(parse_qsl(raw_query, keep_blank_values=True))
    in_header = None
    authorization = next((value.decode("latin-1") for name, value in headers if name == b"authorization"), "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        in_header = token.strip()
    is_json = b"json" in next((value.lower() for name, value in headers if name == b"content-type"), b"")
    reads_json = path in PATHS and path not in {"/acme/1", "/start/acme/1"} and method == "POST"
    document = json.loads(body) if reads_json and is_json else {}
    in_body = document.get("api_key")
    in_query = query.get("api_key")
    model, is_core = model_of(method, path, document)
    if path in BODY_ONLY:
        key = in_header if in_header is not None else in_body
    elif is_core:
        key = in_query or in_header or in_body
    else:
        key = next((found for found in (in_query, in_header, in_body) if found is not None), None)
    return key, model, loaded_by(model)


def model_of(method, path, document):  # noqa: PLR0912 -- a line for each kind of handler
    if method == "POST":
        for family, (core_path, member, default) in CORE.items():
            if path == core_path:
                return f"{family}/{document.get(member, default)}", True
        if path in BODY_ONLY or path in {"/infer/embeddings", "/infer/lmm", "/infer/action_recognition"}:
            return document.get("model_id"), False
        if path == "/infer/depth-estimation":
            if document.get("model_id") is not None:
                return document["model_id"], False
            return f"depth-anything-v2/{document.get('depth_version_id', 'small')}", False
        if path == "/sam3/visual_segment":
            return "sam3/sam3_interactive", True
        if path == "/sam3/concept_segment":
            return document.get("model_id", "sam3/sam3_final"), True
        if path == "/ocr/pp-ocr":
            return pp_ocr(document), True
        for prefix in ("/infer/lmm/", "/infer/depth-estimation/"):
            if path.startswith(prefix):
                if document.get("model_id") not in {None, path.removeprefix(prefix)}:
                    raise HandlerError
                return path.removeprefix(prefix), False
    if path.startswith("/start/"):
        return path.removeprefix("/start/"), False
    if path.count("/") == 2:
        return path.removeprefix("/"), False
    raise HandlerError


def pp_ocr(document):
    unset = object()
    detection = document.get("text_detection", unset)
    recognition = document.get("text_recognition", unset)
    if detection is unset and recognition is unset and document.get("pp_ocr_version_id"):
        stages = document["pp_ocr_version_id"].split("-")
        detection, recognition = (stages[0], stages[0]) if len(stages) == 1 else stages
    first = ("small" if detection is unset else detection) or "none"
    second = ("small" if recognition is unset else recognition) or "none"
    return f"pp_ocr/{first.lower()}-{second.lower()}"


def loaded_by(model):
    loaded = {model, ALIASES.get(model, model)}
    if model is not None and model.startswith("pp_ocr/"):
        stages = model.removeprefix("pp_ocr/").split("-")
        first, second = stages * 2 if len(stages) == 1 else stages
        loaded |= {f"pp-ocrv6-det/{first}"} - {"pp-ocrv6-det/none"}
        loaded |= {f"pp-ocrv6-rec/{second}"} - {"pp-ocrv6-rec/none"}
    return loaded


def escaped(draw, text):
    """A JSON text, perhaps with one character written as an escape."""
    quoted = json.dumps(text)[1:-1]
    if text and draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        quoted = f"{json.dumps(text[:at])[1:-1]}\\u{ord(text[at]):04x}{json.dumps(text[at + 1 :])[1:-1]}"
    return f'"{quoted}"'


def percented(draw, text, plain=""):
    """A text percent-encoded, perhaps once more than necessary."""
    encoded = quote(text, safe=plain)
    if text and draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        encoded = quote(text[:at], safe=plain) + f"%{ord(text[at]):02X}" + quote(text[at + 1 :], safe=plain)
    return encoded


FLAWED = {
    "api_key": ("null", '""', "1", "[]", '" "'),
    "model_id": (*map(json.dumps, IDS), "null", "1"),
    "usage_billable": ("true", "false", "null"),
    "nested": ('{"api_key":"third"}',),
    "image_id": ('"small"', "null", "1"),
}
VERSIONS = (
    '"small"',
    '"tiny"',
    '"none"',
    '"ViT-B-32"',
    '"hiera_tiny"',
    '"Tiny"',
    '"a/b"',
    "null",
    "NaN",
    '""',
)
VERSION_MEMBERS = (
    *("clip_version_id", "sam2_version_id", "doctr_version_id", "depth_version_id"),
    *("text_detection", "text_recognition", "pp_ocr_version_id"),
)


@st.composite
def requests(draw):
    """A request as bytes: a route, and keys, ids and flags in any of the places; a few are wrong."""

    def happens(percent):
        return draw(st.integers(0, 99)) >= 100 - percent

    def key():
        return draw(st.sampled_from((*KEYS, "", " ", KEYS[0] + " "))) if happens(6) else KEYS[0]

    path = draw(st.sampled_from(PATHS))
    method = "GET" if path in {"/start/acme/1", "/model/registry"} or happens(5) else "POST"
    headers, query, members = [], [], []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
        scheme = (
            draw(st.sampled_from(("Bearer\t", "Basic "))) if happens(3) else draw(st.sampled_from(SCHEMES))
        )
        headers.append((b"authorization", f"{scheme}{key()}".encode()))
    if not headers or happens(30):
        query.append(("api_key", key()))
    if happens(8):
        others = (("api_key", key()), ("model_id", "acme/2"), ("countinference", "true"))
        query.append(draw(st.sampled_from(others)))
    if path not in {found for found, _, _ in CORE.values()} or happens(5):
        members.append(("model_id", json.dumps("acme/1")))
    if path in {"/sam3/visual_segment", "/ocr/pp-ocr", "/infer/depth-estimation/acme/2"} and not happens(5):
        members.clear()
    if happens(40):
        members.append(("api_key", json.dumps(key())))
    for _, member, _ in [found for found in CORE.values() if found[0] == path]:
        members += [(member, draw(st.sampled_from(VERSIONS[:6])))] * happens(60)
    for member in VERSION_MEMBERS[4:] if path == "/ocr/pp-ocr" else ():
        members += [(member, draw(st.sampled_from(VERSIONS[:3])))] * happens(40)
    while happens(12):
        name = draw(st.sampled_from((*FLAWED, *VERSION_MEMBERS)))
        members = [found for found in members if found[0] != name or happens(30)]
        members.append((name, draw(st.sampled_from(FLAWED.get(name, VERSIONS)))))
    members = draw(st.permutations(members))
    body = "{" + ",".join(f"{escaped(draw, name)}:{value}" for name, value in members) + "}"
    headers.append((b"content-type", b"text/plain" if happens(3) else b"application/json"))
    target = b"/" + percented(draw, path[1:], "/").encode()
    return wire(
        method,
        target,
        "&".join(f"{percented(draw, name)}={percented(draw, value)}" for name, value in query),
        headers,
    ), b"" if path == "/start/acme/1" else body.encode("utf-16" if happens(2) else "utf-8")


def decided(request, body):
    """What is decided about, and what would be sent."""
    matched = match(TABLE, request.method, request.raw_path)
    inquiry = read(TABLE, matched, request, body if matched.route.body == "json" else None)
    return inquiry, write(inquiry, request, key=INJECTED, whose="t", secret=b"s" * 32, images=())


class TestRequests:
    @settings(max_examples=examples(500), deadline=None)
    @given(requests())
    def test_the_handler_uses_the_injected_key_and_only_the_models_that_were_decided(self, drawn):
        request, body = drawn
        try:
            inquiry, outbound = decided(request, body)
        except Refusal:
            return
        if not inquiry.models:
            assert request.raw_path.decode().endswith("registry") or "%" in request.raw_path.decode()
            return
        sent_body = body if outbound.body is None else outbound.body
        key, model, loaded = handler(outbound.method, outbound.target, outbound.headers, sent_body)
        assert key == INJECTED
        assert model == inquiry.models[0]
        assert loaded <= set(inquiry.models)

    @settings(max_examples=examples(500), deadline=None)
    @given(requests())
    def test_what_is_accepted_means_the_same_to_the_server_as_it_came(self, drawn):
        request, body = drawn
        try:
            inquiry, _ = decided(request, body)
        except Refusal:
            return
        if not inquiry.models:
            return
        target = request.raw_path + b"?" + request.query
        key, model, loaded = handler(request.method, target, request.headers, body)
        assert key in {inquiry.credential.secret, "", None}
        assert model == inquiry.models[0]
        assert loaded <= set(inquiry.models)

    @settings(max_examples=examples(300), deadline=None)
    @given(requests())
    def test_no_key_of_the_client_leaves_with_the_request(self, drawn):
        request, body = drawn
        try:
            _, outbound = decided(request, body)
        except Refusal:
            return
        sent = b"\n".join([outbound.target, outbound.body or b"", *(value for _, value in outbound.headers)])
        assert not any(key.encode() in sent for key in KEYS)
        assert outbound.headers[0] == (b"authorization", f"Bearer {INJECTED}".encode())
        assert [name for name, _ in outbound.headers].count(b"authorization") == 1
        if outbound.body is not None:
            assert "api_key" not in json.loads(outbound.body)

    @settings(max_examples=examples(100), deadline=None)
    @given(requests(), st.data())
    def test_a_request_with_two_keys_is_refused(self, drawn, data):
        request, body = drawn
        places = data.draw(st.sets(st.sampled_from(("header", "query")), min_size=1))
        headers, query = list(request.headers), request.query
        if "header" in places:
            headers.append((b"authorization", f"Bearer {KEYS[0]}".encode()))
            headers.append((b"x-api-key", KEYS[1].encode()))
        if "query" in places:
            query = urlencode([("api_key", KEYS[0]), ("api_key", KEYS[1])]).encode()
        request = wire(request.method, request.raw_path, query, headers)
        with pytest.raises(Refusal):
            decided(request, body)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8"), max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


class TestStrictJson:
    @given(
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), json_values, max_size=4),
        st.booleans(),
    )
    def test_what_is_written_is_read_as_the_same(self, document, is_ascii):
        try:
            parsed = parse_strict_object(json.dumps(document, ensure_ascii=is_ascii).encode())
        except (Refusal, UnicodeEncodeError):
            return
        assert parsed == document
        assert json.loads(write_json(parsed)) == document
        assert repr(json.loads(write_json(parsed))) == repr(document)  # -0.0, 1 and 1.0 and true too

    @given(st.binary(max_size=40))
    def test_bytes_are_refused_or_read_as_every_parser_does(self, body):
        for text in (body, b'{"a":' + body + b"}", b'{"a":"' + body + b'"}'):
            try:
                parsed = parse_strict_object(text)
            except Refusal:
                continue
            assert repr(parsed) == repr(json.loads(text))


image_objects = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ("base64", "BASE64", "url", "Url", "file", "FILE", "numpy", "pil", "", None, 1)
        ),
        "value": st.sampled_from(("aGk=", "http://a.example/", "/etc/passwd", None, ["http://a.example/"])),
        "x": st.sampled_from(("http://a.example/", {"type": "url", "value": "http://a.example/"})),
    },
)
image_places = st.one_of(
    image_objects,
    st.sampled_from(("aGk=", "http://a.example/", "/etc/passwd", None, 1)),
    st.lists(st.one_of(image_objects, st.sampled_from(("aGk=", "http://a.example/"))), max_size=2),
    st.dictionaries(
        st.sampled_from(("type", "value", "y")),
        st.one_of(image_objects, st.just("http://a.example/")),
        max_size=2,
    ),
)


class TestImages:
    @settings(max_examples=examples(400))
    @given(image_places, image_places, st.sampled_from(("image", "Image", "", "text", None)))
    def test_nothing_is_left_for_the_server_to_fetch_or_to_guess(self, subject, prompt, prompt_type):
        document = {"subject": subject, "prompt": prompt}
        if prompt_type is not None:
            document["prompt_type"] = prompt_type
        headers = [("authorization", "Bearer k"), ("content-type", "application/json")]
        request = wire(path="/clip/compare", headers=headers)
        try:
            inquiry = inquire(request, json.dumps(document).encode())
        except Refusal:
            return
        images = ["ZmV0Y2hlZA=="] * len(inquiry.images)
        sent = json.loads(write(inquiry, request, key="k", whose="t", secret=b"s" * 32, images=images).body)
        checked = [sent["subject"]]
        if prompt_type not in {"text", None}:
            prompts = sent["prompt"]
            assert prompts is None or isinstance(prompts, list | dict)
            checked += list((prompts.values() if isinstance(prompts, dict) else prompts) or ())
        for image in checked:
            assert image is None or set(image) == {"type", "value"}
            assert image is None or image["type"] == "base64"
            assert image is None or isinstance(image["value"], str)
            assert image is None or image["value"] != ""
