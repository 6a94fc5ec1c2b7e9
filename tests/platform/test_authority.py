"""Keys and rights that only the platform knows, with no set-up on our side."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.slow

CARS, TRUCKS, OPEN, NOWHERE = "acme/cars/1", "acme/trucks/2", "open/demo/1", "acme/nowhere/9"
CONTENT = b"the weights of a model\n"


def test_a_key_of_the_platform_works_with_no_set_up(asking, platform):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).body == CONTENT


def test_an_allow_is_asked_for_once(asking, platform):
    key = platform.new_key(CARS)
    for _ in range(5):
        assert asking.get(CARS, key).status == 200
    assert platform.questions(key) == [CARS]


def test_the_record_of_an_allow_names_the_platform_as_its_ground(asking, platform):
    key = platform.new_key(CARS)
    answer = asking.get(CARS, key)
    record = next(one for one in asking.installation.records() if one["id"] == answer.record_id)
    assert record["grant"] == "platform"
    assert record["tenant"].startswith("platform-")


def test_a_key_that_nobody_knows_is_refused(asking, platform):
    answer = asking.get(CARS, "nobody-gave-me-out")
    assert answer.status == 401
    asked = len(platform.asked)
    assert asking.get(CARS, "nobody-gave-me-out").status == 401
    assert len(platform.asked) == asked, "a denial is remembered"


def test_a_right_is_on_one_model_of_one_key(asking, platform):
    mine, other = platform.new_key(CARS), platform.new_key(TRUCKS)
    assert asking.get(CARS, mine).status == asking.get(TRUCKS, other).status == 200
    assert asking.get(TRUCKS, mine).status == asking.get(CARS, other).status == 404


def test_what_is_hidden_answers_as_what_is_not_there(asking, platform):
    stranger, known = platform.new_key(), platform.new_key(CARS)
    asking.get(CARS, known)
    for key in (stranger, known):
        hidden = asking.get(TRUCKS, key)
        assert hidden.comparable() == asking.get(NOWHERE, key).comparable()
        assert hidden.status == 404


def test_a_key_is_asked_about_for_a_model_only(asking, platform):
    key = platform.new_key(CARS)
    assert asking.gateway.wire.get("/v1/whoami", key).status == 401
    assert platform.questions(key) == []
    asking.get(CARS, key)
    assert asking.gateway.wire.get("/v1/whoami", key).json()["tenant"].startswith("platform-")


def test_a_listing_shows_what_live_rulings_allow(asking, platform):
    key = platform.new_key(CARS, TRUCKS)
    asking.get(CARS, key)
    listed = asking.gateway.wire.get("/v1/models", key).json()["models"]
    assert [one["id"] for one in listed] == [CARS, OPEN]


def test_what_is_public_is_open_to_a_key_that_the_platform_lets_have_it_and_to_no_other(asking, platform):
    may, may_not = platform.new_key(CARS, OPEN), platform.new_key(CARS)
    assert asking.get(OPEN, may_not).status == 404, "not as a key that nobody knew"
    for key in (may, may_not):
        assert asking.get(CARS, key).status == 200
    assert asking.get(OPEN, may).status == 200
    assert asking.get(OPEN, may_not).status == 404, "nor as one that is known"
    assert OPEN not in [one["id"] for one in asking.gateway.wire.get("/v1/models", may_not).json()["models"]]
    assert asking.get(OPEN, "nobody-gave-me-out-either").status == 401


def test_a_paused_key_gets_nothing_that_is_public(asking, platform):
    key = platform.new_key(CARS)
    assert asking.get(CARS, key).status == 200
    platform.says[key, None] = 423
    assert asking.get(OPEN, key).status == 423


def test_a_platform_that_takes_longer_than_it_is_believed_can_be_believed(forgetful, platform):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    platform.delay_seconds = 1.2
    assert forgetful.get(TRUCKS, key).status == 404


def test_a_page_that_is_no_answer_allows_nothing(asking, platform):
    key = platform.new_key(CARS)
    platform.raw[key] = b'{"error":"session expired, please sign in"}'
    assert asking.get(CARS, key).status == 503
    del platform.raw[key]
    assert asking.get(CARS, key).status == 200


def test_a_local_revocation_wins(asking, platform):
    key = platform.new_key(CARS)
    asking.get(CARS, key)
    key_id = asking.gateway.wire.get("/v1/whoami", key).json()["key_id"]
    asking.installation.run("keys", "revoke", key_id)
    assert asking.get(CARS, key).status == 401
    assert asking.end(keys=(key,)).status == 200
    assert asking.get(CARS, key).status == 401


def test_a_local_alias_is_asked_about_by_the_name_of_its_model(asking, platform):
    asking.installation.run("models", "alias", "the-cars", CARS)
    key = platform.new_key(CARS)
    assert asking.get("the-cars", key).body == CONTENT


def test_keys_of_our_own_form_are_shown_to_nobody(asking, platform):
    from gateway.identity.tokens import mint_token  # noqa: PLC0415 -- only here

    key = mint_token("live")
    assert asking.get(CARS, key).status == 401
    assert platform.questions(key) == []


def test_a_revoked_key_is_refused_once_the_allow_has_ended(forgetful, platform):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    started = time.monotonic()
    del platform.rights[key]
    while forgetful.get(CARS, key).status == 200:
        assert time.monotonic() < started + 1.3
    assert forgetful.get(CARS, key).status == 401
    assert forgetful.gateway.wire.get("/v1/whoami", key).status == 401


def test_a_key_that_is_known_again_works_again(forgetful, platform, eventually):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    del platform.rights[key]
    eventually(lambda: forgetful.get(CARS, key).status == 401)
    platform.rights[key] = {CARS}
    eventually(lambda: forgetful.get(CARS, key).status == 200)


def test_a_denial_becomes_an_allow_once_it_has_ended(forgetful, platform, eventually):
    key = platform.new_key()
    assert forgetful.get(CARS, key).status == 404
    platform.rights[key].add(CARS)
    assert forgetful.get(CARS, key).status == 404, "a denial is believed for a while"
    eventually(lambda: forgetful.get(CARS, key).status == 200)


def test_an_allow_becomes_a_denial_once_it_has_ended(forgetful, platform, eventually):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    platform.rights[key].clear()
    eventually(lambda: forgetful.get(CARS, key).status == 404)


def test_what_is_not_decided_is_neither_allowed_nor_remembered(asking, platform, eventually):
    key = platform.new_key(CARS)
    for number, status in enumerate((500, 302, 418, 429), 1):
        platform.status = status
        answer = asking.get(CARS, key)
        assert (answer.status, answer.header("retry-after")) == (503, "1"), status
        assert len(platform.questions(key)) == number
    platform.status = None
    # Who said 429 is asked nothing about unknown keys for a moment.
    eventually(lambda: asking.get(CARS, key).status == 200)


def test_an_allow_that_ended_is_not_extended_by_an_outage(forgetful, platform, eventually):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    platform.status = 500
    eventually(lambda: forgetful.get(CARS, key).status == 503)
    assert forgetful.get(CARS, key).status == 503
    platform.status = None
    eventually(lambda: forgetful.get(CARS, key).status == 200)


def test_payment_and_pause_pass_where_they_do_not_depend_on_the_model(asking, platform):
    for status in (402, 423):
        owing, picky = platform.new_key(CARS), platform.new_key(CARS)
        platform.says[owing, None] = status
        platform.says[picky, CARS] = status
        assert asking.get(CARS, owing).status == status
        assert asking.get(TRUCKS, owing).status == status
        assert asking.get(CARS, picky).status == 404
        assert len(platform.questions(owing)) == 3, "which of the two it is was asked for once"


def test_one_worker_of_the_fleet_asks_however_many_wait(serve, platform):
    fleet = serve("fleet", workers=4)
    platform.delay_seconds = 0.3
    key = platform.new_key(CARS)
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: fleet.get(CARS, key), range(200)))
    assert {answer.status for answer in answers} == {200}
    assert platform.questions(key) == [CARS]


def test_no_key_is_in_redis_the_log_or_the_audit_records(asking, platform):
    keys = [platform.new_key(CARS), platform.new_key(), "a-stranger-s-made-up-key"]
    for key in keys:
        asking.get(CARS, key)
    redis = asking.installation.redis()
    places = [asking.gateway.log(), str(asking.installation.records())]
    for name in redis.keys("*"):
        value = redis.dump(name)
        places.append(repr(name) + (value or b"").decode("latin-1"))
    assert not [key for key in keys for place in places if key in place]


def test_what_was_said_goes_away_by_itself(asking, platform):
    key = platform.new_key(CARS)
    asking.get(CARS, key)
    asking.get(TRUCKS, key)
    redis = asking.installation.redis()
    rulings = [name for kind in ("r", "s") for name in redis.keys(f"{{cachegate}}:f:{kind}:*")]
    assert rulings
    assert all(0 < redis.pttl(name) <= 60_000 for name in rulings)
    assert not redis.keys("{cachegate}:ask:*")


def test_a_platform_that_answers_nobody_is_left_alone_and_tried_again(forgetful, platform, eventually):
    key = platform.new_key(CARS)
    assert forgetful.get(CARS, key).status == 200
    platform.status = 503
    eventually(
        lambda: forgetful.gateway.metrics()["cachegate_upstream_left_alone"] == 1 or _ask(forgetful, key)
    )
    asked = len(platform.questions(key))
    assert forgetful.get(CARS, key).status == 503
    assert len(platform.questions(key)) - asked <= 1, "but for one trial in a while"
    platform.status = None
    eventually(lambda: forgetful.get(CARS, key).status == 200)
    metrics = forgetful.gateway.metrics()
    assert metrics["cachegate_upstream_left_alone"] == 0
    assert metrics['cachegate_upstream_questions_total{outcome="failed"}'] >= 5


def _ask(forgetful, key):
    """One more question, once the allow has ended; nothing yet."""
    forgetful.get(CARS, key)
