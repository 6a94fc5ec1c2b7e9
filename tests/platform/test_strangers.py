"""Unknown keys: anyone can make them up, and they cost the platform and Redis next to nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest

from gateway.adapters.redis_marks import COUNTER, GENERATION
from gateway.platform.budget import BURST_SECONDS, SHARE_OF_ONE_SOURCE

pytestmark = pytest.mark.slow

CARS, TRUCKS = "acme/cars/1", "acme/trucks/2"
PER_SECOND = 20
RATE, BURST = PER_SECOND / SHARE_OF_ONE_SOURCE, PER_SECOND / SHARE_OF_ONE_SOURCE * BURST_SECONDS
PROXY = "127.0.0.1/32"


@pytest.fixture(scope="session")
def guarded(serve):
    """A gateway with a small budget, which believes a proxy: each test comes from addresses of its own.

    Nothing changes its facts but what is asked of it: no canary, and no pins but those made by reads.
    """
    return serve(
        "strangers",
        UNKNOWN_KEY_QUESTIONS=str(PER_SECOND),
        TRUSTED_PROXIES=PROXY,
        CANARY_SECONDS="0",
        PIN_IN_BACKGROUND="off",
        ALLOW_SECONDS="1",
    )


@pytest.fixture
def source():
    """An address that no other test comes from."""
    number = int(token_hex(2), 16)
    return f"10.9.{number >> 8}.{number & 255}"


def get(gateway, model, key, source):
    return gateway.get(model, key, headers=(("X-Forwarded-For", source),))


def generation_of(gateway):
    return gateway.installation.redis().hget(GENERATION, COUNTER)


def fact_names(gateway):
    return set(gateway.installation.redis().keys("{cachegate}:f:*"))


def use_up(gateway, source, model=CARS):
    """Ask with made-up keys until the budget of this source says no; gives that answer."""
    for _ in range(200):
        answer = get(gateway, model, token_hex(10), source)
        if answer.status == 429:
            return answer
    raise AssertionError("never refused")


def test_four_hundred_made_up_keys_are_few_questions_and_no_change(guarded, platform, source):
    known = platform.new_key(CARS)
    assert get(guarded, CARS, known, "10.8.0.1").status == 200  # its blob is pinned now, and its key known
    before, facts, asked = generation_of(guarded), fact_names(guarded), len(platform.asked)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        keys = [token_hex(10) for _ in range(400)]
        statuses = [one.status for one in pool.map(lambda key: get(guarded, CARS, key, source), keys)]
    seconds = time.monotonic() - started
    assert set(statuses) <= {401, 429}
    assert len(platform.asked) - asked <= BURST + RATE * seconds + 1
    assert statuses.count(401) >= BURST
    assert generation_of(guarded) == before
    assert fact_names(guarded) <= facts


def test_what_is_over_the_budget_says_nothing_and_is_remembered_by_nobody(
    guarded, platform, source, eventually
):
    answer = use_up(guarded, source)
    assert answer.header("retry-after") == "1"
    key = platform.new_key(CARS)
    refused = get(guarded, CARS, key, source)
    if refused.status == 429:  # else the budget had filled meanwhile
        assert refused.comparable() == answer.comparable()
        assert platform.questions(key) == []
    # A real customer behind the same address gets through while the attacker goes on.
    eventually(
        lambda: get(guarded, CARS, token_hex(10), source) and get(guarded, CARS, key, source).status == 200,
    )


def test_other_sources_and_known_keys_go_on(guarded, platform, source):
    known = platform.new_key(CARS, TRUCKS)
    assert get(guarded, CARS, known, source).status == 200
    use_up(guarded, source)
    assert get(guarded, TRUCKS, known, source).status == 200, "a question about a known key"
    assert get(guarded, CARS, platform.new_key(CARS), "10.7.0.1").status == 200


def test_a_denial_is_asked_for_once_and_tells_all_models(guarded, platform, source):
    key = token_hex(10)
    for model in (CARS, CARS, TRUCKS):
        assert get(guarded, model, key, source).status == 401
    assert platform.questions(key) == [CARS]
    refused = platform.new_key()
    assert [get(guarded, CARS, refused, source).status for _ in range(2)] == [404, 404]
    assert platform.questions(refused) == [CARS]


@pytest.fixture(scope="session")
def fleet(serve):
    return serve("strangers-fleet", workers=3, UNKNOWN_KEY_QUESTIONS="1000")


@pytest.mark.parametrize(
    ("hook", "is_nobodys"),
    [
        (lambda fleet, key: fleet.end(keys=(key,)), True),
        (lambda fleet, key: fleet.end(keys=(key,)), False),
        (lambda fleet, _: fleet.post_hook(b"{}"), True),
        (lambda fleet, _: fleet.end(models=(CARS,)), False),
    ],
)
def test_a_webhook_makes_a_key_work_at_once_in_every_worker(fleet, platform, eventually, hook, is_nobodys):
    key = token_hex(10) if is_nobodys else platform.new_key()
    denied = 401 if is_nobodys else 404

    def is_known_to_all():
        assert fleet.get(CARS, key).status == denied
        return len(platform.questions(key)) == 3

    eventually(is_known_to_all)  # each worker has asked for itself
    platform.rights[key] = {CARS}
    assert {fleet.get(CARS, key).status for _ in range(6)} == {denied}
    assert hook(fleet, key).status == 200
    assert {fleet.get(CARS, key).status for _ in range(12)} == {200}


def test_a_platform_that_asks_for_fewer_questions_is_asked_by_known_tenants_only(
    guarded, platform, source, eventually
):
    known = platform.new_key(CARS)
    assert get(guarded, CARS, known, "10.6.0.1").status == 200
    unknown_keys = [token_hex(10) for _ in range(6)]
    for key in unknown_keys:
        platform.says[key, None] = 429
    answers = [get(guarded, CARS, key, source) for key in unknown_keys]
    assert {answer.status for answer in answers} == {503}
    assert sum(len(platform.questions(key)) for key in unknown_keys) == 1
    metrics = guarded.gateway.metrics()
    assert metrics["cachegate_upstream_left_alone_by_strangers"] == 1
    assert metrics["cachegate_upstream_left_alone"] == 0
    before = len(platform.questions(known))
    eventually(  # its allow ends, and it is asked about again
        lambda: (
            get(guarded, CARS, known, "10.6.0.1").status == 200 and len(platform.questions(known)) > before
        ),
    )
    fresh = platform.new_key(CARS)
    eventually(lambda: get(guarded, CARS, fresh, source).status == 200)
    assert guarded.gateway.metrics()["cachegate_upstream_left_alone_by_strangers"] == 0


def test_a_platform_that_fails_on_strangers_stops_nobody_who_is_known(guarded, platform, source, eventually):
    known = platform.new_key(CARS)
    assert get(guarded, CARS, known, "10.5.0.1").status == 200
    for _ in range(7):
        key = token_hex(10)
        platform.says[key, None] = 503
        assert get(guarded, CARS, key, source).status == 503
    assert guarded.gateway.metrics()["cachegate_upstream_left_alone_by_strangers"] == 1
    before = len(platform.questions(known))
    eventually(
        lambda: (
            get(guarded, CARS, known, "10.5.0.1").status == 200 and len(platform.questions(known)) > before
        ),
    )
    eventually(lambda: get(guarded, CARS, platform.new_key(CARS), "10.5.0.2").status == 200)


def test_made_up_keys_have_no_records_of_their_own_beyond_those_of_their_source(guarded, source):
    for _ in range(60):
        get(guarded, CARS, token_hex(10), source)
    records = [
        one for one in guarded.installation.records() if one.get("request", {}).get("client") == source
    ]
    assert records
    assert not any(one.get("claimed_key_id") for one in records)


def test_what_became_of_them_is_counted(guarded, source, eventually):
    key = token_hex(10)
    remembered = 'cachegate_unknown_keys_total{event="remembered"}'

    def is_remembered():  # not at once where the platform's answer was late
        get(guarded, CARS, key, source)
        return remembered in guarded.gateway.metrics()

    eventually(is_remembered)
    use_up(guarded, source)
    metrics = guarded.gateway.metrics()
    for event in ("asked", "remembered", "limited"):
        assert metrics[f'cachegate_unknown_keys_total{{event="{event}"}}'] >= 1


def test_a_paused_key_that_nobody_knew_costs_one_question_more_and_no_fact(guarded, platform, source):
    key = platform.new_key(CARS, TRUCKS)
    platform.says[key, None] = 423
    before = generation_of(guarded)
    assert [get(guarded, model, key, source).status for model in (CARS, CARS, TRUCKS)] == [423, 423, 423]
    assert len(platform.questions(key)) == 3
    assert generation_of(guarded) == before
