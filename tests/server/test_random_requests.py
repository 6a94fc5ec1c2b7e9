"""Over random requests: nothing is authorised for another model or key than the handler then used.

What the handler used is read from the server's notes, which know nothing of the gateway. What each tenant may
do is written down here by hand. A request that is refused has reached nothing.
"""

from __future__ import annotations

from collections import Counter

import pytest
from gateways import SERVICE_KEY
from hypothesis import given
from random_requests import examples, requests
from tenants_models import ALIAS

from gateway.front_door.matching import match
from gateway.front_door.table import load_table
from gateway.front_door.values import BodyKind

pytestmark = pytest.mark.server

TABLE = load_table("1.8.3")
EXAMPLES = 400
OPEN_TO_ALL = (
    *("clip/", "classifiers/", "sam2/", "pp_ocr/", "doctr/", "perception_encoder/"),
    *("perception-encoder/", "depth-anything-v2/", "pp-ocrv6-det/", "pp-ocrv6-rec/", "sam3/"),
    *("trocr/", "easy_ocr/", "yolo_world/"),
)
NAMES = {ALIAS: {"acme"}}
"""Ids without a slash, and who may use them."""


def may_infer(tenant, model):
    """By hand: what is a tenant's own, what is everybody's, and the names without an owner."""
    if "/" in model:
        return model.startswith((f"{tenant}/", *OPEN_TO_ALL))
    return tenant in NAMES.get(model, ())


def streams(note):
    """Whether the body passed as it came. It is an image then: no handler reads a key in it."""
    path = note.values["raw_path"].encode()
    return match(TABLE, note.values["method"], path).route.body is BodyKind.STREAM


@pytest.fixture(scope="module")
def tally():
    """What the examples came to: laws that hold because nothing gets through are worth nothing."""
    counted = Counter()
    yield counted
    assert counted["used"] > EXAMPLES // 20, counted
    assert counted["refused"] > EXAMPLES // 5, counted


def test_what_the_handler_uses_was_authorised_for_the_caller(front, tally):
    keys = {"acme": front.key("acme"), "acme again": front.other_key("acme"), "globex": front.key("globex")}
    tokens = {name: key.token for name, key in keys.items()}
    tokens |= {"service": SERVICE_KEY, "unknown": "a-key-that-nobody-has", "empty": ""}
    key_of = {key.token: key for key in keys.values()}
    seen = {one["id"] for one in front.installation.records() if "id" in one}

    @examples(EXAMPLES)
    @given(request=requests(tokens))
    def law(request):
        front.notes.mark()
        answer = front.send(request.method, request.target, request.body, request.headers)
        received, used = front.sent(), front.notes.all("add", "load", "infer")
        tally["used" if used else "sent" if received else "refused"] += 1
        assert answer.status != 500 or received
        for note in received:
            values = {
                name: value for name, value in note.values.items() if name != "body" or not streams(note)
            }
            assert not any(token in repr(values) for token in key_of), note
            named = [value for name, value in note.headers if name.lower() == "authorization"]
            assert named in ([], [f"Bearer {SERVICE_KEY}"]), note
        if not used:
            return
        # One key came, and it is the one that was decided on.
        (token,) = request.keys_beside_body if any(map(streams, received)) else request.keys
        key = key_of[token]
        new = [one for one in front.installation.records() if one.get("id") not in seen]
        seen.update(one["id"] for one in new if "id" in one)
        allowed = {
            name  # an alias is decided on with the model that it names
            for one in new
            if one.get("action") == "infer" and one.get("key_id") == key.key_id
            if one["reason"] == "permitted"
            for name in (one["resource"]["requested"], one["resource"]["model"])
        }
        for note in used:
            assert note.key in (SERVICE_KEY, None), note  # `infer` repeats the body's key, which is out
            assert may_infer(key.tenant, note.model), note
            # What a model brings is loaded under the names that it has at the provider.
            assert note.event == "load" or note.model in allowed, (note, allowed)

    law()
