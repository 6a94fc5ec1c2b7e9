"""The admin API over a fact server that breaks off: a change that was made is never answered as an error."""

from __future__ import annotations

import threading

import pytest

from tests.administration import Administrator


@pytest.fixture(scope="module")
def fleet(build_fleet):
    return build_fleet(workers=1, is_remote=True, CACHEGATE_CANARY_SECONDS="0")


@pytest.fixture
def owner(fleet, eventually):
    """Of a fleet that has its facts: the test before may have cut its connections a moment ago."""
    eventually(fleet.gateway.is_ready)
    return Administrator(fleet.gateway.admin, fleet.installation.admin_key)


def break_off(fleet, send, *needles):
    """Have somebody send a request; cut the connection over which the reply with these comes back."""
    answers = []
    with fleet.proxy.holding(*needles):
        sending = threading.Thread(target=lambda: answers.append(send()))
        sending.start()
        assert fleet.proxy.caught.wait(60)
        fleet.proxy.cut("data")
    sending.join()
    return answers[0]


def test_a_commit_whose_answer_is_lost_is_answered_as_done(fleet, owner):
    answer = break_off(fleet, lambda: owner.post("/tenants", {"id": "lost-answer"}), b"MSET", b"lost-answer")
    assert answer.status == 202, answer.body
    assert answer.json()["changed"]
    assert answer.json()["sure_at"]
    found = owner.get("/tenants/lost-answer")
    assert (found.status, found.json()["generation"]) == (200, answer.json()["generation"])


def test_a_key_whose_commit_lost_its_answer_is_told_all_the_same(fleet, owner):
    owner.made("/tenants", {"id": "told"})
    order = {"tenant": "told", "name": "a-lost-key"}
    answer = break_off(fleet, lambda: owner.post("/keys", order), b"MSET", b"a-lost-key")
    assert answer.status == 202, answer.body
    assert fleet.wire.get("/v1/whoami", answer.json()["token"]).json()["name"] == "a-lost-key"


def test_with_the_facts_out_of_reach_nothing_is_changed(fleet, owner):
    owner.made("/tenants", {"id": "reached"})
    with fleet.server.stopped():
        answers = [owner.post("/tenants", {"id": "unreached"}), owner.get("/tenants/reached")]
    assert [one.status for one in answers] == [503, 503]
    assert owner.get("/tenants/unreached").status in {404, 503}
