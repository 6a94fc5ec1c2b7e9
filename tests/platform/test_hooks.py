"""The platform's webhook: what it ends has ended when it is answered, and only the platform can use it."""

from __future__ import annotations

import json
import time
from hashlib import sha256

import pytest

from gateway.faces.hooks import MAX_NAMED

pytestmark = pytest.mark.slow

CARS, TRUCKS = "acme/cars/1", "acme/trucks/2"


def test_a_revoked_key_is_refused_at_once(asking, platform):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).status == 200
    del platform.rights[key]
    answer = asking.end(keys=(key,))
    assert (answer.status, list(answer.json())) == (200, ["generation", "not_ours_to_end"])
    assert asking.get(CARS, key).status == 401


def test_a_model_that_was_taken_away_is_gone_at_once(asking, platform):
    one, other = platform.new_key(CARS, TRUCKS), platform.new_key(CARS)
    assert (
        asking.get(CARS, one).status
        == asking.get(CARS, other).status
        == asking.get(TRUCKS, one).status
        == 200
    )
    platform.rights[one].remove(CARS)
    platform.rights[other].remove(CARS)
    assert asking.end(models=(CARS,)).status == 200
    assert asking.get(CARS, one).status == asking.get(CARS, other).status == 404
    assert asking.get(TRUCKS, one).status == 200
    assert platform.questions(one).count(TRUCKS) == 1, "what was not named is not asked for again"


def test_an_empty_hook_means_everything(asking, platform):
    keys = [platform.new_key(CARS) for _ in range(2)]
    assert {asking.get(CARS, key).status for key in keys} == {200}
    for key in keys:
        platform.rights[key].clear()
    assert asking.post_hook(b"{}").status == 200
    assert {asking.get(CARS, key).status for key in keys} == {404}


def test_a_new_right_is_seen_at_once_as_well(asking, platform):
    key = platform.new_key()
    assert asking.get(CARS, key).status == 404
    platform.rights[key].add(CARS)
    assert asking.end(keys=(key,)).status == 200
    assert asking.get(CARS, key).status == 200


def test_a_hook_that_comes_again_changes_nothing_more(asking, platform):
    key = platform.new_key(CARS)
    moment = time.time()  # noqa: TID251 -- a sender has a clock
    for _ in range(3):
        assert asking.post_hook(b'{"models":["acme/cars/1"]}', at=moment).status == 200
        assert asking.get(CARS, key).status == 200


def test_the_change_is_recorded_as_the_platforms(asking, platform):
    asking.end(models=(CARS,))
    changes = [one for one in asking.installation.records() if one.get("action") == "platform.invalidate"]
    assert changes[-1]["actor"] == "platform"
    assert changes[-1]["subject"] == [f"model {CARS}"]


def test_a_key_that_an_operator_imported_is_said_not_to_be_the_platforms_to_end(asking, platform):
    imported, other = platform.new_key(CARS), platform.new_key(CARS)
    asking.installation.run("tenants", "create", "importer")
    asking.installation.run("grants", "add", "--tenant", "importer", "--models", CARS)
    digest = sha256(imported.encode()).hexdigest()
    key = asking.installation.json("keys", "import", "--tenant", "importer", "--sha256", digest)
    assert asking.get(CARS, other).status == 200
    assert asking.end(keys=(imported, other)).json()["not_ours_to_end"] == 1
    assert asking.get(CARS, imported).status == 200
    changes = [one for one in asking.installation.records() if one.get("action") == "platform.invalidate"]
    assert f"operator's key {key['key_id']}" in changes[-1]["subject"]
    assert asking.end(keys=(other,)).json()["not_ours_to_end"] == 0


def test_a_hook_does_not_bring_a_key_back_that_was_rotated_away(asking, platform, eventually):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).status == 200
    key_id = asking.gateway.wire.get("/v1/whoami", key).json()["key_id"]
    asking.installation.run("keys", "rotate", key_id, "--overlap", "1s")
    eventually(lambda: asking.get(CARS, key).status == 401, seconds=30)
    assert asking.end(keys=(key,)).status == 200
    assert asking.get(CARS, key).status == 401


@pytest.mark.parametrize("age", [-400, 400])
def test_an_old_hook_and_one_from_the_future_are_refused(asking, age):
    assert asking.post_hook(b"{}", at=time.time() - age).status == 401  # noqa: TID251 -- a sender has a clock


def test_a_forged_hook_is_refused_and_ends_nothing(asking, platform):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).status == 200
    platform.rights[key].clear()
    assert asking.post_hook(b"{}", secret=bytes(32)).status == 401
    assert asking.get(CARS, key).status == 200


@pytest.mark.parametrize(
    "header",
    ["", "t=1,v1=00", "v1=" + "0" * 64, "t=99999999999999,v1=" + "0" * 64, "t=1767225600,v1=" + "A" * 64],
)
def test_what_is_no_signature_is_refused(asking, header):
    assert asking.post_hook(b"{}", **{"Cachegate-Signature": header}).status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys":[]}',
        b'{"keys_sha256":["00"]}',
        b'{"models":["../x"]}',
        b'{"models":[1]}',
        b'{"models":[' + b",".join([b'"a"'] * (MAX_NAMED + 1)) + b"]}",
        b"\xff",
    ],
)
def test_a_signed_body_that_is_not_what_it_has_to_be_is_refused(asking, body):
    assert asking.post_hook(body).status == 400


def test_a_hook_that_is_too_long_is_refused_before_it_is_read(asking):
    assert asking.post_hook(json.dumps({"models": ["a" * 100] * 700}).encode()).status == 413


@pytest.mark.parametrize(("size", "status"), [(10, 200), (70_000, 413)])
def test_a_hook_may_come_in_chunks_up_to_the_same_length(asking, platform, size, status):
    """Some senders announce no length."""
    body = json.dumps({"models": ["acme/none/1"]}).encode() + b" " * size
    lines = asking.hook_headers(body) | {"Transfer-Encoding": "chunked", "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    pieces = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    request = f"POST /hooks/v1/authority HTTP/1.1\r\nHost: gateway\r\n{head}\r\n".encode() + chunks
    assert asking.gateway.wire.send(request).status == status


def test_only_a_post_is_a_hook(asking):
    answer = asking.gateway.wire.get("/hooks/v1/authority")
    assert (answer.status, answer.header("allow")) == (405, "POST")


def test_an_answer_that_was_on_its_way_when_the_hook_came_counts_for_nothing(asking, platform, eventually):
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 -- only here

    key = platform.new_key(CARS)
    platform.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asking.get, CARS, key)
        eventually(lambda: platform.questions(key))
        assert asking.end(models=(CARS,)).status == 200
        platform.may_answer.set()
        assert waiting.result().status == 200
    assert len(platform.questions(key)) == 2, "it was asked again, after the hook"


def test_every_worker_knows_when_the_hook_is_answered(serve, platform):
    fleet = serve("hooked", workers=3)
    for _ in range(5):
        key = platform.new_key(CARS)
        assert {fleet.get(CARS, key).status for _ in range(9)} == {200}
        platform.rights[key].clear()
        assert fleet.end(models=(CARS,)).status == 200
        assert {fleet.get(CARS, key).status for _ in range(9)} == {404}
