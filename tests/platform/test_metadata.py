"""Metadata under a platform's authority: its denials and retractions apply to it as well, at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.slow

CARS, TRUCKS = "acme/cars/1", "acme/trucks/2"


def ask(asking, key, more=""):
    return asking.gateway.wire.get(f"/models/v1/external/weights?modelId={quote(CARS, safe='')}{more}", key)


def packages(answer):
    assert answer.status == 200, answer.body
    return [one["packageId"] for one in answer.json()["modelMetadata"]["modelPackages"]]


@pytest.mark.parametrize(("said", "told"), [(401, 401), (403, 404), (404, 404), (402, 404), (423, 404)])
def test_a_denial_that_is_heard_with_metadata_ends_the_right_and_the_links(asking, platform, said, told):
    key = platform.new_key(CARS)
    link = asking.link(CARS, key)
    assert asking.gateway.wire.get(link).status == 200
    platform.weights[key] = said
    if said == 401:
        del platform.rights[key]
    assert ask(asking, key, "&x=1").status == told
    assert asking.gateway.wire.get(link).status in {401, 404}
    assert asking.get(CARS, key).status == told
    assert ask(asking, key).status == told, "what it said before it denied is not remembered"


@pytest.mark.parametrize("said", [402, 423])
def test_payment_and_pause_of_metadata_pass_where_they_do_not_depend_on_the_model(asking, platform, said):
    key = platform.new_key(CARS)
    link = asking.link(CARS, key)
    platform.says[key, None] = platform.weights[key] = said
    assert ask(asking, key, "&x=1").status == said
    assert asking.gateway.wire.get(link).status == 404
    assert asking.get(CARS, key).status == said


@pytest.mark.parametrize("named", ["key", "model", "everything"])
def test_a_hook_ends_what_is_remembered_of_metadata(asking, platform, named):
    key = platform.new_key(CARS)
    assert packages(ask(asking, key)) == ["pkg1"]
    platform.package = "pkg2"
    assert packages(ask(asking, key)) == ["pkg1"], "it is remembered"
    assert asking.end(**{"key": {"keys": (key,)}, "model": {"models": (CARS,)}}.get(named, {})).status == 200
    assert packages(ask(asking, key)) == ["pkg2"]


def test_a_hook_ends_what_was_said_to_a_key_of_our_own_about_the_model(asking, platform):
    asking.installation.run("tenants", "create", "teller", status=None)
    asking.installation.run("grants", "add", "--tenant", "teller", "--models", CARS)
    key = asking.installation.json("keys", "create", "--tenant", "teller")["token"]
    platform.rights[key] = {CARS}
    assert packages(ask(asking, key)) == ["pkg1"]
    platform.package = "pkg2"
    assert asking.end(models=(TRUCKS,)).status == 200
    assert packages(ask(asking, key)) == ["pkg1"]
    assert asking.end(models=(CARS,)).status == 200
    assert packages(ask(asking, key)) == ["pkg2"]


def test_a_token_of_ours_is_never_sent_to_the_provider(asking, platform):
    asking.installation.run("tenants", "create", "bearer", status=None)
    asking.installation.run("grants", "add", "--tenant", "bearer", "--models", CARS)
    key = asking.installation.json("keys", "create", "--tenant", "bearer")["token"]
    platform.rights[key] = {CARS}
    form = (
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange"
        f"&subject_token={key}&subject_token_type=urn:cachegate:token-type:api-key"
    )
    made = asking.gateway.wire.send(
        "POST /v1/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}".encode()
    )
    token = made.json()["access_token"]
    assert asking.get(CARS, token).status == 200
    for _ in range(2):  # the second time, the provider's reply to the key is remembered
        for path in ("weights", "stat"):
            answer = asking.gateway.wire.get(f"/models/v1/external/{path}?modelId={CARS}", token)
            assert (answer.status, answer.json()["type"]) == (403, "urn:cachegate:problem:no-links")
            assert asking.gateway.wire.get(f"/models/v1/external/{path}?modelId={CARS}", key).status == 200
    assert platform.questions(token) == []
    assert token not in {asked for asked, _ in platform.weights_asked}


def test_metadata_that_was_on_its_way_when_the_hook_came_is_not_remembered(asking, platform, eventually):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).status == 200
    platform.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, asking, key)
        eventually(lambda: (key, CARS) in platform.weights_asked)
        platform.package = "pkg2"
        assert asking.end(models=(CARS,)).status == 200
        platform.may_answer.set()
        answer = waiting.result()
    assert answer.status == 503 or packages(answer) == ["pkg2"]
    assert packages(ask(asking, key)) == ["pkg2"]
