"""What is refused before anything is sent to the server: with a clear problem."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from http_client import bearer, encoded, image
from tenants_models import BOXES, CARS

pytestmark = pytest.mark.server

CLASSIFY, COMPARE, LEGACY = "/infer/classification", "/clip/compare", f"/{CARS}"
JSON = (("Content-Type", "application/json"),)
KEY, OTHER_KEY = "{key}", "{other}"
"""Stand for two keys of one tenant, wherever they are put."""


@dataclass(frozen=True)
class Case:
    """A request, and the reason for which it is refused."""

    name: str
    reason: str
    target: str = CLASSIFY
    body: object = b""  # what is no bytes is sent as JSON
    headers: tuple[tuple[str, str], ...] = JSON
    method: str = "POST"
    has_key: bool = True  # whether the usual header with a key goes along

    def __str__(self) -> str:
        return self.name


def ask(**more):
    return {"model_id": CARS, "image": image()} | more


def raw(text, **more):
    """The usual body with raw JSON for its image."""
    return (f'{{"model_id": "{CARS}", "image": ' + text + "}").encode(**more)


USUAL = json.dumps(ask())
TEXT = (("Content-Type", "text/plain"),)
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
DEEP = b'{"model_id": "%s", "image": %s1%s}' % (CARS.encode(), b"[" * 5000, b"]" * 5000)

MALFORMED = (
    Case("no body", "malformed-body"),
    Case("no JSON", "malformed-body", body=b"{"),
    Case("a list", "malformed-body", body=[ask()]),
    Case("more than one value", "malformed-body", body=USUAL.encode() + b"{}"),
    Case("a duplicate member", "malformed-body", body=USUAL[:-1].encode() + b', "model_id": "acme/1"}'),
    Case(
        "an escaped duplicate", "malformed-body", body=USUAL[:-1].encode() + b', "model\\u005fid": "acme/2"}'
    ),
    Case(
        "a duplicate far below", "malformed-body", body=raw('{"type": "base64", "value": "A", "value": "B"}')
    ),
    Case("NaN", "malformed-body", body=raw("NaN")),
    Case("infinity", "malformed-body", body=raw("-Infinity")),
    Case("a lone surrogate", "malformed-body", body=b'{"model_id": "acme/\\ud800", "image": null}'),
    Case("depth", "malformed-body", body=DEEP),
    Case("UTF-16", "malformed-body", body=USUAL.encode("utf-16")),
    Case("UTF-32", "malformed-body", body=USUAL.encode("utf-32-le")),
    Case("a byte order mark", "malformed-body", body=USUAL.encode("utf-8-sig")),
    Case("latin-1", "malformed-body", body=raw('"\xe9"', encoding="latin-1")),
    Case("compressed", "malformed-body", body=ask(), headers=(*JSON, ("Content-Encoding", "gzip"))),
    Case("plain text", "malformed-body", body=ask(), headers=TEXT),
    Case("a form", "malformed-body", body=ask(), headers=FORM),
    Case("no content type", "malformed-body", body=ask(), headers=()),
    Case("an id that is a number", "malformed-body", body=ask(model_id=1)),
    Case("an id that is null", "malformed-body", body=ask(model_id=None)),
    Case("no id", "malformed-body", body={"image": image()}),
    Case(
        "a version that is null", "malformed-body", "/clip/embed_text", {"text": "a", "clip_version_id": None}
    ),
    Case("an image that is a string", "malformed-body", body=ask(image=encoded())),
    Case("a key that is a number", "malformed-credential", body=ask(api_key=1)),
    Case("a body where none is read", "malformed-body", "/model/registry", b"{}", JSON, "GET"),
)
CREDENTIALS = (
    Case("no key", "no-credential", body=ask(), has_key=False),
    Case("header and body", "conflicting-credentials", body=ask(api_key=OTHER_KEY)),
    Case("header and query", "conflicting-credentials", f"{CLASSIFY}?api_key={OTHER_KEY}", ask()),
    Case("header and an escaped name", "conflicting-credentials", f"{CLASSIFY}?api%5Fkey={OTHER_KEY}", ask()),
    Case(
        "query twice",
        "conflicting-credentials",
        f"{CLASSIFY}?api_key={KEY}&api_key={OTHER_KEY}",
        ask(),
        has_key=False,
    ),
    Case(
        "two headers",
        "conflicting-credentials",
        body=ask(),
        headers=(*JSON, ("Authorization", f"Bearer {OTHER_KEY}")),
    ),
    Case("the legacy route", "conflicting-credentials", f"{LEGACY}?api_key={OTHER_KEY}", b"AAAA", TEXT),
)
MODELS = (
    Case("query", "conflicting-models", f"{CLASSIFY}?model_id={BOXES}", ask()),
    Case("path and body", "conflicting-models", f"/infer/lmm/{CARS}", ask(model_id=BOXES)),
    Case("a core model's id", "conflicting-models", "/clip/embed_text", {"text": "a", "model_id": CARS}),
    Case("a version of another", "conflicting-models", body=ask(clip_version_id="ViT-B-16")),
    Case("a model that keeps what it was told", "closed-route", "/infer/object_detection",
         ask(model_id="yolo_world/l")),
    Case("the same by its path", "closed-route", "/yolo_world/l", b"AAAA", TEXT),
    Case("the same, told nothing", "malformed-body", "/yolo_world/infer", {"image": image()}),
    Case("a fixed model", "conflicting-models", "/sam3/embed_image", ask()),
    Case("SAM 2's version for SAM 3", "conflicting-models", "/sam3/embed_image",
         {"image": image(), "sam2_version_id": "hiera_tiny"}),
)  # fmt: skip
FIELDS = (
    Case("bills another", "forbidden-field", body=ask(usage_billable=False)),
    Case("a service secret", "forbidden-field", body=ask(service_secret="s")),
    Case("a service secret in the query", "forbidden-field", f"{LEGACY}?service_secret=s", b"AAAA", TEXT),
    Case("not counted", "forbidden-field", f"{LEGACY}?countinference=false", b"AAAA", TEXT),
    Case("uploads", "forbidden-field", body=ask(active_learning_target_dataset="d")),
    Case("pairs frames", "forbidden-field", body=ask(stream_pipeline_context_id="c")),
)
IMAGES = (
    Case("a URL", "forbidden-image", body=ask(image={"type": "url", "value": "https://example.com/a"})),
    Case("in capitals", "forbidden-image", body=ask(image={"type": "URL", "value": "https://example.com/a"})),
    Case("one of a list", "forbidden-image",
         body=ask(image=[image(), {"type": "url", "value": "https://example.com/a"}])),
    Case("a file", "forbidden-image", body=ask(image={"type": "file", "value": "/etc/hostname"})),
    Case("a file in capitals", "forbidden-image", body=ask(image={"type": "FILE", "value": "/etc/hostname"})),
    Case("numpy", "forbidden-image", body=ask(image={"type": "numpy", "value": "AAAA"})),
    Case("legacy", "forbidden-image", f"{LEGACY}?image=https://example.com/a", b"", TEXT),
    Case("legacy, GET", "forbidden-image", f"{LEGACY}?image=https://example.com/a", b"", (), "GET"),
    Case("legacy, the body's type", "forbidden-image", f"{LEGACY}?image_type=url", b"https://a/b", TEXT),
    Case("legacy, a file", "forbidden-image", f"{LEGACY}?image_type=FILE", b"/etc/hostname", TEXT),
    Case("a subject", "forbidden-image", COMPARE, {"subject": "https://example.com/a", "prompt": "a"}),
    Case("a prompt", "forbidden-image", COMPARE,
         {"subject": image(), "prompt": ["https://example.com/a"], "prompt_type": "image"}),
    Case("prompts by name", "forbidden-image", COMPARE,
         {"subject": image(), "prompt": {"x": "https://example.com/a"}, "prompt_type": "image"}),
    Case("a video", "forbidden-image", "/infer/action_recognition",
         {"model_id": CARS, "video": {"type": "url", "value": "https://example.com/a"}}),
)  # fmt: skip
ROUTES = (
    *(
        Case(f"{method} {target}", "closed-route", target, b"", (), method)
        for method, target in (
            ("POST", "/model/clear"),
            ("GET", "/clear_cache"),
            ("POST", "/model/remove"),
            ("GET", "/logs"),
            ("GET", "/device/stats"),
            ("GET", "/metrics"),
            ("GET", "/notebook/start"),
            ("GET", "/build"),
            ("GET", "/build/api/models"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("GET", "/redoc"),
            ("GET", "/dashboard.html"),
            ("GET", "/static/x"),
            ("GET", "/inference_pipelines/list"),
            ("POST", "/inference_pipelines/initialise"),
            ("POST", "/initialise_webrtc_worker"),
        )
    ),
)

CASES = (*MALFORMED, *CREDENTIALS, *MODELS, *FIELDS, *IMAGES, *ROUTES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_request_is_a_clear_problem_and_nothing_is_sent(front, case):
    key, other = front.key(), front.other_key()

    def filled(text):
        return text.replace(KEY, key.token).replace(OTHER_KEY, other.token)

    body = case.body if isinstance(case.body, bytes) else filled(json.dumps(case.body)).encode()
    headers = tuple((name, filled(value)) for name, value in case.headers)
    headers += bearer(key.token) if case.has_key else ()
    has_body = body or case.method == "POST"
    # Refusals without a caller are counted, not recorded, where one address has many: each case has its own.
    source = f"127.0.1.{1 + CASES.index(case)}"
    answer = front.send(case.method, filled(case.target), body if has_body else None, headers, source=source)
    assert (front.reason(answer), answer.status // 100) == (case.reason, 4)
    assert answer.header("content-type") == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status
    assert problem["detail"]
    assert key.token not in answer.body.decode()
    assert front.sent() == []
