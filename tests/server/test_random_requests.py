"""Over random requests: nothing is authorised for another model or key than the handler then uses.

What the handler used is read from the server's notes, which know nothing of the gateway. What each tenant may
do is written down here by hand. A request that is refused has reached nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from urllib.parse import quote

import pytest
from gateways import SERVICE_KEY
from http_client import image
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tenants_models import ALIAS, BOXES, CARS, CHILD, GLOBEX_BOXES, GLOBEX_VANS, SHARED, STATIC_ALIAS

pytestmark = pytest.mark.server

EXAMPLES = 400
OPEN_TO_ALL = (
    *("clip/", "classifiers/", "sam2/", "pp_ocr/", "doctr/", "perception_encoder/"),
    *("perception-encoder/", "depth-anything-v2/", "pp-ocrv6-det/", "pp-ocrv6-rec/"),
)
NAMES = {ALIAS: {"acme"}, "pp_ocr": {"acme", "globex"}}
"""Ids without a slash, and who may use them."""

MODELS = (CARS, BOXES, CHILD, GLOBEX_VANS, GLOBEX_BOXES, SHARED, STATIC_ALIAS, ALIAS)
IDS = st.sampled_from(
    (*MODELS, *MODELS, "clip/ViT-B-16", "clip/RN50", "grounding_dino/default", "sam/vit_h", "acme/99",
     "pp_ocr", "acme/1,globex/1", "acme/1/", "Acme/1", " acme/1", "acme/..", "acme%2F1", "infer/lmm", "")
)  # fmt: skip
VERSIONS = st.sampled_from(("ViT-B-16", "RN50", "../../acme", "ViT-B-16,x", "", None, 1))
KEYS = st.sampled_from(
    ("acme", "acme", "acme", "acme again", "globex", "globex", "service", "unknown", "empty")
)

INFER = ("/infer/classification", "/infer/object_detection", "/infer/lmm", "/infer/embeddings", "/model/add")
BY_PATH = ("/infer/lmm/{}", "/infer/depth-estimation/{}", "/{}", "/start/{}")
CORE = (
    "/clip/embed_text",
    "/clip/embed_image",
    "/perception_encoder/embed_text",
    "/ocr/pp-ocr",
    "/doctr/ocr",
)
CONTENT_TYPES = st.sampled_from(
    ("application/json",) * 8
    + (
        "APPLICATION/JSON; charset=utf-16",
        "application/vnd.a+json",
        "text/plain",
        "multipart/form-data",
        None,
    )
)
ENCODINGS = st.sampled_from(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "utf-32", "escaped"))


@st.composite
def paths(draw):
    form = draw(st.sampled_from((*INFER * 3, *BY_PATH * 2, *CORE)))
    path = form.format(draw(IDS))
    how = draw(
        st.sampled_from(("plain",) * 6 + ("percent", "slash", "double", "trailing", "dots", "capitals"))
    )
    if how == "percent" and len(path) > 2:
        at = draw(st.integers(1, len(path) - 1))
        path = f"{path[:at]}%{ord(path[at]):02X}{path[at + 1 :]}" if path[at].isascii() else path
    changed = {
        "slash": path[0] + path[1:].replace("/", "%2F"),
        "double": path.replace("/", "//", 2),
        "trailing": path + "/",
        "dots": "/x/.." + path,
        "capitals": path.title(),
    }
    return quote(changed.get(how, path), safe="/%,.:")


@st.composite
def documents(draw):
    """Members with their places in the order, duplicates among them."""
    members = [("image", image()), ("text", "a")]
    for name, values, often in (
        ("model_id", IDS, 9),
        ("model_id", IDS, 2),
        ("clip_version_id", VERSIONS, 2),
        ("api_key", KEYS, 5),
        ("api_key", KEYS, 1),
        ("text_detection", st.sampled_from(("small", "none", "x")), 1),
        ("inner", st.builds(lambda model, key: {"model_id": model, "api_key": key}, IDS, KEYS), 1),
        ("Model_id", IDS, 1),
    ):
        if draw(st.integers(1, 10)) <= often:
            members.append((name, draw(values)))
    return draw(st.permutations(members))


QUERIES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("api_key", "api_key", "api%5Fkey", "API_KEY")), KEYS),
        st.tuples(st.sampled_from(("model_id", "dataset_id", "confidence")), IDS),
    ),
    max_size=2,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(("Authorization", "Authorization", "x-api-key")),
        st.sampled_from(("Bearer ", "bearer   ", "Basic ", "")),
        KEYS,
    ),
    max_size=2,
)


def written(members, encoding, filled):
    text = ", ".join(f"{json.dumps(name)}: {json.dumps(filled(name, value))}" for name, value in members)
    text = "{" + text + "}"
    if encoding == "escaped":
        return text.replace('"model_id"', '"model\\u005fid"', 1).encode()
    return text.encode(encoding)


def may_infer(tenant, model):
    """By hand: what is a tenant's own, what is everybody's, and the names without an owner."""
    if "/" in model:
        return model.startswith((f"{tenant}/", *OPEN_TO_ALL))
    return tenant in NAMES.get(model, ())


@pytest.fixture(scope="module")
def tally():
    """What the examples came to: laws that hold because nothing gets through are worth nothing."""
    counted = Counter()
    yield counted
    assert counted["used"] > EXAMPLES // 20, counted
    assert counted["refused"] > EXAMPLES // 4, counted


def test_what_the_handler_uses_was_authorised_for_the_caller(front, tally):
    keys = {"acme": front.key("acme"), "acme again": front.other_key("acme"), "globex": front.key("globex")}
    tokens = {name: key.token for name, key in keys.items()}
    tokens |= {"service": SERVICE_KEY, "unknown": "a-key-that-nobody-has", "empty": ""}
    tenant_of = {key.token: key.tenant for key in keys.values()}

    def filled(name, value):
        if isinstance(value, dict) and "api_key" in value:
            return value | {"api_key": tokens[value["api_key"]]}
        return tokens[value] if name.lower().replace("%5f", "_") == "api_key" else value

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        method=st.sampled_from(("POST",) * 8 + ("GET", "PUT")),
        path=paths(),
        query=QUERIES,
        headers=HEADERS,
        members=documents(),
        content_type=CONTENT_TYPES,
        encoding=ENCODINGS,
    )
    def law(method, path, query, headers, members, content_type, encoding):
        front.notes.mark()
        before = len(front.installation.records())
        target = path
        if query:
            target += "?" + "&".join(f"{name}={quote(filled(name, value))}" for name, value in query)
        sent = [(name, scheme + tokens[key]) for name, scheme, key in headers]
        if content_type is not None:
            sent.append(("Content-Type", content_type))
        body = written(members, encoding, filled)
        answer = front.send(method, target, body, tuple(sent))
        used = front.notes.all("add", "load", "infer")
        tally["used" if used else "refused" if not front.sent() else "sent"] += 1
        assert answer.status != 500
        records = front.installation.records()[before:] if used else []
        tenants = {
            (one["tenant"], one["key_id"])
            for one in front.installation.records()
            if one.get("id") == answer.header("cachegate-record")
        }
        for note in front.sent():
            assert sum(name.lower() == "authorization" for name, _ in note.headers) <= 1
            known = [token for token in tenant_of if token in repr(note.values)]
            assert all(token in json.dumps(note.json and note.json.get("inner")) for token in known), note
        for note in used:
            assert note.key in (SERVICE_KEY, None), note
            ((tenant, key_id),) = tenants
            assert may_infer(tenant, note.model), note
            allowed = {
                one["model"]
                for one in records
                if one.get("action") == "infer"
                and one.get("key_id") == key_id
                and one.get("reason") == "permitted"
            }
            if note.event != "load":  # what a model brings is loaded under names of the provider's
                assert note.model in allowed, (note, allowed)
        # One key: all that came were the same, and it is the one that was decided on.
        if used:
            given_keys = {
                token for token in tenant_of if token in str((target, sent)) or _has(members, filled, token)
            }
            assert {tenant_of[token] for token in given_keys} == {tenant for tenant, _ in tenants}
            assert len(given_keys) == 1

    law()


def _has(members, filled, token):
    return any(name == "api_key" and filled(name, value) == token for name, value in members)
