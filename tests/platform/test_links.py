"""Links that were handed out under an allow: they outlive it, and end when the right ends."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.slow

CARS, TRUCKS = "acme/cars/1", "acme/trucks/2"
CONTENT = b"the weights of a model\n"


def follow(asking, link):
    return asking.gateway.wire.get(link)


def test_a_link_of_a_key_that_nobody_set_up_opens_its_file(asking, platform):
    link = asking.link(CARS, platform.new_key(CARS))
    assert follow(asking, link).body == CONTENT


def test_a_link_outlives_the_allow_that_it_was_handed_out_under(forgetful, platform):
    link = forgetful.link(CARS, platform.new_key(CARS))
    time.sleep(1.2)
    asked = len(platform.asked)
    assert follow(forgetful, link).body == CONTENT
    assert len(platform.asked) == asked


def test_a_link_outlasts_an_outage_of_the_platform(forgetful, platform):
    link = forgetful.link(CARS, platform.new_key(CARS))
    platform.status = 500
    time.sleep(1.2)
    assert follow(forgetful, link).status == 200


@pytest.mark.parametrize("named", ["key", "model", "everything"])
def test_a_hook_ends_links_at_once(asking, platform, named):
    key = platform.new_key(CARS)
    link = asking.link(CARS, key)
    assert follow(asking, link).status == 200
    named = {"key": {"keys": (key,)}, "model": {"models": (CARS,)}, "everything": {}}[named]
    assert asking.end(**named).status == 200
    assert follow(asking, link).status in {401, 404}
    assert asking.get(CARS, key).status == 200, "the key itself is asked about again"
    assert follow(asking, link).status in {401, 404}, "what was handed out before stays ended"


def test_a_later_denial_ends_links(forgetful, platform, eventually):
    key = platform.new_key(CARS)
    link = forgetful.link(CARS, key)
    platform.rights[key].clear()
    eventually(lambda: forgetful.get(CARS, key).status == 404)
    assert follow(forgetful, link).status == 404


def test_a_key_that_is_nobodys_any_more_takes_its_links_along(forgetful, platform, eventually):
    key = platform.new_key(CARS, TRUCKS)
    link = forgetful.link(CARS, key)
    del platform.rights[key]
    eventually(lambda: forgetful.get(TRUCKS, key).status == 401)
    assert follow(forgetful, link).status == 401


def test_a_local_revocation_ends_links(asking, platform):
    key = platform.new_key(CARS)
    link = asking.link(CARS, key)
    key_id = asking.gateway.wire.get("/v1/whoami", key).json()["key_id"]
    asking.installation.run("keys", "revoke", key_id)
    assert follow(asking, link).status == 401


def test_a_link_opens_nothing_else(asking, platform):
    link = asking.link(CARS, platform.new_key(CARS, TRUCKS))
    assert follow(asking, link.replace("cars/1", "trucks/2")).status == 401


def test_links_of_a_key_of_our_own_work_beside_the_platforms(asking, platform):
    asking.installation.run("tenants", "create", "local-tenant", status=None)
    asking.installation.run("grants", "add", "--tenant", "local-tenant", "--models", CARS)
    token = asking.installation.json("keys", "create", "--tenant", "local-tenant")["token"]
    assert asking.get(CARS, token).status == 200
    assert platform.questions(token) == []
