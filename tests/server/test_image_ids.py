"""SAM 2 keeps embeddings under names that callers choose: behind the gateway each tenant has its own."""

from __future__ import annotations

import pytest
from gateways import SERVICE_KEY
from http_client import image, post
from tenants_models import SAM2

pytestmark = pytest.mark.server

EMBED, SEGMENT = "/sam2/embed_image", "/sam2/segment_image"
POINT = [{"points": [{"x": 10, "y": 12, "positive": True}]}]
NAMES = ("mine", "")


def asking(seed, **more):
    return {"sam2_version_id": SAM2.rpartition("/")[2], "image": image(seed)} | more


def masks(answer):
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


@pytest.fixture(scope="module")
def masks_of(_upstream):
    """What the server itself makes of a picture, without any name.

    It is asked beforehand: what a test finds in the server's notes is what the gateway sent.
    """
    _upstream.provider.grant(SERVICE_KEY, "*")

    def ask(seed):
        return masks(post(_upstream.server.url, SEGMENT, asking(seed, prompts=POINT), SERVICE_KEY))

    return {seed: ask(seed) for seed in (1, 2)}.get


def segment(front, key, seed, **more):
    return masks(front.post(SEGMENT, asking(seed, prompts=POINT, **more), key))


def sent_id(front):
    """The name under which the server was last asked to keep something."""
    return front.sent()[-1].json["image_id"]


def test_the_pictures_differ_and_the_bare_server_mixes_tenants_up(front, masks_of):
    """Without this, the tests below could not fail."""
    assert masks_of(1) != masks_of(2)
    bare = front.upstream.server.url
    assert post(bare, EMBED, asking(1, image_id="shared"), SERVICE_KEY).status == 200
    other = post(bare, SEGMENT, asking(2, image_id="shared", prompts=POINT), SERVICE_KEY)
    assert masks(other) == masks_of(1)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_one_tenants_picture_gives_another_nothing(front, masks_of, name):
    acme, globex = front.key("acme"), front.key("globex")
    assert front.post(EMBED, asking(1, image_id=name), acme).status == 200
    first = sent_id(front)
    assert segment(front, globex, 2, image_id=name) == masks_of(2)
    assert len({first, sent_id(front), name}) == 3
    # It is still acme's.
    assert segment(front, acme, 2, image_id=name) == masks_of(1)
    assert sent_id(front) == first


def test_what_comes_back_is_taken_again_of_the_same_tenant_and_means_nothing_of_another(front, masks_of):
    acme, globex = front.key("acme"), front.key("globex")
    returned = front.post(EMBED, asking(1), acme).json()["image_id"]
    assert segment(front, acme, 2, image_id=returned) == masks_of(1)
    assert segment(front, globex, 2, image_id=returned) == masks_of(2)


def test_without_a_name_pictures_are_kept_apart_by_tenant_and_content(front):
    ids = []
    for tenant, seed in (("acme", 1), ("acme", 2), ("globex", 1), ("globex", 2)):
        assert front.post(EMBED, asking(seed), front.key(tenant)).status == 200
        ids.append(sent_id(front))
    assert len(set(ids)) == 4
    assert front.post(EMBED, asking(1), front.key("acme")).status == 200
    assert sent_id(front) == ids[0]


def test_a_key_of_the_same_tenant_finds_the_picture(front, masks_of):
    assert front.post(EMBED, asking(1, image_id="ours"), front.key("acme")).status == 200
    assert segment(front, front.other_key("acme"), 2, image_id="ours") == masks_of(1)


def test_the_digest_by_which_the_server_names_a_picture_finds_nothing(front, masks_of):
    bare = post(front.upstream.server.url, EMBED, asking(1), SERVICE_KEY)
    digest = bare.json()["image_id"]
    assert segment(front, front.key("globex"), 2, image_id=digest) == masks_of(2)


@pytest.mark.parametrize("target", ["/sam3/embed_image", "/sam3/visual_segment", "/sam2/embed_image"])
def test_no_name_of_a_caller_reaches_the_server(front, target):
    """SAM 3 does not load here; what it would be told is read from the request."""
    ids = []
    for tenant in ("acme", "globex"):
        front.post(target, {"image": image(1), "image_id": "mine"}, front.key(tenant))
        ids.append(sent_id(front))
    assert len({*ids, "mine"}) == 3
